"""What people do with huggingface_hub 2.x, from the first repo to the last: usage hub_flow.py NAMESPACE."""
import os
import pathlib
import sys
import tempfile

from content import noise, raises, sha256
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub import get_safetensors_metadata, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

api = HfApi()
owner = sys.argv[1]
repo = f"{owner}/first-model"
work = pathlib.Path(tempfile.mkdtemp())
fresh = lambda: tempfile.mkdtemp(dir=work)

# Who am I, and is there anything yet?
me = api.whoami()
assert me["name"] == owner and me["auth"]["accessToken"]["role"] == "write", me
assert not api.repo_exists(repo)
raises(RepositoryNotFoundError, api.model_info, repo)

# Create; again, both ways.
url = api.create_repo(repo)
assert url.repo_id == repo, url
api.create_repo(repo, exist_ok=True)
error = raises(HfHubHTTPError, api.create_repo, repo)
assert error.response.status_code == 409, error
first = api.model_info(repo)
assert len(first.sha) == 40 and first.private is False
assert [f.rfilename for f in first.siblings] == [".gitattributes"]

# One small file, one large file, one folder.
card = "---\nlicense: mit\nlanguage: [en, de]\npipeline_tag: text-generation\ntags: [demo]\n---\n# First\nA card about walnuts.\n"
api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo)
large = work / "model.bin"
large.write_bytes(noise(1, 9_000_001))
commit = api.upload_file(path_or_fileobj=str(large), path_in_repo="model.bin", repo_id=repo, commit_message="weights")
assert commit.commit_message == "weights" and f"/{repo}/commit/" in commit.commit_url, commit
folder = work / "folder"
(folder / "deep" / "er").mkdir(parents=True)
(folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
(folder / "deep" / "er" / "ümlaut file.txt").write_text("hello")
(folder / "deep" / "part.safetensors").write_bytes(noise(2, 300_000))
(folder / "empty.txt").write_bytes(b"")
api.upload_folder(folder_path=str(folder), repo_id=repo)

# Look at it in every way.
info = api.model_info(repo, files_metadata=True)
names = {f.rfilename: f for f in info.siblings}
assert set(names) == {".gitattributes", "README.md", "model.bin", "config.json", "deep/er/ümlaut file.txt", "deep/part.safetensors", "empty.txt"}, names
assert names["model.bin"].lfs.sha256 == sha256(large) and names["model.bin"].size == 9_000_001
assert names["empty.txt"].size == 0
assert info.pipeline_tag == "text-generation" and "license:mit" in info.tags and info.card_data.license == "mit", info
tree = {e.path: e for e in api.list_repo_tree(repo, recursive=True, expand=True)}
assert tree["deep/er"].tree_id and tree["model.bin"].lfs.size == 9_000_001 and tree["model.bin"].xet_hash
assert tree["model.bin"].last_commit.title == "weights", tree["model.bin"]
flat = {e.path for e in api.list_repo_tree(repo)}
assert flat == {".gitattributes", "README.md", "model.bin", "config.json", "deep", "empty.txt"}, flat
assert [e.path for e in api.list_repo_tree(repo, "deep")] == ["deep/er", "deep/part.safetensors"]
raises(EntryNotFoundError, lambda: list(api.list_repo_tree(repo, "nowhere")))
paths = api.get_paths_info(repo, ["model.bin", "deep", "absent"], expand=True)
assert {p.path for p in paths} == {"model.bin", "deep"}, paths
assert api.file_exists(repo, "config.json") and not api.file_exists(repo, "absent.json")
commits = api.list_repo_commits(repo)
assert commits[0].commit_id == info.sha and commits[-1].commit_id == first.sha, commits
assert {"weights"} <= {c.title for c in commits} and commits[0].authors == [owner], commits

# Download: single files, the same from the cache, a snapshot, patterns.
got = hf_hub_download(repo, "model.bin", cache_dir=fresh())
assert sha256(got) == sha256(large)
got = hf_hub_download(repo, "deep/er/ümlaut file.txt", cache_dir=fresh())
assert open(got).read() == "hello"
assert os.path.getsize(hf_hub_download(repo, "empty.txt", cache_dir=fresh())) == 0
raises(EntryNotFoundError, hf_hub_download, repo, "absent.json", cache_dir=fresh())
raises(RevisionNotFoundError, hf_hub_download, repo, "config.json", revision="nope", cache_dir=fresh())
cache = fresh()
snapshot = pathlib.Path(snapshot_download(repo, cache_dir=cache))
assert {str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()} == set(names)
assert sha256(snapshot / "model.bin") == sha256(large)
assert snapshot_download(repo, cache_dir=cache) == str(snapshot)
some = pathlib.Path(snapshot_download(repo, cache_dir=fresh(), allow_patterns="*.json"))
assert [p.name for p in some.rglob("*") if p.is_file()] == ["config.json"]

# Branches and tags.
api.create_branch(repo, branch="feature/one")
raises(HfHubHTTPError, api.create_branch, repo, branch="feature/one")
api.create_branch(repo, branch="feature/one", exist_ok=True)
api.upload_file(path_or_fileobj=b"on a branch", path_in_repo="branch.txt", repo_id=repo, revision="feature/one")
assert not api.file_exists(repo, "branch.txt") and api.file_exists(repo, "branch.txt", revision="feature/one")
api.create_tag(repo, tag="v1", tag_message="the first")
refs = api.list_repo_refs(repo, include_pull_requests=True)
assert {b.name for b in refs.branches} == {"main", "feature/one"} and {t.name for t in refs.tags} == {"v1"}
assert refs.tags[0].target_commit == info.sha and refs.pull_requests == []
assert api.model_info(repo, revision="v1").sha == info.sha
api.delete_tag(repo, tag="v1")
api.delete_branch(repo, branch="feature/one")
assert not api.revision_exists(repo, "v1")
raises(HfHubHTTPError, api.delete_branch, repo, branch="main")

# Commits: several operations at once, copies, deletions, a parent that moved.
tip = api.model_info(repo).sha
done = api.create_commit(repo, [
    CommitOperationAdd("notes/a.txt", b"a"), CommitOperationAdd("notes/b.txt", b"b"),
    CommitOperationCopy("model.bin", "copy.bin"), CommitOperationDelete("empty.txt"),
], commit_message="several things", commit_description="in one commit", parent_commit=tip)
assert done.oid != tip
error = raises(HfHubHTTPError, api.create_commit, repo, [CommitOperationAdd("c.txt", b"c")], commit_message="late", parent_commit=tip)
assert error.response.status_code == 412, error
assert sha256(hf_hub_download(repo, "copy.bin", cache_dir=fresh())) == sha256(large)
raises(EntryNotFoundError, api.delete_file, "absent.txt", repo)
api.delete_folder("notes", repo)
assert not api.file_exists(repo, "notes/a.txt") and api.file_exists(repo, "notes/a.txt", revision=done.oid)
same = api.upload_file(path_or_fileobj=str(large), path_in_repo="model.bin", repo_id=repo)
assert same.oid == api.model_info(repo).sha

# A pull request.
request = api.create_commit(repo, [CommitOperationAdd("idea.txt", b"idea")], commit_message="an idea", create_pr=True)
assert request.pr_url.endswith("/discussions/1") and request.pr_revision == "refs/pr/1", request
assert api.file_exists(repo, "idea.txt", revision="refs/pr/1") and not api.file_exists(repo, "idea.txt")
assert [p.ref for p in api.list_repo_refs(repo, include_pull_requests=True).pull_requests] == ["refs/pr/1"]
discussion = next(iter(api.get_repo_discussions(repo)))
assert discussion.is_pull_request and discussion.title == "an idea", discussion

# Search.
api.create_repo(f"{owner}/walnut-data", repo_type="dataset")
api.create_repo(f"{owner}/app", repo_type="space", space_sdk="gradio")
assert [m.id for m in api.list_models(author=owner)] == [repo]
assert [m.id for m in api.list_models(filter="license:mit", pipeline_tag="text-generation")] == [repo]
assert [m.id for m in api.list_models(search="walnuts")] == [repo], "the card's text is searched"
assert list(api.list_models(filter="license:gpl")) == []
assert [d.id for d in api.list_datasets(search="walnut")] == [f"{owner}/walnut-data"]
assert [s.id for s in api.list_spaces(author=owner)] == [f"{owner}/app"]
expanded = next(iter(api.list_models(author=owner, expand=["downloads", "likes", "cardData"])))
assert expanded.downloads >= 1 and expanded.likes == 0 and expanded.card_data.license == "mit", expanded

# Datasets and spaces hold files as models do.
api.upload_file(path_or_fileobj=noise(3, 400_000), path_in_repo="data/train.parquet", repo_id=f"{owner}/walnut-data", repo_type="dataset")
got = hf_hub_download(f"{owner}/walnut-data", "data/train.parquet", repo_type="dataset", cache_dir=fresh())
assert open(got, "rb").read() == noise(3, 400_000)
assert api.space_info(f"{owner}/app").sdk == "gradio"

# Rename: the old name goes on working.
api.move_repo(repo, f"{owner}/renamed-model")
assert api.model_info(repo).id == f"{owner}/renamed-model"
assert sha256(hf_hub_download(repo, "model.bin", cache_dir=fresh())) == sha256(large)
assert api.model_info(f"{owner}/RENAMED-model").id == f"{owner}/renamed-model"

# Squash, settings, the end.
api.super_squash_history(f"{owner}/renamed-model", commit_message="one")
assert [c.title for c in api.list_repo_commits(f"{owner}/renamed-model")] == ["one"]
api.update_repo_settings(f"{owner}/renamed-model", visibility="private")
assert api.model_info(f"{owner}/renamed-model").private is True
api.delete_repo(f"{owner}/renamed-model")
assert not api.repo_exists(f"{owner}/renamed-model")
api.delete_repo(f"{owner}/renamed-model", missing_ok=True)
raises(RepositoryNotFoundError, api.delete_repo, f"{owner}/renamed-model")
print("flow done")
