"""What a cold file costs through a mirror, next to the same file from its upstream, in the same run.

    cargo build --release
    python3 -m venv target/bench && target/bench/bin/pip install -r tests/clients/hub-2.4.txt
    target/bench/bin/python benches/mirror.py [--mib 1024] [--rounds 5] [--binary target/release/ballast]

Both are the same program on one machine, so that they share its cores: what the mirror does beside
passing bytes on (hashing, cutting, storing) takes from the upstream, which a real one does not. With
`--upstream-rate` bytes come from the upstream no faster than that many MiB a second over all
connections, as over a link.
Needs five times the file's size in `--folder`.
"""

import argparse
import atexit
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

MIB = 1 << 20
ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 32


class Hub:
    """A hub in a process of its own."""

    def __init__(self, binary: str, data: Path, **settings: str):
        variables = {f"BALLAST_{name.upper()}": value for name, value in settings.items()}
        self.data = data
        self.child = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--data", str(data)],
            env={**os.environ, **variables, "BALLAST_LOG_LEVEL": "warn"},
            stdout=subprocess.PIPE, text=True,
        )
        atexit.register(self.child.kill)
        self.token = ""
        for line in self.child.stdout:
            if line.startswith("export HF_ENDPOINT="):
                self.endpoint = line.strip().split("=", 1)[1]
            if line.startswith("export HF_TOKEN="):
                self.token = line.strip().split("=", 1)[1]
            if line.startswith("ready"):
                return
        sys.exit("a hub did not start")

    def post(self, path: str, body: dict) -> None:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        request = urllib.request.Request(
            self.endpoint + path, json.dumps(body).encode(), headers, method="POST"
        )
        urllib.request.urlopen(request).close()

    def end(self) -> None:
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.data, ignore_errors=True)


class Wire:
    """Leads to an upstream, counts what comes from it, and is as slow as it is told."""

    def __init__(self, target: str, rate: float):
        host, port = target.rsplit("/", 1)[1].split(":")
        self.target, self.rate, self.passed = (host, int(port)), rate, 0
        self.lock, self.free_at = threading.Lock(), 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            upstream = socket.create_connection(self.target)
            for way in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self.pass_on, args=way, daemon=True).start()

    def book(self, count: int) -> float:
        """Seconds until the link has carried so many bytes more."""
        with self.lock:
            self.passed += count
            if not self.rate:
                return 0
            now = time.monotonic()
            self.free_at = max(self.free_at, now) + count / (self.rate * MIB)
            return self.free_at - now

    def pass_on(self, source: socket.socket, to: socket.socket, counts: bool) -> None:
        try:
            while piece := source.recv(MIB):
                if counts:
                    time.sleep(self.book(len(piece)))
                to.sendall(piece)
        except OSError:
            pass
        for end in (source, to):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def get(endpoint: str, token: str, path: str, expected: str) -> tuple[float, float]:
    """Seconds to the first byte, and to the last."""
    request = urllib.request.Request(
        f"{endpoint}{path}", headers={"authorization": f"Bearer {token}"}
    )
    digest, start, first = hashlib.sha256(), time.monotonic(), 0.0
    with urllib.request.urlopen(request) as answer:
        while piece := answer.read1(MIB):
            first = first or time.monotonic() - start
            digest.update(piece)
    if digest.hexdigest() != expected:
        sys.exit("another file came")
    return first, time.monotonic() - start


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--mib", type=int, default=1024)
    parse.add_argument("--rounds", type=int, default=5)
    parse.add_argument("--binary", default=str(ROOT / "target/release/ballast"))
    parse.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parse.add_argument("--upstream-rate", type=float, default=0)
    args = parse.parse_args()
    work = Path(tempfile.mkdtemp(dir=args.folder))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    upstream = Hub(args.binary, work / "upstream")
    upstream.post("/api/ballast/v1/orgs", {"name": "acme"})
    content, noise = work / "content", random.Random(1)
    with content.open("wb") as file:
        for _ in range(args.mib):
            file.write(noise.randbytes(MIB))
    with content.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    os.environ.update(
        HF_ENDPOINT=upstream.endpoint, HF_TOKEN=upstream.token, HF_HUB_DISABLE_PROGRESS_BARS="1"
    )
    import huggingface_hub

    api = huggingface_hub.HfApi()
    api.create_repo("acme/m")
    api.upload_file(path_or_fileobj=content, path_in_repo="file.bin", repo_id="acme/m")
    content.unlink()
    wire = Wire(upstream.endpoint, args.upstream_rate)
    path, rows = "/acme/m/resolve/main/file.bin", {"direct": [], "cold": [], "warm": []}
    for number in range(args.rounds):
        mirror = Hub(args.binary, work / f"mirror-{number}", upstream_url=wire.endpoint)
        # What a client asks first: the revision.
        about = urllib.request.Request(
            f"{mirror.endpoint}/api/models/acme/m",
            headers={"authorization": f"Bearer {mirror.token}"},
        )
        urllib.request.urlopen(about).close()
        rows["direct"].append(get(wire.endpoint, upstream.token, path, expected))
        rows["cold"].append(get(mirror.endpoint, mirror.token, path, expected))
        deadline = time.monotonic() + 120
        while "mirror_files_total 1" not in urllib.request.urlopen(
            mirror.endpoint + "/metrics"
        ).read().decode():
            if time.monotonic() > deadline:
                sys.exit("the file was never stored")
        rows["warm"].append(get(mirror.endpoint, mirror.token, path, expected))
        mirror.end()
    middle = {
        name: [statistics.median(column) for column in zip(*times)] for name, times in rows.items()
    }
    for name, (first, last) in middle.items():
        print(f"{name:7} first byte {first * 1000:7.1f} ms, {args.mib / last:7.0f} MiB/s")
    (first, last), (cold_first, cold_last) = middle["direct"], middle["cold"]
    print(f"cold: first byte {cold_first * 1000:.1f} ms, allowed {first * 1500 + 50:.1f} ms; "
          f"throughput {100 * last / cold_last:.0f} % of direct")
    mirror = Hub(args.binary, work / "crowd", upstream_url=wire.endpoint)
    urllib.request.urlopen(urllib.request.Request(
        f"{mirror.endpoint}/api/models/acme/m",
        headers={"authorization": f"Bearer {mirror.token}"},
    )).close()
    before = wire.passed
    crowd = [
        threading.Thread(target=get, args=(mirror.endpoint, mirror.token, path, expected))
        for _ in range(CLIENTS)
    ]
    for client in crowd:
        client.start()
    for client in crowd:
        client.join()
    times = (wire.passed - before) / (args.mib * MIB)
    print(f"{CLIENTS} clients of one cold file: the upstream sent it {times:.3f} times")


if __name__ == "__main__":
    main()
