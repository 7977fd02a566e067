"""How long until the slowest of many hosts has a file, and what the origin sends for it.

    cargo build --release
    python3 benches/swarm.py --netlab PATH [--hosts 8] [--rate 100mbit] [--mib 128] [--rounds 3]
                             [--only ballast,aria2,http] [--lab "--exact"]
                             [--scene join|kill|node-dies|node-stops]

Each host is a network namespace of its own behind a link of that rate; all begin at once with nothing.
The peers in the same lab: `aria2c` with BitTorrent, and every host fetching from the origin over plain
HTTP. Times are in F/u, the file's bits by the rate of a link; what the origin sends is in F, the file's
bytes, counted on its link and, where the program counts it, as payload. Every copy is compared after
the clock has stopped. Scenes, of ballast alone: `join`, where one more host begins when 80 % of the time
has passed; `kill`, where one host has the file already and the hub dies at half; `node-dies` and `node-stops`,
where a host does. In these the time is that of the other hosts. Runs as root; needs `aria2c`, `curl` and a tool that
makes networks of namespaces.
"""

import argparse
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
FILE = "model.safetensors"
TORRENT_PIECE = 512 << 10


class Lab:
    """Hosts h1 to hN, and what their links have carried."""

    def __init__(self, netlab: str, hosts: int, rate: str, more: list[str]):
        self.call = [netlab, "-n", "swarm"]
        subprocess.run([*self.call, "down"], capture_output=True, check=False)
        self.run("up", "--hosts", str(hosts), "--rate", rate, *more)

    def run(self, *words: str) -> str:
        done = subprocess.run([*self.call, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{words}: {done.stderr}")
        return done.stdout

    def inside(self, host: int, *words: str, **variables: str) -> list[str]:
        env = ["env", *(f"{name}={value}" for name, value in variables.items())]
        return [*self.call, "exec", f"h{host}", "--", *env, *words]

    def spawn(self, host: int, log: Path, *words: str, **variables: str) -> None:
        env = ["env", *(f"{name}={value}" for name, value in variables.items())]
        self.run("spawn", f"h{host}", "--log", str(log), "--", *env, *words)

    def address(self, host: int) -> str:
        return self.run("ip", f"h{host}").strip()

    def sent(self, host: int) -> int:
        return json.loads(self.run("bytes", "--json"))[f"h{host}"]["sent"]


def said_in(path: Path, text: str, seconds: float = 60) -> str:
    """What a file says, as soon as it says this."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and text in (said := path.read_text(errors="replace")):
            return said
        time.sleep(0.02)
    sys.exit(f"`{text}` does not appear in {path}:\n{path.read_text() if path.exists() else ''}")


class Round:
    """A file that nobody has seen, an origin, and hosts that have nothing."""

    def __init__(self, options: argparse.Namespace):
        self.folder = Path(options.folder) / "swarm"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "origin").mkdir(parents=True)
        self.content = self.folder / "origin" / FILE
        self.content.write_bytes(os.urandom(options.mib * MIB))
        self.sum = hashlib.sha256(self.content.read_bytes()).hexdigest()
        self.bytes = options.mib * MIB
        rate = re.fullmatch(r"([0-9.]+)([kmg]bit)", options.rate)
        self.ideal = self.bytes * 8 / (float(rate[1]) * UNITS[rate[2]])
        self.nodes = range(2, 2 + options.hosts)
        self.late = self.nodes.stop
        self.hosts = range(2, self.late + (options.scene == "join"))
        self.lab = Lab(options.netlab, self.hosts.stop - 1, options.rate, options.lab.split())

    def end(self) -> None:
        self.lab.run("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def commands(self, of_host, hosts) -> dict[int, float]:
        """Runs a command on each host, all at the same moment; the seconds that each took."""
        gate = self.folder / f"gate-{hosts[0]}"
        wait = f"until [ -e {gate} ]; do sleep 0.005; done; exec \"$@\""
        inside = lambda host: self.lab.inside(host, "sh", "-c", f"echo here; {wait}", "sh", *of_host(host))
        children = {host: subprocess.Popen(inside(host), stdout=subprocess.PIPE) for host in hosts}
        for child in children.values():
            child.stdout.readline()
        took: dict[int, float] = {}

        def one(host: int) -> None:
            if children[host].wait():
                os._exit(1)
            took[host] = time.monotonic() - began

        threads = [threading.Thread(target=one, args=[host]) for host in hosts]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        gate.touch()
        for thread in threads:
            thread.join()
        return took

    def compare(self, host: int, content: list[str]) -> None:
        shown = subprocess.run(self.lab.inside(host, *content), stdout=subprocess.PIPE, check=True)
        if hashlib.sha256(shown.stdout).hexdigest() != self.sum:
            sys.exit(f"h{host} has other bytes")

    def report(self, name: str, slowest: float, wire: int, more: str = "") -> dict[str, float]:
        time_ratio, wire_ratio = slowest / self.ideal, wire / self.bytes
        print(f"{name:8} slowest {slowest:6.2f} s = {time_ratio:5.3f} F/u   "
              f"origin's link {wire_ratio:5.3f} F   {more}", flush=True)
        return {"time": time_ratio, "wire": wire_ratio}


class Hub:
    """A hub on h1 with the file in it, and a node on each other host."""

    def __init__(self, round: Round):
        self.round, self.lab = round, round.lab
        self.program = str(ROOT / "target/release/ballast")
        log = round.folder / "hub.log"
        self.lab.spawn(1, log, self.program, "serve", "--listen", "0.0.0.0:8080", "--data",
                       str(round.folder / "hub"), BALLAST_LOG_LEVEL="warn",
                       BALLAST_CLUSTER_LISTEN="0.0.0.0:8081")
        self.token = said_in(log, "ready").split("HF_TOKEN=")[1].split()[0]
        self.call("org", "create", "acme")
        self.call("repo", "create", "acme/model")
        self.publish()
        for host in round.hosts:
            token = self.call("node", "join-token", f"gpu-{host}").split()[0]
            log = round.folder / f"node-{host}.log"
            self.lab.spawn(host, log, self.program, "node", "--join", "http://h1:8080", "--token", token,
                           "--data", str(round.folder / f"node-{host}"), BALLAST_LOG_LEVEL="warn")
            said_in(log, "ready")

    def inside(self, *words: str) -> list[str]:
        return self.lab.inside(1, *words, HF_ENDPOINT="http://h1:8080", HF_TOKEN=self.token)

    def call(self, *words: str) -> str:
        done = subprocess.run(self.inside(self.program, *words), check=True, capture_output=True)
        return done.stdout.decode()

    def publish(self) -> None:
        """Uploads the file as git-lfs would, and commits it."""
        base, about = "http://h1:8080", {"oid": self.round.sum, "size": self.round.bytes}
        bearer = ["-H", f"Authorization: Bearer {self.token}"]
        fetch = lambda *words: subprocess.run(
            self.inside("curl", "-sS", "--fail", *words), check=True, capture_output=True).stdout
        batch = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [about]})
        answer = json.loads(fetch(*bearer, "-H", "Content-Type: application/vnd.git-lfs+json", "-d", batch,
                                  f"{base}/acme/model.git/info/lfs/objects/batch"))
        fetch("-T", str(self.round.content), answer["objects"][0]["actions"]["upload"]["href"])
        lines = [{"key": "header", "value": {"summary": "add"}},
                 {"key": "lfsFile", "value": {"path": FILE, "algo": "sha256", **about}}]
        fetch(*bearer, "-H", "Content-Type: application/x-ndjson", "--data-binary",
              "\n".join(json.dumps(line) for line in lines),
              f"{base}/api/models/acme/model/commit/main")

    def sent(self) -> int:
        shown = subprocess.run(self.inside("curl", "-s", "http://h1:8080/metrics"), check=True,
                               capture_output=True, text=True).stdout
        [sent] = re.findall(r"^swarm_hub_sent_bytes_total (\d+)$", shown, re.MULTILINE)
        return int(sent)


URL = f"http://127.0.0.1:8080/acme/model/resolve/main/{FILE}"


def ballast(round: Round, scene: str | None) -> dict[str, float]:
    hub = Hub(round)
    fetch = lambda _: ["curl", "-sS", "--fail", "-o", "/dev/null", URL]
    signal = {"node-dies": "KILL", "node-stops": "STOP"}.get(scene)
    nodes = list(round.nodes)
    if signal or scene == "kill":
        first = nodes.pop(0)
    if scene == "kill":
        round.commands(fetch, [first])
    lost = [round.lab.inside(first, *fetch(first))] if signal else []
    round.lab.run("mark")
    lost = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for words in lost]
    done = threading.Event()
    late: dict[int, float] = {}

    def meanwhile() -> None:
        if scene == "join" and not done.wait(0.8 * round.ideal):
            late.update(round.commands(fetch, [round.late]))
        elif scene == "kill" and not done.wait(0.5 * round.ideal):
            round.lab.run("kill", "h1")
        elif signal and not done.wait(0.5 * round.ideal):
            round.lab.run("kill", f"h{first}", signal)

    scenes = threading.Thread(target=meanwhile)
    scenes.start()
    slowest = max(round.commands(fetch, nodes).values())
    wire = round.lab.sent(1)
    done.set()
    scenes.join()
    for child in lost:
        child.kill()
    for host in nodes:
        round.compare(host, ["curl", "-s", URL])
    if scene == "kill":
        return round.report("ballast", slowest, wire, "the hub died at half")
    more = f"payload {hub.sent() / round.bytes:5.3f} F"
    if late:
        more += f"   the late one {late[round.late] / round.ideal:5.3f} F/u, and that is all the hub sent"
    return round.report("ballast", slowest, wire, more)


def plain_http(round: Round, _scene) -> dict[str, float]:
    hub = Hub(round)
    url = URL.replace("127.0.0.1", "h1")
    bearer = f"Authorization: Bearer {hub.token}"
    round.lab.run("mark")
    took = round.commands(
        lambda host: ["curl", "-sS", "--fail", "-H", bearer, "-o", str(round.folder / f"copy-{host}"), url],
        round.nodes)
    return round.report("http", max(took.values()), round.lab.sent(1))


def bencoded(value) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    items = b"".join(bencoded(part) for item in sorted(value.items()) for part in item)
    return b"d" + items + b"e"


class Tracker(http.server.BaseHTTPRequestHandler):
    """Tells each peer who the others are: what BitTorrent needs besides the peers."""

    known: dict[tuple[str, int], None] = {}

    def do_GET(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        self.known[self.client_address[0], int(asked["port"][0])] = None
        peers = b"".join(socket.inet_aton(host) + struct.pack(">H", port) for host, port in self.known)
        body = bencoded({"interval": 2, "min interval": 1, "peers": peers})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def aria2(round: Round, _scene) -> dict[str, float]:
    content = round.content.read_bytes()
    pieces = [content[at:at + TORRENT_PIECE] for at in range(0, len(content), TORRENT_PIECE)]
    info = {"length": len(content), "name": FILE, "piece length": TORRENT_PIECE,
            "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces)}
    torrent = round.folder / "a.torrent"
    torrent.write_bytes(bencoded({"announce": f"http://{round.lab.address(1)}:6969/announce", "info": info}))
    hook = round.folder / "hook"
    hook.write_text("#!/bin/sh\ntouch \"$(dirname \"$3\").done\"\n")
    hook.chmod(0o755)
    round.lab.spawn(1, round.folder / "tracker.log", sys.executable, __file__, "--tracker")
    time.sleep(1)
    seed = ["aria2c", "--enable-dht=false", "--bt-enable-lpd=false", "--seed-ratio=0.0", "--listen-port=6881",
            "--file-allocation=none", "--bt-request-peer-speed-limit=1024M",
            f"--on-bt-download-complete={hook}"]
    round.lab.spawn(1, round.folder / "seed.log", *seed, "--check-integrity=true",
                    f"--dir={round.content.parent}", str(torrent))
    said_in(round.folder / "seed.log", "Verification finished", 60)
    round.lab.run("mark")
    began = time.monotonic()
    for host in round.nodes:
        (round.folder / f"copy-{host}").mkdir()
        round.lab.spawn(host, round.folder / f"aria2-{host}.log", *seed,
                        f"--dir={round.folder / f'copy-{host}'}", str(torrent))
    while not all((round.folder / f"copy-{host}.done").exists() for host in round.nodes):
        time.sleep(0.01)
    slowest, wire = time.monotonic() - began, round.lab.sent(1)
    for host in round.nodes:
        round.compare(host, ["cat", str(round.folder / f"copy-{host}" / FILE)])
    return round.report("aria2", slowest, wire)


def main() -> None:
    if sys.argv[1:] == ["--tracker"]:
        http.server.ThreadingHTTPServer(("0.0.0.0", 6969), Tracker).serve_forever()
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--netlab", default="netlab")
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--rate", default="100mbit")
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="ballast,aria2,http")
    parser.add_argument("--lab", default="", help="more options of `netlab up`")
    parser.add_argument("--scene", choices=["join", "kill", "node-dies", "node-stops"])
    parser.add_argument("--folder", default="/dev/shm")
    options = parser.parse_args()
    ways = {"ballast": ballast, "aria2": aria2, "http": plain_http}
    names = ["ballast"] if options.scene else options.only.split(",")
    print(f"1 to {options.hosts}, {options.mib} MiB at {options.rate}")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            round = Round(options)
            try:
                results[name].append(ways[name](round, options.scene))
            finally:
                round.end()
    ours = results.get("ballast")
    for name, theirs in results.items():
        middle = {key: statistics.median(found[key] for found in theirs) for key in ["time", "wire"]}
        line = f"{name:8} median {middle['time']:5.3f} F/u, origin's link {middle['wire']:5.3f} F"
        if ours and name != "ballast":
            part = [statistics.median(o[key] for o in ours) / middle[key] for key in ["time", "wire"]]
            line += f"; ballast takes {part[0]:4.2f} of its time and {part[1]:4.2f} of its egress"
        print(line)


if __name__ == "__main__":
    main()
