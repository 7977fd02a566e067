"""What moving a GiB from process to process costs both sides, next to nginx and curl, in the same run.

    cargo bench --no-run --bench carrier
    cargo build --release --manifest-path benches/iroh/Cargo.toml --target-dir target/iroh
    python3 benches/carrier.py [--gib 1] [--rounds 5] [--only tcp,quic:1452,iroh]
    python3 benches/carrier.py --lab "--hosts 2 --rate 1gbit" --netlab PATH --only tcp,quic:1452

Every chunk of 64 KiB is verified and written to a file in `--folder`, best on a tmpfs. Times are CPU seconds
(user and system) of sender and receiver together for each GiB; the ratio is to nginx and curl in the
same round. Needs `nginx` and `curl`; with `--lab`, a tool that makes networks of namespaces, as root. On a
machine that does something else besides, only ratios mean anything, and those little.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
TICKS = os.sysconf("SC_CLK_TCK")
PORT = 18431
NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log error.log;
events {} http {
  access_log off; sendfile on; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen 127.0.0.1:18441; root .; }
  server { listen 127.0.0.1:18442 ssl; root .; ssl_protocols TLSv1.3;
           ssl_certificate nginx.crt; ssl_certificate_key nginx.key; }
}
"""


def run(command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def built() -> Path:
    found = [path for path in (ROOT / "target/release/deps").glob("carrier-*") if not path.suffix]
    if not found:
        raise SystemExit("hint: cargo bench --no-run --bench carrier")
    return max(found, key=lambda path: path.stat().st_mtime)


class Nginx:
    """nginx, and the CPU of all its processes."""

    def __init__(self, folder: Path):
        (folder / "nginx.conf").write_text(NGINX)
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=bench", "-keyout", "nginx.key", "-out", "nginx.crt"], cwd=folder)
        self.child = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"])
        time.sleep(0.5)

    def cpu(self) -> float:
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, fields = stat.read_text().rsplit(")", 1)
            except OSError:
                continue
            fields = fields.split()
            if int(stat.parent.name) == self.child.pid or int(fields[1]) == self.child.pid:
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def fetch(self, address: str, out: str) -> tuple[float, float, float]:
        before, began = self.cpu(), time.monotonic()
        child = subprocess.Popen(["curl", "-sk", "-o", out, f"{address}/content"])
        _, status, usage = os.wait4(child.pid, 0)
        assert status == 0, "curl failed"
        seconds = time.monotonic() - began
        return self.cpu() - before, usage.ru_utime + usage.ru_stime, seconds


class Lab:
    """Where both sides run: this machine, or two hosts of a network."""

    def __init__(self, netlab: str, options: str | None):
        self.netlab, self.sides, self.address = netlab, ([], []), "127.0.0.1"
        if options:
            run([netlab, "-n", "bench", "up", *options.split()])
            hosts = [line.split()[0] for line in run([netlab, "-n", "bench", "hosts"]).splitlines()]
            self.address = run([netlab, "-n", "bench", "ip", hosts[0]]).strip()
            inside = lambda host: [netlab, "-n", "bench", "exec", host, "--"]
            self.sides = (inside(hosts[0]), inside(hosts[-1]))

    def down(self):
        if self.sides[0]:
            run([self.netlab, "-n", "bench", "down"])


def carry(program: Path, lab: Lab, carrier: str, folder: Path, requests: int):
    """CPU of the sender, of the receiver, and seconds."""
    address = f"{lab.address}:{PORT}"
    server = subprocess.Popen(
        [*lab.sides[0], program, "serve", carrier, address, folder / "content", folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    try:
        fetched = json.loads(run([*lab.sides[1], program, "fetch", carrier, address,
                                  folder / "fetched", folder, str(requests)]))
    finally:
        said, _ = server.communicate()
    said = json.loads(said)
    if said["paths"]:
        print(f"    {said['paths']}")
    return said["cpu"], fetched["cpu"], fetched["seconds"]


def over_iroh(folder: Path):
    """The same of `iroh-blobs`, from one store on disk to another."""
    program = ROOT / "target/iroh/release/iroh-peer"
    stores = [folder / "iroh-sender", folder / "iroh-receiver"]
    server = subprocess.Popen([program, "serve", folder / "content", stores[0]],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = server.stdout.readline().split()
    fetched = json.loads(run([program, "fetch", *said, stores[1]]))
    rest, _ = server.communicate()
    for store in stores:
        shutil.rmtree(store)
    return json.loads(rest)["cpu"], fetched["cpu"], fetched["seconds"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--program", type=Path, help="benches/carrier.rs, built elsewhere")
    parser.add_argument("--only", default="nginx,nginx-file,nginx-tls,tcp,quic:1452,quic:8952")
    parser.add_argument("--lab", help="options of `netlab up`")
    parser.add_argument("--netlab", default="netlab")
    options = parser.parse_args()
    program, only = options.program or built(), options.only.split(",")
    size = int(options.gib * GIB) // (1 << 16) * (1 << 16)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        with (folder / "content").open("wb") as file:
            for _ in range(size >> 16):
                file.write(os.urandom(1 << 16))
        run([program, "keys", folder])
        run([program, "hashes", folder / "content", folder])
        nginx = Nginx(folder) if any(name.startswith("nginx") for name in only) else None
        lab = Lab(options.netlab, options.lab)
        ways = {
            "nginx": lambda: nginx.fetch("http://127.0.0.1:18441", "/dev/null"),
            "nginx-file": lambda: nginx.fetch("http://127.0.0.1:18441", str(folder / "curl")),
            "iroh": lambda: over_iroh(folder),
            "nginx-tls": lambda: nginx.fetch("https://127.0.0.1:18442", "/dev/null"),
        }
        rounds = {name: [] for name in only}
        try:
            for number in range(options.rounds):
                for name in only:
                    way = ways.get(name) or (
                        lambda: carry(program, lab, name, folder, options.requests))
                    sender, receiver, seconds = way()
                    share = GIB / size
                    rounds[name].append((sender * share, receiver * share, size / seconds / (1 << 20)))
                    print(f"{number} {name:12} {rounds[name][-1]}")
                    if name not in ways:
                        run(["cmp", folder / "content", folder / "fetched"])
        finally:
            lab.down()
            if nginx:
                nginx.child.terminate()
    first = only[0]
    print(f"{'':12} CPU s/GiB  sender receiver  MiB/s  ratio to {first} in the same round")
    for name, found in rounds.items():
        sender, receiver, rate = (statistics.median(column) for column in zip(*found))
        ratios = [sum(own[:2]) / max(sum(base[:2]), 0.001) for own, base in zip(found, rounds[first])]
        both = statistics.median(own[0] + own[1] for own in found)
        print(f"{name:12} {both:9.2f} {sender:7.2f} {receiver:8.2f} {rate:6.0f}  "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
