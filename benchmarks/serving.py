"""The web app under load: python -m benchmarks.serving RUNS [--clients 32] [--seconds 60] [--out FILE].

RUNS: a folder with a run of PixelDA and one of EndoVAE. Each client asks for one page after the other, without a pause.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.__main__ import about
from pixelscope import find_runs

PORT = 8791
BOUNDARY = "----pixelscope"


def main() -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/serving.json"))
    chosen = parser.parse_args()
    begun = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-m", "pixelscope", "serve", str(chosen.runs), "--port", str(PORT)])
    try:
        started = wait_until_up(begun)
        requests = requests_of(chosen.runs)
        for one in requests:
            answer(one)
        before = resident(server.pid)
        counts, times = load(requests, chosen.clients, chosen.seconds)
        after = resident(server.pid)
    finally:
        server.terminate()
        server.wait(20)
    result = {
        "about": about(os.cpu_count() or 1, []) | {"command": f"python -m benchmarks.serving RUNS --clients {chosen.clients}"},
        "clients": chosen.clients,
        "seconds": chosen.seconds,
        "seconds_to_first_page": round(started, 2),
        "answers": dict(counts),
        "answers_per_second": round(sum(counts.values()) / chosen.seconds, 1),
        "median_ms": round(1000 * float(np.median(times))),
        "slowest_ms": round(1000 * max(times)),
        "resident_mb_before": round(before),
        "resident_mb_after": round(after),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if not [status for status in counts if status not in ("200", "503")] else 1


def wait_until_up(begun: float) -> float:
    """Return how many seconds after `begun` the first page was there."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/runs", timeout=5):
                return time.perf_counter() - begun
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)


def requests_of(runs: Path) -> list[urllib.request.Request]:
    """Return one request of each kind."""
    names = {run.system: run.name for run in find_runs([runs])}
    base, origin = f"http://127.0.0.1:{PORT}", {"Origin": f"http://127.0.0.1:{PORT}"}
    head = {**origin, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    found = [urllib.request.Request(f"{base}{path}") for path in ("/runs", f"/runs/{names['pixelda']}/live")]
    found.append(urllib.request.Request(f"{base}/endoscopy/{names['endovae']}/decode?z0=1.5"))
    found.append(urllib.request.Request(f"{base}/adapt/{names['pixelda']}", body("image", 40), head, method="POST"))
    found.append(urllib.request.Request(f"{base}/endoscopy/{names['endovae']}/score", body("frame", 300), head, method="POST"))
    return found


def body(field: str, side: int) -> bytes:
    """Return a form with a random picture."""
    file = io.BytesIO()
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((side, side)).save(file, "PNG")
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    return head.encode() + file.getvalue() + f"\r\n--{BOUNDARY}--\r\n".encode()


def answer(request: urllib.request.Request, patience: float = 60) -> str:
    """Return the status of one answer, read whole, or how it ended after `patience` seconds."""
    try:
        with urllib.request.urlopen(request, timeout=patience) as response:
            response.read()
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return type(error).__name__


def load(requests: list[urllib.request.Request], clients: int, seconds: float) -> tuple[Counter[str], list[float]]:
    """Ask from many threads at once for some seconds; return how often each status came, and how long each answer took."""
    counts, times, lock, end = Counter[str](), list[float](), threading.Lock(), time.perf_counter() + seconds

    def client(number: int) -> None:
        draw = random.Random(number)
        while time.perf_counter() < end:
            begun = time.perf_counter()
            status = answer(draw.choice(requests))
            with lock:
                counts[status] += 1
                times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, times


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main())
