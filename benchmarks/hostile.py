"""Good and hostile requests at once: python -m benchmarks.hostile RUNS [--clients 64] [--seconds 300] [--seed N] [--out FILE].

RUNS: a folder with an evaluated run of PixelDA and one of EndoVAE. The app is started on the loopback address and stopped at
the end. Half of the requests are a user's. The others are decompression bombs, damaged images, paths that lead outside, wrong
hosts and origins, bodies without a length, lengths that lie, uploads that are broken off, and long headers. No answer may be
500, good requests must be answered with 200 (or 503 where too many wait), the memory after the first minute (or fifth) may grow
by 2% at most, and 99 of 100 good answers must come within 3 seconds. In the end the app is killed in the middle of uploads, and
must leave no file behind. What it loads for the first request of each kind is loaded before.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.__main__ import about
from benchmarks.serving import BOUNDARY, PORT, answer, body, requests_of, resident, wait_until_up

HOST = f"127.0.0.1:{PORT}"
GROWTH, SLOWEST = 0.02, 3.0
"""Most growth of memory, and most seconds of 99 of 100 good answers."""
PATIENCE = 5.0
"""Seconds after which a client hangs up where a hostile request is not answered."""


def bomb(side: int = 30_000) -> bytes:
    """Return a small PNG that says it has side x side pixels, and nearly has them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((side // 8 + 1) * 2_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def form(content: bytes, field: str = "image", name: str = "x.png") -> bytes:
    """Return a form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(path: str, content: bytes, headers: str = "", length: int | None = None) -> bytes:
    """Return a POST of a form as it is sent."""
    declared = len(content) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nContent-Length: {declared}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + content


def get(path: str, host: str = HOST, headers: str = "") -> bytes:
    """Return a GET as it is sent."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n".encode()


def hostile(draw: random.Random, adapt: str, look: str) -> tuple[str, bytes]:
    """Return a hostile request and what it is called. adapt, look: paths that take an image."""
    path, field = draw.choice(((adapt, "image"), (look, "frame")))
    noise = draw.randbytes(draw.randint(0, 5_000))
    whole = body(field, 40)
    kinds: dict[str, Callable[[], bytes]] = {
        "bomb": lambda: post(path, form(bomb(), field)),
        "noise": lambda: post(path, form(noise, field)),
        "damaged": lambda: post(path, whole[:400] + noise[:200] + whole[600:]),
        "no form": lambda: post(path, noise),
        "traversal": lambda: get(draw.choice(TRAVERSALS)),
        "name": lambda: post(path, form(noise, field, "../../../etc/passwd\x00.png")),
        "host": lambda: get("/runs", draw.choice(("evil.example", "127.0.0.1.evil.example", "", "[::1", "a" * 5_000))),
        "origin": lambda: post(path, whole).replace(b"Origin: http://127.0.0.1", b"Origin: http://evil.example"),
        "chunked": lambda: CHUNKED.replace(b"PATH", path.encode()) + b"5\r\nhello\r\n0\r\n\r\n",
        "endless": lambda: CHUNKED.replace(b"PATH", path.encode()) + b"fffff\r\n" + noise,
        "lying": lambda: post(path, whole, length=draw.choice((10, 10**6, 13 * 2**20, 10**30))),
        "half": lambda: post(path, whole)[: draw.randint(1, len(whole))],
        "header": lambda: get("/runs", headers="X: " + "a" * 100_000 + "\r\n"),
        "no http": lambda: noise,
        "numbers": lambda: get(f"/runs?page={'9' * draw.randint(1, 5_000)}"),
        "method": lambda: get(path).replace(b"GET", draw.choice((b"PUT", b"DELETE", b"TRACE", b"\xff\xfe"))),
    }
    kind = draw.choice(list(kinds))
    return kind, kinds[kind]()


CHUNKED = (
    f"POST PATH HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://{HOST}\r\nTransfer-Encoding: chunked\r\n"
    f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nConnection: close\r\n\r\n"
).encode()
TRAVERSALS = (
    "/runs/..%2f..%2f..%2fetc%2fpasswd",
    "/runs/../../../etc/passwd",
    "/static/../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/pyproject.toml",
    "//etc/passwd",
    "/runs/%00",
    "/runs/%ff%fe",
)


def send(content: bytes, patience: float) -> str:
    """Send bytes and return the status of what is answered, or how it ended; without an answer it hangs up after a while."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=patience) as connection:
            connection.sendall(content)
            first = connection.recv(4_096)
    except OSError as error:
        return type(error).__name__
    parts = first.split(b" ", 2)
    return parts[1].decode("latin-1") if len(parts) > 1 and parts[0].startswith(b"HTTP/") else "closed"


class Load:
    """Counts and times of requests from many threads."""

    def __init__(self, runs: Path, seed: int) -> None:
        self.good, self.seed = requests_of(runs), seed
        self.adapt, self.look = (request.selector for request in self.good[3:5])
        self.patience = PATIENCE
        self.times: list[float] = []
        self.statuses: dict[str, Counter[str]] = {}
        self.lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> None:
        """Ask from `clients` threads for some seconds; none waits longer for an answer to a hostile request."""
        end = time.monotonic() + seconds
        self.patience = min(PATIENCE, seconds)
        threads = [threading.Thread(target=self._client, args=(number, end)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, number: int, end: float) -> None:
        draw = random.Random(self.seed * 1_000 + number)
        while time.monotonic() < end:
            if draw.random() < 0.5:
                began = time.monotonic()
                kind, status = "good", answer(draw.choice(self.good))
                if status == "200":
                    self.times.append(time.monotonic() - began)
            else:
                kind, content = hostile(draw, self.adapt, self.look)
                status = send(content, self.patience)
            with self.lock:
                self.statuses.setdefault(kind, Counter())[status] += 1
            time.sleep(draw.uniform(0, 0.5))


def main() -> int:
    """Measure, print and store; the exit code is 1 where a limit is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/hostile.json"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as spool:
        result = _measured(chosen, Path(spool))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if result["broken"] else 0


def _measured(chosen: argparse.Namespace, spool: Path) -> dict[str, object]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "pixelscope", "serve", str(chosen.runs), "--port", str(PORT)]
    server = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(spool)}, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(began)
        load = Load(chosen.runs, chosen.seed)
        for request in load.good:
            status = answer(request, 600)
            assert status == "200", f"{request.full_url} is answered with {status}"
        before = _listing(chosen.runs) | _listing(spool)
        load.run(chosen.clients, min(60, chosen.seconds / 5))
        early = resident(server.pid)
        load.run(chosen.clients, chosen.seconds - min(60, chosen.seconds / 5))
        late = resident(server.pid)
        _kill_in_upload(server, load.look)
    finally:
        server.kill()
        server.wait(20)
    left = sorted((_listing(chosen.runs) | _listing(spool)) ^ before)
    statuses = {kind: dict(count) for kind, count in sorted(load.statuses.items())}
    failed = sum(count.get("500", 0) for count in statuses.values())
    p99, growth = float(np.quantile(load.times, 0.99)), late / early - 1
    good = statuses["good"].keys() <= {"200", "503"}
    checks = {"500": failed == 0, "good": good, "growth": growth < GROWTH, "p99": p99 < SLOWEST, "left behind": not left}
    return {
        "about": about(os.cpu_count() or 1, []) | {"command": f"python -m benchmarks.hostile RUNS --seed {chosen.seed}"},
        "clients": chosen.clients,
        "seconds": chosen.seconds,
        "requests": sum(sum(count.values()) for count in statuses.values()),
        "good_median_ms": round(1000 * float(np.median(load.times))),
        "good_p99_ms": round(1000 * p99),
        "memory_mb": [round(early), round(late)],
        "left_behind": left,
        "broken": [name for name, held in checks.items() if not held],
        "answers": statuses,
    }


def _kill_in_upload(server: "subprocess.Popen[bytes]", path: str) -> None:
    """Kill the app while it receives uploads; what they leave is looked for afterwards."""
    half = post(path, form(bytes(900_000), "frame"))[:600_000]
    connections = [socket.create_connection(("127.0.0.1", PORT), timeout=20) for _ in range(4)]
    for connection in connections:
        with suppress(OSError):  # the app may refuse it by then
            connection.sendall(half)
    time.sleep(1)
    server.kill()
    server.wait(20)
    for connection in connections:
        connection.close()


def _listing(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


if __name__ == "__main__":
    sys.exit(main())
