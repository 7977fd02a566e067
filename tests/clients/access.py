"""Private and gated repos: usage access.py OWNER_TOKEN MEMBER_TOKEN STRANGER_TOKEN.

The owner is `owner`, the member belongs to the organisation `lab` with the role read.
"""
import os
import sys
import tempfile

from content import noise, raises
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

owner, member, stranger = (HfApi(token=token) for token in sys.argv[1:4])
nobody = HfApi(token=False)
fetch = lambda api, repo, path="w.bin": hf_hub_download(repo, path, token=api.token, cache_dir=tempfile.mkdtemp())

# Private: its owner reads it; to all others it is not there.
owner.create_repo("owner/secret", visibility="private")
owner.upload_file(path_or_fileobj=noise(1, 300_000), path_in_repo="w.bin", repo_id="owner/secret")
assert open(fetch(owner, "owner/secret"), "rb").read() == noise(1, 300_000)
for api in (member, stranger, nobody):
    assert not api.repo_exists("owner/secret")
    raises(RepositoryNotFoundError, fetch, api, "owner/secret")
    raises(RepositoryNotFoundError, api.model_info, "owner/secret")
    raises(RepositoryNotFoundError, api.list_repo_refs, "owner/secret")
    assert list(api.list_models(author="owner")) == []
    raises(HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="owner/secret")

# An organisation's private repo: members read it, by their role.
owner.create_repo("lab/private", visibility="private")
owner.upload_file(path_or_fileobj=noise(2, 300_000), path_in_repo="w.bin", repo_id="lab/private")
assert open(fetch(member, "lab/private"), "rb").read() == noise(2, 300_000)
error = raises(HfHubHTTPError, member.upload_file, path_or_fileobj=b"x", path_in_repo="x", repo_id="lab/private")
assert error.response.status_code == 403, error
assert not stranger.repo_exists("lab/private")

# Gated: everybody sees it, those who were let in read its files.
owner.create_repo("owner/gated")
owner.upload_file(path_or_fileobj=noise(3, 300_000), path_in_repo="w.bin", repo_id="owner/gated")
owner.update_repo_settings("owner/gated", gated="manual")
assert stranger.model_info("owner/gated").gated == "manual"
for api in (stranger, nobody):
    raises(GatedRepoError, fetch, api, "owner/gated")
owner.grant_access("owner/gated", "stranger")
assert open(fetch(stranger, "owner/gated"), "rb").read() == noise(3, 300_000)
assert [r.username for r in owner.list_accepted_access_requests("owner/gated")] == ["stranger"]
owner.cancel_access_request("owner/gated", "stranger")
raises(GatedRepoError, fetch, stranger, "owner/gated")
assert [r.username for r in owner.list_pending_access_requests("owner/gated")] == ["stranger"]
owner.accept_access_request("owner/gated", "stranger")
fetch(stranger, "owner/gated")

# A token that is no token.
bad = HfApi(token="hf_" + "x" * 34)
error = raises(HfHubHTTPError, bad.whoami)
assert error.response.status_code == 401, error
print("access done")
