"""What the Python client shows of scans.

security.py REPO: waits until everything is scanned; prints a JSON object of paths and verdicts.
"""

import json
import sys
import time

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile


def main(repo):
    api = HfApi()
    deadline = time.monotonic() + 60
    while True:
        listed = api.list_repo_tree(repo, recursive=True, expand=True)
        files = [file for file in listed if isinstance(file, RepoFile)]
        if all(file.security.status != "queued" for file in files):
            break
        assert time.monotonic() < deadline, "the scans do not end"
        time.sleep(0.2)
    for file in api.get_paths_info(repo, [file.path for file in files], expand=True):
        listed = next(other for other in files if other.path == file.path)
        assert file.security == listed.security, file
        assert file.security.safe == (file.security.status == "safe")
    info = api.model_info(repo, securityStatus=True)
    status = info.security_repo_status
    assert status["scansDone"] is True, status
    issues = {issue["path"]: issue["level"] for issue in status["filesWithIssues"]}
    assert issues == {f.path: f.security.status for f in files if not f.security.safe}, issues
    found = {}
    for file in files:
        scan = file.security.pickle_import_scan
        imports = [] if scan is None else scan["pickleImports"]
        names = [f"{i['module']}.{i['name']}" for i in imports if i["safety"] == "dangerous"]
        found[file.path] = {"status": file.security.status, "imports": names}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
