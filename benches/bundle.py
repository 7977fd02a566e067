"""What making, verifying and taking in a bundle costs, next to the disk and the hashes, in the same run.

    cargo build --release
    python3 -m venv target/bench && target/bench/bin/pip install blake3
    target/bench/bin/python benches/bundle.py [--gib 2] [--rounds 3] [--only noise|bf16]

A hub gets a model of one file, `bundle create` reads its store while it serves, `bundle verify` reads the
bundle, and `bundle import` has a second, empty hub take it in. Nothing of what a step reads is in the page
cache when it begins. Each step is compared with the slower of two, both by one thread:

- disk: as many bytes as the bundle has, written one after another and synced (create, import) or read
  (verify), on the same file system. Create and import read as many bytes beside, which is not counted.
- hash: the slowest of the hashes that the step can't do without, over the bytes that it is taken of. All
  need BLAKE3: of the volumes (create, verify), and of the chunks, unpacked (create, import). Import needs
  the SHA-256 of the file too, which is the slowest of all here.

A ratio of 1 is the speed of the slower one, as if the other work of the step cost nothing. Memory is the
peak of the process that does the work, with the share of the bundle's pages that it has mapped: none.
Needs four times the size in `--folder`.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import blake3

from transfer import content

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
MIB, GIB = 1 << 20, 1 << 30
PIECE = 4 * MIB
STEPS = ("create", "verify", "import")


class Hub:
    """A hub in a process of its own."""

    def __init__(self, program: Path, data: Path):
        self.data, self.log = data, data.with_suffix(".log").open("wb")
        self.child = subprocess.Popen(
            [program, "serve", "--listen", "127.0.0.1:0", "--data", data],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.child.stdout:
            if token := re.match(r"export HF_TOKEN=(.*)", line):
                self.token = token[1]
            if ready := re.match(r"ready on http://([^,]+),", line):
                self.address = ready[1]
                return
        raise SystemExit(f"it does not start: see {self.log.name}")

    def call(self, path: str, body: bytes, kind: str = "application/json") -> bytes:
        headers = {"content-type": kind, "authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"http://{self.address}{path}", body, headers)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def put(self, path: Path, repo: str = "model") -> None:
        """Sends a file by LFS, and commits it to a repo of the administrator's."""
        with path.open("rb") as file:
            oid = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        batch = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256",
                 "objects": [{"oid": oid, "size": size}]}
        answer = json.loads(self.call(f"/admin/{repo}.git/info/lfs/objects/batch",
                                      json.dumps(batch).encode(), "application/vnd.git-lfs+json"))
        if actions := answer["objects"][0].get("actions"):
            url = urllib.parse.urlsplit(actions["upload"]["href"])
            connection = http.client.HTTPConnection(url.netloc, blocksize=MIB)
            with path.open("rb") as file:
                connection.request("PUT", f"{url.path}?{url.query}", file, {"content-length": str(size)})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
        lines = [{"key": "header", "value": {"summary": path.name}},
                 {"key": "lfsFile", "value": {"path": path.name, "algo": "sha256", "oid": oid, "size": size}}]
        body = "\n".join(json.dumps(line) for line in lines).encode()
        self.call(f"/api/models/admin/{repo}/commit/main", body, "application/x-ndjson")

    def spent(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak(self) -> int:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10

    def end(self) -> None:
        self.child.terminate()
        self.child.wait()
        self.log.close()


def forget(folder: Path) -> None:
    """Drops the pages of all files of a folder from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(command: list, **variables: str) -> tuple[float, float, int]:
    """Runs the program; seconds, CPU seconds, and the most bytes that it had in memory."""
    began = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    took = time.monotonic() - began
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss << 10


def disk(folder: Path, size: int) -> tuple[float, float]:
    """Seconds to write so many bytes, with a sync, and to read them."""
    path, piece = folder / "disk", os.urandom(PIECE)
    began = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, PIECE):
            file.write(piece[:size - at])
        os.fsync(file)
        written = time.monotonic() - began
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began, room = time.monotonic(), bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(room):
            pass
    read = time.monotonic() - began
    path.unlink()
    return written, read


def hashing(hasher, size: int) -> float:
    """Seconds that one thread takes to hash so many bytes."""
    piece, began = os.urandom(PIECE), time.monotonic()
    for at in range(0, size, PIECE):
        hasher.update(piece[:size - at])
    hasher.digest()
    return time.monotonic() - began


def one_round(program: Path, hub: Hub, work: Path, size: int) -> dict[str, tuple]:
    """Each step: seconds, CPU seconds, peak, seconds of the disk, seconds of the hash."""
    out, key = work / "bundle", work / "key.pem"
    forget(hub.data)
    made = run([program, "bundle", "create", "admin/model", "--key", key, "-o", out, "--data", hub.data])
    forget(out)
    public = work / "key.pem.pub"
    verified = run([program, "bundle", "verify", out, "--key", public])
    forget(out)
    inside = Hub(program, work / "inside")
    before = inside.spent()
    took, cpu, _ = run([program, "bundle", "import", out, "--key", public, "--receipt", work / "receipt"],
                       HF_ENDPOINT=f"http://{inside.address}", HF_TOKEN=inside.token)
    taken = (took, cpu + inside.spent() - before, inside.peak())
    inside.end()
    volumes = size_of(out)
    for path in (out, inside.data):
        shutil.rmtree(path)
    written, read = disk(work, volumes)
    packed, plain = hashing(blake3.blake3(), volumes), hashing(blake3.blake3(), size)
    sha256 = hashing(hashlib.sha256(), size)
    return {"create": (*made, written, plain), "verify": (*verified, read, packed),
            "import": (*taken, written, max(plain, sha256))}


def measure(program: Path, kind: str, size: int, rounds: int, work: Path) -> None:
    hub = Hub(program, work / "outside")
    try:
        hub.call("/api/repos/create", json.dumps({"name": "model", "type": "model"}).encode())
        path = work / "model.safetensors"
        content(kind, path, size)
        hub.put(path)
        path.unlink()
        subprocess.run([program, "key", "new", work / "key.pem"], check=True, stdout=subprocess.DEVNULL)
        runs = [one_round(program, hub, work, size) for _ in range(rounds)]
    finally:
        hub.end()
    print(f"{kind}, {size / GIB:g} GiB")
    for step in STEPS:
        took, cpu, peak, disk, hash = (statistics.median(column) for column in zip(*(r[step] for r in runs)))
        rate = lambda seconds: f"{size / MIB / seconds:5.0f} MiB/s"
        ratio = statistics.median(max(r[step][3:]) / r[step][0] for r in runs)
        print(f"{step:6} {rate(took)}, disk {rate(disk)}, hash {rate(hash)}: {ratio:.2f} of the slower; "
              f"{cpu / (size / GIB):.2f} CPU s/GiB, at most {peak / MIB:.0f} MiB")


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--gib", type=float, default=2)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--only", choices=("noise", "bf16"))
    parse.add_argument("--folder", type=Path, default=None)
    parse.add_argument("--program", type=Path, default=ROOT / "target/release/ballast")
    options = parse.parse_args()
    size = int(options.gib * GIB) // (16 * MIB) * 16 * MIB
    for kind in ("noise", "bf16") if options.only is None else (options.only,):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(options.program.resolve(), kind, size, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
