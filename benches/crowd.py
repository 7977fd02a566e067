"""A hub and many nodes of it, as processes of this machine with capped links, that all fetch one model.

    cargo build --release
    python3 benches/crowd.py [--nodes 64] [--mib 256] [--rate 4MB/s] [--idle 30]

Each node is asked for the file over HTTP, as a client on its host would, and what it hands out is hashed.
The ideal is the file's size divided by the cap, which no host can beat however many there are. Needs
room for a copy for each node in `--folder`. `--idle` says how long nodes are looked at while they do nothing,
after they joined and after all have the file.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
REPO, PATH = "admin/model", "model.safetensors"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def bytes_a_second(text: str) -> int:
    found = re.fullmatch(r"([0-9.]+) ?([A-Za-z]+)/s", text)
    if not found or found[2] not in UNITS:
        raise argparse.ArgumentTypeError("a size for each second, as 4MB/s")
    return int(float(found[1]) * UNITS[found[2]])


class Process:
    """The program in a role, on a folder of its own."""

    def __init__(self, program: Path, role: str, folder: Path, arguments=(), **settings: str):
        folder.mkdir()
        self.data, self.log, self.token = folder / "data", folder / "log", None
        settings = {f"BALLAST_{name}": value for name, value in settings.items()}
        self.child = subprocess.Popen(
            [program, role, "--listen", "127.0.0.1:0", "--data", self.data, *arguments],
            env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=self.log.open("wb"), text=True)
        for line in self.child.stdout:
            if token := re.match(r"export HF_TOKEN=(.*)", line):
                self.token = token[1]
            if ready := re.match(r"ready on http://([^,]+),", line):
                self.address = ready[1]
                return
        raise SystemExit(f"it does not start:\n{self.log.read_text()}")

    def end(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            print(f"{self.address} does not stop")
            self.child.kill()
            self.child.wait()

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json"):
        headers = {"content-type": kind}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"http://{self.address}{path}", body or None, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def put(self, repo: str, path: str, pieces: Callable[[], Iterator[bytes]]) -> str:
        """Uploads a file by LFS, and commits it; its SHA-256."""
        sha256, size = hashlib.sha256(), 0
        for piece in pieces():
            sha256.update(piece)
            size += len(piece)
        oid = sha256.hexdigest()
        batch = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256",
                 "objects": [{"oid": oid, "size": size}]}
        answer = json.loads(self.call("POST", f"/{repo}.git/info/lfs/objects/batch", json.dumps(batch).encode(),
                                      "application/vnd.git-lfs+json"))
        if actions := answer["objects"][0].get("actions"):
            url = urllib.parse.urlsplit(actions["upload"]["href"])
            connection = http.client.HTTPConnection(url.netloc)
            connection.request("PUT", f"{url.path}?{url.query}", pieces(), {"content-length": str(size)})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
        lines = [{"key": "header", "value": {"summary": "weights"}},
                 {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": size}}]
        body = "\n".join(json.dumps(line) for line in lines).encode()
        self.call("POST", f"/api/models/{repo}/commit/main", body, "application/x-ndjson")
        return oid

    def figures(self) -> dict[str, int]:
        lines = (line.rsplit(" ", 1) for line in self.call("GET", "/metrics").decode().splitlines())
        return {name: int(value) for name, value in lines if value.isdigit()}

    def status(self, field: str) -> int:
        """A field of the process's status, in bytes."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) << 10

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def noise(mib: int) -> Iterator[bytes]:
    """The same random bytes each time."""
    dice = random.Random(1)
    return (dice.randbytes(MIB) for _ in range(mib))


def read(node: Process, oid: str, began: float, took: dict) -> None:
    """The whole file, as a client gets it: what breaks off is asked for again from there."""
    summed, here, size = hashlib.sha256(), 0, None
    while size is None or here < size:
        connection = http.client.HTTPConnection(node.address, timeout=600)
        connection.request("GET", f"/{REPO}/resolve/main/{PATH}", headers={"range": f"bytes={here}-"})
        answer = connection.getresponse()
        if answer.status == 206:
            size = int(answer.headers["content-range"].rsplit("/", 1)[1])
            try:
                while piece := answer.read(MIB):
                    summed.update(piece)
                    here += len(piece)
            except http.client.IncompleteRead as error:
                summed.update(error.partial)
                here += len(error.partial)
        else:
            time.sleep(int(answer.headers.get("retry-after", 1)))
        connection.close()
    assert summed.hexdigest() == oid, f"{node.address} handed out something else"
    took[node.address] = time.monotonic() - began


def look_idle(nodes: list[Process], seconds: float, when: str) -> None:
    if not seconds:
        return
    time.sleep(10)
    before = [node.cpu() for node in nodes]
    time.sleep(seconds)
    busy = [(node.cpu() - then) / seconds for node, then in zip(nodes, before)]
    resident = [node.status("VmRSS") / MIB for node in nodes]
    print(f"idle {when}: {statistics.median(resident):.0f} MiB resident each (most: {max(resident):.0f}), "
          f"{100 * statistics.median(busy):.2f} % of a core (most: {100 * max(busy):.2f})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rate", type=bytes_a_second, default=bytes_a_second("4MB/s"))
    parser.add_argument("--idle", type=float, default=0)
    parser.add_argument("--carrier", default="auto")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/ballast")
    options = parser.parse_args()
    links = {"CLUSTER_LISTEN": "127.0.0.1:0", "CLUSTER_UPLOAD": f"{options.rate}B/s",
             "CLUSTER_DOWNLOAD": f"{options.rate}B/s", "CLUSTER_CARRIER": options.carrier}
    size, running = options.mib * MIB, []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        try:
            hub = Process(options.program, "serve", Path(folder, "hub"), **links)
            running.append(hub)
            hub.call("POST", "/api/repos/create", json.dumps({"name": "model", "type": "model"}).encode())
            oid = hub.put(REPO, PATH, lambda: noise(options.mib))
            remote = {**os.environ, "HF_ENDPOINT": f"http://{hub.address}", "HF_TOKEN": hub.token}
            for number in range(options.nodes):
                made = subprocess.run([options.program, "node", "join-token", f"n{number}", "--json"],
                                      env=remote, check=True, capture_output=True, text=True).stdout
                node = Process(options.program, "node", Path(folder, f"n{number}"),
                               ["--join", f"http://{hub.address}"],
                               **links, JOIN_TOKEN=json.loads(made)["token"])
                running.append(node)
            fetch(options, hub, running[1:], oid, size)
        finally:
            for process in running:
                process.child.terminate()
            for process in running:
                process.end()


def fetch(options, hub: Process, nodes: list[Process], oid: str, size: int) -> None:
    look_idle(nodes, options.idle, "after joining")
    cpu, took, began = sum(process.cpu() for process in [hub, *nodes]), {}, time.monotonic()
    readers = [threading.Thread(target=read, args=(node, oid, began, took), daemon=True) for node in nodes]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(took) == len(nodes), f"{len(nodes) - len(took)} nodes did not get it"
    cpu = sum(process.cpu() for process in [hub, *nodes]) - cpu
    ideal, slowest = size / options.rate, max(took.values())
    sent = hub.figures()["swarm_hub_sent_bytes_total"]
    peak = [node.status("VmHWM") / MIB for node in nodes]
    print(f"{len(nodes)} nodes, {options.mib} MiB, {options.rate / 1e6:g} MB/s each way: ideal {ideal:.1f} s")
    print(f"slowest {slowest:.1f} s = {slowest / ideal:.3f} of ideal; median "
          f"{statistics.median(took.values()):.1f} s")
    print(f"the hub sent {sent / size:.3f} of the file; its memory {hub.status('VmHWM') / MIB:.0f} MiB")
    print(f"nodes' memory at most {max(peak):.0f} MiB each, {sum(peak):.0f} MiB together; "
          f"{cpu:.0f} CPU s in all, {cpu / (len(nodes) * size / (1 << 30)):.1f} for each GiB")
    look_idle(nodes, options.idle, "after the fetch")


if __name__ == "__main__":
    main()
