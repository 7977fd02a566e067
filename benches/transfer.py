"""What moving a GiB costs the server, next to servers that people know, in the same run.

    cargo build --release
    cargo install xet-client --version 1.8.0 --features simulation --bin local_cas_server \
        --root target/peers
    python3 -m venv target/bench && target/bench/bin/pip install \
        -r tests/clients/hub-2.4.txt
    target/bench/bin/python benches/transfer.py [--gib 1] [--only xet|http|head] [--program PATH]

Needs `nginx` and `ab` (of apache2-utils) for plain HTTP, and about 10 GB in `--folder`. Times are CPU seconds of the
server for each GiB (user and system, all threads), from `/proc`; memory is its peak. Xet is spoken by
`hf_xet`; the peer is the test server that comes with it, which verifies and syncs less.
"""

import argparse
import atexit
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

GIB = 1 << 30
PIECE = 16 << 20
ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def content(kind: str, path: Path, size: int) -> None:
    """Random bytes, or such as bf16 weights: random mantissas under few exponents."""
    noise = random.Random(1)
    exponents = bytes(
        (60 if draw < 0.5 else 188) + min(3, int(abs(noise.gauss(0, 1)))) for draw in
        (noise.random() for _ in range(256))
    )
    with path.open("wb") as file:
        for _ in range(size // PIECE):
            piece = bytearray(noise.randbytes(PIECE))
            if kind == "bf16":
                piece[1::2] = piece[1::2].translate(exponents)
            file.write(piece)


class Server:
    """A process whose CPU time and memory we look at."""

    def __init__(self, command: list[str], log: Path, health: str, **settings: str):
        self.child = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log.open("wb"),
            stderr=subprocess.STDOUT, start_new_session=True
        )
        atexit.register(self.child.kill)
        for _ in range(500):
            try:
                urllib.request.urlopen(health, timeout=1).close()
                return
            except OSError:
                if self.child.poll() is not None:
                    sys.exit(f"{command[0]} ended: {log.read_text()}")
                time.sleep(0.02)
        sys.exit(f"{command[0]} does not answer {health}")

    def pids(self) -> list[int]:
        """The process and its children."""
        own = [self.child.pid]
        for task in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = task.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == self.child.pid:
                own.append(int(task.parent.name))
        return own

    def cpu(self) -> float:
        spent = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            spent += int(fields[11]) + int(fields[12])
        return spent / TICKS

    def peak_mib(self) -> int:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    def stop(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait()


def ballast(program: Path, folder: Path, port: int) -> tuple[Server, str]:
    """The hub on an empty folder, and its administrator's token. All requests come from one
    address, so their number is not limited."""
    log = folder / "ballast.log"
    command = [str(program), "serve", "--data", str(folder / "data"),
               "--listen", f"127.0.0.1:{port}"]
    server = Server(command, log, f"http://127.0.0.1:{port}/health",
                    BALLAST_LIMITS_REQUESTS_PER_SECOND="0")
    token = log.read_text().split("HF_TOKEN=")[1].split()[0]
    return server, token


def call(method: str, url: str, token: str, body: object = None) -> dict:
    request = urllib.request.Request(url, method=method)
    request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


# Run in a process of its own, so that each client starts with nothing.
CLIENT = """
import json, sys, hf_xet
job = json.load(sys.stdin)
access = (job["token"], 4102444800)
refresh = lambda: access
if job["verb"] == "upload":
    done = hf_xet.upload_files([job["path"]], job["cas"], access, refresh, None, "model")
    print(json.dumps({"hash": done[0].hash, "size": done[0].file_size}))
else:
    wanted = hf_xet.PyXetDownloadInfo(job["path"], job["hash"], job["size"])
    hf_xet.download_files([wanted], job["cas"], access, refresh, None)
    print("{}")
"""


def client(folder: Path, number: int, job: dict) -> subprocess.Popen:
    home = folder / f"home-{number}"
    shutil.rmtree(home, ignore_errors=True)
    environment = dict(os.environ, HF_HOME=str(home), HOME=str(home))
    child = subprocess.Popen([sys.executable, "-c", CLIENT], env=environment, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(json.dumps(job))
    child.stdin.close()
    return child


def run(folder: Path, jobs: list[dict]) -> list[dict]:
    children = [client(folder, number, job) for number, job in enumerate(jobs)]
    answers = [json.loads(child.stdout.read()) for child in children]
    if any(child.wait() for child in children):
        sys.exit("a client failed")
    return answers


def publish(base: str, token: str, path: Path) -> None:
    """Commits what was uploaded: a hub serves only what a repo holds."""
    with path.open("rb") as file:
        oid = hashlib.file_digest(file, "sha256").hexdigest()
    value = {"path": path.name, "algo": "sha256", "oid": oid, "size": path.stat().st_size}
    lines = [{"key": "header", "value": {"summary": "add"}}, {"key": "lfsFile", "value": value}]
    request = urllib.request.Request(f"{base}/api/models/admin/m/commit/main", method="POST")
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/x-ndjson")
    request.data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    urllib.request.urlopen(request).close()


def moved(
    server: Server, cas: str, token: str, folder: Path, path: Path, commit=lambda: None
) -> tuple[float, float]:
    """CPU seconds for each GiB, up and down."""
    gib = path.stat().st_size / GIB
    before = server.cpu()
    job = {"verb": "upload", "path": str(path), "cas": cas, "token": token}
    [file] = run(folder, [job])
    commit()
    up = (server.cpu() - before) / gib
    before = server.cpu()
    target = folder / "downloaded"
    run(folder, [dict(job, verb="download", path=str(target), **file)])
    down = (server.cpu() - before) / gib
    if subprocess.run(["cmp", str(path), str(target)], check=False).returncode:
        sys.exit("the file came back different")
    target.unlink()
    return up, down


def over_xet(program: Path, folder: Path, size: int) -> None:
    for kind in ["random", "bf16"]:
        path = folder / f"{kind}.bin"
        content(kind, path, size)
        peer_data = folder / "peer"
        peer = Server([str(ROOT / "target/peers/bin/local_cas_server"), "--data-directory",
                       str(peer_data), "--port", "18081"], folder / "peer.log",
                      "http://127.0.0.1:18081/health")
        theirs = moved(peer, "http://127.0.0.1:18081", "x", folder, path)
        their_peak = peer.peak_mib()
        peer.stop()
        server, token = ballast(program, folder, 18080)
        base = "http://127.0.0.1:18080"
        call("POST", f"{base}/api/repos/create", token, {"name": "m"})
        access = call("GET", f"{base}/api/models/admin/m/xet-write-token/main", token)
        ours = moved(server, access["casUrl"], access["accessToken"], folder, path,
                     lambda: publish(base, token, path))
        for verb, mine, other in zip(["upload", "download"], ours, theirs):
            print(f"xet {verb:8} {kind:6}  ballast {mine:5.2f}  peer {other:5.2f} CPU-s/GiB"
                  f"  ratio {mine / other:4.2f}", flush=True)
        print(f"    peak memory: ballast {server.peak_mib()} MiB, peer {their_peak} MiB")
        server.stop()
        for used in [peer_data, folder / "data", path]:
            shutil.rmtree(used, ignore_errors=True)
            used.unlink(missing_ok=True) if used.is_file() else None


def eight_clients(program: Path, folder: Path, size: int) -> None:
    """Memory while eight clients send and then fetch at once."""
    server, token = ballast(program, folder, 18080)
    base = "http://127.0.0.1:18080"
    call("POST", f"{base}/api/repos/create", token, {"name": "m"})
    access = call("GET", f"{base}/api/models/admin/m/xet-write-token/main", token)
    jobs = []
    for number in range(8):
        path = folder / f"{number}.bin"
        with path.open("wb") as file:
            noise = random.Random(number)
            for _ in range(size // PIECE):
                file.write(noise.randbytes(PIECE))
        jobs.append({"verb": "upload", "path": str(path), "cas": access["casUrl"],
                     "token": access["accessToken"]})
    files = run(folder, jobs)
    for job in jobs:
        publish(base, token, Path(job["path"]))
    sent = server.peak_mib()
    for job, file in zip(jobs, files):
        job.update(file, verb="download", path=job["path"] + ".out")
    run(folder, jobs)
    print(f"eight clients at once: peak memory {sent} MiB after sending, "
          f"{server.peak_mib()} MiB after fetching", flush=True)
    server.stop()
    shutil.rmtree(folder / "data")


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:18082;
    location /health {{ return 200; }}
    location / {{ root {folder}/www; }}
  }}
}}
"""


def committed(folder: Path, base: str, token: str, path: Path) -> None:
    hf = str(Path(sys.executable).parent / "hf")
    environment = dict(os.environ, HF_HOME=str(folder / "home"), HF_ENDPOINT=base, HF_TOKEN=token)
    subprocess.run([hf, "upload", "m", str(path), "w.bin", "--quiet"], env=environment, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def over_http(program: Path, folder: Path, size: int, only: str | None) -> None:
    www = folder / "www"
    www.mkdir(exist_ok=True)
    content("random", www / "w.bin", size)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    nginx = Server(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)],
                   folder / "nginx.log", "http://127.0.0.1:18082/health")
    server, token = ballast(program, folder, 18080)
    base = "http://127.0.0.1:18080"
    committed(folder, base, token, www / "w.bin")
    url = f"{base}/admin/m/resolve/main/w.bin"
    if only in (None, "http"):
        costs = []
        for target, process in [(url, server), ("http://127.0.0.1:18082/w.bin", nginx)]:
            before = process.cpu()
            for _ in range(3):
                subprocess.run(["curl", "-sfo", "/dev/null", target], check=True)
            costs.append((process.cpu() - before) / 3 / (size / GIB))
        print(f"http download  ballast {costs[0]:5.2f}  nginx {costs[1]:5.2f} CPU-s/GiB  "
              f"ratio {costs[0] / costs[1]:4.2f}", flush=True)
    if only in (None, "head"):
        # `wrk` waits for the body that a HEAD's Content-Length announces; `ab -i` does not.
        rates = []
        for target in [url, "http://127.0.0.1:18082/w.bin"]:
            out = subprocess.run(["ab", "-i", "-k", "-q", "-c", "32", "-n", "200000", target],
                                 check=True, capture_output=True, text=True).stdout
            if "Non-2xx" in out:
                sys.exit(out)
            rates.append(float(out.split("Requests per second:")[1].split()[0]))
        print(f"head of resolve  ballast {rates[0]:,.0f}/s  nginx {rates[1]:,.0f}/s  "
              f"ratio {rates[0] / rates[1]:4.2f}", flush=True)
    print(f"    peak memory: ballast {server.peak_mib()} MiB")
    server.stop()
    nginx.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "target/bench-data")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/ballast")
    parser.add_argument("--only", choices=["xet", "clients", "http", "head"])
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    size = int(given.gib * GIB)
    if given.only in (None, "xet"):
        over_xet(given.program, given.folder, size)
    if given.only in (None, "clients"):
        eight_clients(given.program, given.folder, size // 4)
    if given.only in (None, "http", "head"):
        over_http(given.program, given.folder, size, given.only)
    shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
