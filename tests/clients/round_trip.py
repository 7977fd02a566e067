"""Up and down again, by whatever this version of huggingface_hub does: usage round_trip.py REPO.

Works with 0.36, 1.28 and 2.4; the environment says whether Xet is on.
"""
import pathlib
import sys
import tempfile

from content import noise, sha256
from huggingface_hub import HfApi, __version__, hf_hub_download, snapshot_download

api, repo = HfApi(), sys.argv[1]
work = pathlib.Path(tempfile.mkdtemp())
api.create_repo(repo, exist_ok=True)
folder = work / "folder"
(folder / "sub").mkdir(parents=True)
(folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Round trip\n")
(folder / "sub" / "config.json").write_text("{}")
(folder / "big.safetensors").write_bytes(noise(7, 12_000_000))
(folder / "sub" / "repeated.bin").write_bytes(noise(8, 70_000) * 40)
api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="all of it")
api.upload_file(path_or_fileobj=noise(9, 200_000), path_in_repo="from-memory.bin", repo_id=repo)

info = api.model_info(repo, files_metadata=True)
assert {s.rfilename for s in info.siblings} >= {"README.md", "sub/config.json", "big.safetensors", "sub/repeated.bin", "from-memory.bin"}
one = hf_hub_download(repo, "big.safetensors", cache_dir=tempfile.mkdtemp(dir=work))
assert sha256(one) == sha256(folder / "big.safetensors")
all_of_it = pathlib.Path(snapshot_download(repo, cache_dir=tempfile.mkdtemp(dir=work)))
for path in ("README.md", "sub/config.json", "big.safetensors", "sub/repeated.bin"):
    assert sha256(all_of_it / path) == sha256(folder / path), path
assert (all_of_it / "from-memory.bin").read_bytes() == noise(9, 200_000)
print("round trip with", __version__)
