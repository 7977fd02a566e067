"""Two regions far from each other: a push is cut off in the middle and healed; what goes over the wire.

    cargo build --workspace
    python3 benches/regions.py --netlab PATH [--mib 64] [--rate 50mbit] [--delay 40ms] [--cut 60]

Needs a tool that makes networks of namespaces, as root. The same push goes over twice: once whole, once
cut when half of it came. It fails if a chunk came twice (more than 1% of what was pushed), if the tag was
seen before its file was whole, or if the lag was ever not what it must be. Says what each of both cost on
the wire. Wire bytes are those that the following host got, with all headers.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
REPO, FILE, TAG = "admin/m", "model.safetensors", "v1"


def ask(method: str, url: str, token: str, body=None, kind="application/json"):
    """Status and body; any status is an answer."""
    headers = {"content-type": kind, "authorization": f"Bearer {token}"}
    headers = headers if token else {"content-type": kind}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def push(endpoint: str, token: str, content: Path, tag: str):
    """Pushes a file, and gives its commit a tag. Inside of a host."""
    data = content.read_bytes()
    oid = hashlib.sha256(data).hexdigest()
    objects = [{"oid": oid, "size": len(data)}]
    batch = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects}
    url = f"{endpoint}/{REPO}.git/info/lfs/objects/batch"
    _, answer = ask("POST", url, token, json.dumps(batch).encode(), "application/vnd.git-lfs+json")
    upload = json.loads(answer)["objects"][0]["actions"]["upload"]["href"]
    assert ask("PUT", upload, "", data, "application/octet-stream")[0] == 200
    lines = [{"key": "header", "value": {"summary": tag}},
             {"key": "lfsFile", "value": {"path": FILE, "algo": "sha256", "oid": oid, "size": len(data)}}]
    body = "\n".join(map(json.dumps, lines)).encode()
    repo = f"{endpoint}/api/models/{REPO}"
    status, answer = ask("POST", f"{repo}/commit/main", token, body, "application/x-ndjson")
    assert status == 200, answer
    status, answer = ask("POST", f"{repo}/tag/main", token, json.dumps({"tag": tag}).encode())
    assert status == 200, answer


def look(endpoint: str, token: str, tag: str):
    """What a region shows of a tag: a status, and what is in the file. Inside of a host."""
    status, body = ask("GET", f"{endpoint}/{REPO}/resolve/{tag}/{FILE}", token)
    print(json.dumps([status, hashlib.sha256(body).hexdigest() if status == 200 else ""]))


class Lab:
    def __init__(self, options):
        self.base = [options.netlab, "-n", f"rg{os.getpid() % 10000}"]
        self.net("up", "--regions", "1,1", "--wan-rate", options.rate, "--wan-delay", options.delay,
                 "--exact", "--ttl", "20m")

    def net(self, *arguments) -> str:
        return subprocess.run([*self.base, *arguments], check=True, capture_output=True, text=True).stdout

    def inside(self, host: str, *command) -> list:
        return [*self.base, "exec", host, "--", *map(str, command)]

    def received(self) -> int:
        """Bytes that the following region's host got."""
        return json.loads(self.net("bytes", "--json"))["b1"]["received"]


class Region:
    """A hub on a host of the lab."""

    def __init__(self, lab: Lab, host: str, name: str, binary: str, folder: Path):
        self.lab, self.host, self.binary = lab, host, binary
        address = lab.net("ip", host).strip()
        self.endpoint = f"http://{address}:18101"
        settings = {"BALLAST_REGION_NAME": name, "BALLAST_PUBLIC_URL": self.endpoint,
                    "BALLAST_CLUSTER_LISTEN": f"{address}:18102", "BALLAST_LOG_LEVEL": "warn"}
        self.child = subprocess.Popen(
            lab.inside(host, binary, "serve", "--listen", f"{address}:18101", "--data", folder / name),
            env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
        self.token = ""
        for line in self.child.stdout:
            if line.startswith("export HF_TOKEN="):
                self.token = line.strip().split("=", 1)[1]
            if line.startswith("ready"):
                return
        sys.exit("a hub did not start")

    def run(self, *arguments):
        return subprocess.run(
            self.lab.inside(self.host, self.binary, *arguments, "--json"), check=True, text=True,
            env={**os.environ, "HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token},
            stdout=subprocess.PIPE).stdout

    def admin(self, *arguments):
        return json.loads(self.run(*arguments))

    def helper(self, *arguments) -> str:
        command = self.lab.inside(self.host, sys.executable, __file__, *arguments)
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def follow(lab: Lab, us: Region, eu: Region, content: Path, tag: str, cut: float) -> dict:
    """Pushes, and looks every second until it has arrived."""
    size, digest = content.stat().st_size, hashlib.sha256(content.read_bytes()).hexdigest()
    before = eu.admin("replicate", "status")["received"][0]
    lab.net("mark")
    pushing = threading.Thread(target=us.helper, args=("push", us.endpoint, us.token, str(content), tag))
    pushing.start()
    began, healed, was_cut, seen, lags = time.monotonic(), None, False, [], []
    while True:
        now = eu.admin("replicate", "status")["received"][0]
        status, got = json.loads(eu.helper("look", eu.endpoint, eu.token, tag))
        came = now["fetched"] - before["fetched"]
        seconds = time.monotonic() - began
        lags.append((seconds, now["lagEntries"], now["lagBytes"], now["lagSeconds"]))
        print(f"  {seconds:6.1f} s  lag {now['lagEntries']} entries {now['lagBytes'] / MIB:6.1f} MiB "
              f"{now['lagSeconds']:3} s  eta {now['etaSeconds']}  came {came / MIB:6.1f} MiB  tag {status}")
        seen.append(status)
        if status == 200:
            assert got == digest, "the tag leads to other bytes"
            assert now["lagBytes"] == 0 and came >= size * 0.99, now
            break
        assert now["lagEntries"] > 0 or came == 0 or came >= size, f"it lags and does not say so: {now}"
        # Whatever came is not missing any more; the rest is.
        assert not came or abs(now["lagBytes"] + came - size) < size * 0.15, (now, came)
        if cut and not was_cut and came > size / 2:
            lab.net("set", "wanb", "loss=100")
            was_cut, healed = True, time.monotonic() + cut
            print(f"  cut for {cut:.0f} s")
        if healed and time.monotonic() > healed:
            lab.net("set", "wanb", "loss=0")
            healed = None
            print("  healed")
        time.sleep(1)
    pushing.join()
    # The last entry, which is the tag's, may come a moment later.
    time.sleep(5)
    return {"seconds": seconds, "came": came, "wire": lab.received(), "size": size}


def main():
    if sys.argv[1:2] == ["push"]:
        return push(*sys.argv[2:4], Path(sys.argv[4]), sys.argv[5])
    if sys.argv[1:2] == ["look"]:
        return look(*sys.argv[2:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--netlab", default="netlab")
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rate", default="50mbit")
    parser.add_argument("--delay", default="40ms", help="one way")
    parser.add_argument("--cut", type=float, default=60)
    parser.add_argument("--binary", default=str(ROOT / "target/debug/ballast"))
    options = parser.parse_args()
    lab = Lab(options)
    regions = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            folder = Path(folder)
            us = Region(lab, "a1", "us", options.binary, folder)
            regions.append(us)
            eu = Region(lab, "b1", "eu", options.binary, folder)
            regions.append(eu)
            token = us.admin("node", "join-token", "eu", "--role", "region")["token"]
            us.run("replicate", "create", "all", "--match", "**", "--to", "eu")
            eu.run("remote", "add", "us", "--join-token", token)
            us.run("repo", "create", REPO)
            while not eu.admin("replicate", "status")["received"]:
                time.sleep(1)
            found = {}
            for name, cut in [("whole", 0), ("cut", options.cut)]:
                print(f"{name}:")
                content = folder / name
                content.write_bytes(os.urandom(options.mib * MIB))
                found[name] = follow(lab, us, eu, content, f"{TAG}-{name}", cut)
            for name, run in found.items():
                twice = run["came"] / run["size"] - 1
                print(f"{name:6} {run['seconds']:6.1f} s, chunks {run['came']} of {run['size']} bytes "
                      f"({twice:+.2%}), wire {run['wire']} ({run['wire'] / run['size']:.4f})")
                assert twice <= 0.01, "chunks came twice"
            more = found["cut"]["wire"] / found["whole"]["wire"] - 1
            print(f"the cut cost {more:+.2%} of the wire's bytes")
        finally:
            for region in regions:
                region.child.terminate()
            lab.net("down")


if __name__ == "__main__":
    main()
