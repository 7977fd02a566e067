"""What making, verifying and taking in a bundle costs, next to the disk and the hashes, in the same run.

    cargo build --release
    python3 -m venv target/bench && target/bench/bin/pip install blake3
    target/bench/bin/python benches/bundle.py [--gib 2] [--rounds 3] [--only noise|bf16]
    target/bench/bin/python benches/bundle.py --chunks 1000000 --rounds 1

Needs GNU `time`. A hub gets a model of one file, `bundle create` reads its store while it serves, `bundle verify` reads the
bundle, and `bundle import` has a second, empty hub take it in. Nothing of what a step reads is in the page
cache when it begins. Each step is compared with the slower of two, both by one thread:

- disk: a file as long as the bundle, copied and synced (create, import), or read (verify), on the same file
  system. `written` is what the disk takes to write it alone, as if nothing had to be read.
- hash: the slowest of the hashes that the step can't do without, over the bytes that it is taken of. All
  need BLAKE3: of the volumes (create, verify), and of the chunks, unpacked (create, import). Import needs
  the SHA-256 of the file too, which is the slowest of all here.

A ratio of 1 is the speed of the slower one, as if all other work of the step cost nothing. Memory is the
peak of the process that does the work (the hub's, where it imports). Needs four times the size in `--folder`.

`--chunks` is for memory: a file of so many chunks of 8 KiB, the least that a chunk can have, each of them
another one and nearly empty, so that what is made of them takes little room.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import blake3

from crowd import MIB, REPO, ROOT, Process
from transfer import content

GIB = 1 << 30
PIECE = 4 * MIB
# A chunk ends here, as soon as it may: after these bytes the chunker's rolling hash is as it must be.
CUT_HERE = bytes(61) + bytes([2, 49, 251])
MIN_CHUNK_BYTES = 8192
STEPS = ("create", "verify", "import")
CHUNKS = "small chunks"


def pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(MIB):
            yield piece


def many_chunks(count: int) -> Iterator[bytes]:
    """As many of the shortest chunks, no two of them the same."""
    at_once = PIECE // MIN_CHUNK_BYTES
    piece = bytearray((bytes(MIN_CHUNK_BYTES - len(CUT_HERE)) + CUT_HERE) * at_once)
    for first in range(0, count, at_once):
        for number in range(min(at_once, count - first)):
            struct.pack_into("<Q", piece, number * MIN_CHUNK_BYTES, first + number)
        yield bytes(piece[:(count - first) * MIN_CHUNK_BYTES])


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
    # A child of ours would begin with our own peak.
    done = subprocess.run(["/usr/bin/time", "-f", "%U %S %M", *command], env={**os.environ, **variables},
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    user, system, peak = done.stderr.splitlines()[-1].split()
    return took, float(user) + float(system), int(peak) << 10


def disk(folder: Path, size: int) -> tuple[float, float, float]:
    """Seconds to write so many bytes with a sync, to read them, and to copy them with a sync."""
    path, copy, piece, room = folder / "disk", folder / "copy", os.urandom(PIECE), bytearray(PIECE)
    took = []

    def timed(work) -> None:
        began = time.monotonic()
        work()
        took.append(time.monotonic() - began)
        for name in (path, copy):
            if name.exists():
                file = os.open(name, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, size, PIECE):
                file.write(piece[:size - at])
            os.fsync(file)

    def read(into=None) -> None:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(room):
                if into:
                    into.write(memoryview(room)[:count])

    def copied() -> None:
        with copy.open("wb", buffering=0) as file:
            read(file)
            os.fsync(file)

    for work in (write, read, copied):
        timed(work)
    path.unlink()
    copy.unlink()
    return tuple(took)


def hashing(hasher, size: int) -> float:
    """Seconds that one thread takes to hash so many bytes; of many only the first are hashed."""
    piece, some, began = os.urandom(PIECE), min(size, 2 * GIB), time.monotonic()
    for at in range(0, some, PIECE):
        hasher.update(piece[:some - at])
    hasher.digest()
    return (time.monotonic() - began) * size / some


def one_round(program: Path, hub: Process, work: Path, size: int) -> dict[str, tuple]:
    """Each step: seconds, CPU seconds, peak; seconds of writing or reading, of the disk, of the hash."""
    out, key = work / "bundle", work / "key.pem"
    forget(hub.data)
    made = run([program, "bundle", "create", REPO, "--key", key, "-o", out, "--data", hub.data])
    forget(out)
    public = work / "key.pem.pub"
    verified = run([program, "bundle", "verify", out, "--key", public])
    forget(out)
    inside = Process(program, "serve", work / "inside")
    before = inside.cpu()
    took, cpu, _ = run([program, "bundle", "import", out, "--key", public, "--receipt", work / "receipt"],
                       HF_ENDPOINT=f"http://{inside.address}", HF_TOKEN=inside.token)
    taken = (took, cpu + inside.cpu() - before, inside.status("VmHWM"))
    inside.end()
    volumes = size_of(out)
    for path in (out, work / "inside"):
        shutil.rmtree(path)
    written, read, copied = disk(work, volumes)
    packed, plain = hashing(blake3.blake3(), volumes), hashing(blake3.blake3(), size)
    sha256 = hashing(hashlib.sha256(), size)
    return {"create": (*made, written, copied, plain), "verify": (*verified, read, read, packed),
            "import": (*taken, written, copied, max(plain, sha256))}


def measure(program: Path, kind: str, size: int, rounds: int, work: Path) -> None:
    """Puts a model into a hub, and carries it so many times."""
    hub = Process(program, "serve", work / "outside")
    try:
        hub.call("POST", "/api/repos/create", json.dumps({"name": "model", "type": "model"}).encode())
        path = work / "model.safetensors"
        if kind == CHUNKS:
            hub.put(REPO, path.name, lambda: many_chunks(size // MIN_CHUNK_BYTES))
        else:
            content(kind, path, size)
            hub.put(REPO, path.name, lambda: pieces_of(path))
            path.unlink()
        stored = size_of(hub.data / "objects") / MIB
        print(f"{kind}, {size / GIB:g} GiB; {stored:.0f} MiB in the hub, which had at most "
              f"{hub.status('VmHWM') / MIB:.0f} MiB in memory", flush=True)
        subprocess.run([program, "key", "new", work / "key.pem"], check=True, stdout=subprocess.DEVNULL)
        runs = [one_round(program, hub, work, size) for _ in range(rounds)]
    finally:
        hub.end()
    for step in STEPS:
        took, cpu, peak, once, disk, hash = (
            statistics.median(column) for column in zip(*(r[step] for r in runs)))
        rate = lambda seconds: f"{size / MIB / seconds:5.0f} MiB/s"
        ratio = statistics.median(max(r[step][4:]) / r[step][0] for r in runs)
        print(f"{step:6} {rate(took)}, disk {rate(disk)} ({'read' if step == 'verify' else 'written'} "
              f"{rate(once)}), hash {rate(hash)}: {ratio:.2f} of the slower; "
              f"{cpu / (size / GIB):.2f} CPU s/GiB, at most {peak / MIB:.0f} MiB")


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--gib", type=float, default=2)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--only", choices=("noise", "bf16"))
    parse.add_argument("--folder", type=Path, default=None)
    parse.add_argument("--program", type=Path, default=ROOT / "target/release/ballast")
    parse.add_argument("--chunks", type=int)
    options = parse.parse_args()
    size = int(options.gib * GIB) // (16 * MIB) * 16 * MIB
    kinds = ("noise", "bf16") if options.only is None else (options.only,)
    if options.chunks:
        kinds, size = (CHUNKS,), options.chunks * MIN_CHUNK_BYTES
    for kind in kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(options.program.resolve(), kind, size, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
