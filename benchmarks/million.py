"""How much memory a training takes on more images than fit into it.

python -m benchmarks.million [--images 1000000] [--steps 200] [--folder DIR] [--out FILE.json]

Generates a pack of random 32 x 32 colour images (3 KB each), trains PixelDA on it with small networks in a process of its own,
evaluations over all images included, and prints that process's peak memory. The pack is removed in the end.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pixelscope.data.sources.packed import FORMAT

CHUNK = 10_000
TRAIN = """
import sys, time
from pathlib import Path
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.training import train_pixelda
pack, run, images = sys.argv[1:]
settings = {"source": pack, "target": pack, "generator": {"blocks": 1, "width": 8}, "discriminator": {"width": 8}}
every = {name: 10**9 for name in ("evaluate_every", "sample_every", "checkpoint_every")}
config = PixelDAConfig.parse({**settings, "training": {"images": int(images), "log_every": 1600, **every}})
if __name__ == "__main__":
    began = time.perf_counter()
    train_pixelda(config, run=Path(run))
    status = Path("/proc/self/status").read_text().splitlines()
    print("took", round(time.perf_counter() - began, 1), *[line for line in status if line.startswith(("VmHWM", "RssAnon"))])
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate, train, and say what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/million"), help="where pack and run are made; must not exist")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/million.json"))
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True)
    try:
        began = time.perf_counter()
        write_pack(chosen.folder / "pack", chosen.images)
        result = {
            "images": chosen.images,
            "bytes": chosen.images * 3072,
            "seconds_to_write": round(time.perf_counter() - began, 1),
        }
        result |= train(chosen.folder, chosen.steps)
    finally:
        shutil.rmtree(chosen.folder)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


def write_pack(folder: Path, count: int) -> None:
    """Write random images and labels of ten classes, a chunk at a time."""
    folder.mkdir()
    random = np.random.default_rng(0)
    images = open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, 3, 32, 32))
    for start in range(0, count, CHUNK):
        part = images[start : start + CHUNK]
        part[:] = random.integers(0, 256, part.shape, np.uint8)
    images.flush()
    np.save(folder / "labels.npy", random.integers(0, 10, count))
    index = {"format": FORMAT, "count": count, "classes": list("0123456789")}
    (folder / "pack.json").write_text(json.dumps(index), encoding="utf-8")


def train(folder: Path, steps: int) -> dict[str, float]:
    """Train in a process of its own; returns its seconds and its memory in MB."""
    words = [str(folder / "pack"), str(folder / "run"), str(32 * steps)]
    done = subprocess.run([sys.executable, "-c", TRAIN, *words], check=True, stdout=subprocess.PIPE, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("took")).split()
    kilobytes = {line[i].rstrip(":"): int(line[i + 1]) for i in range(2, len(line), 3)}
    record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    return {
        "seconds": float(line[1]),
        "seconds_of_steps": record["seconds"],
        "steps": steps,
        "peak_mb": round(kilobytes["VmHWM"] / 1024),
        "private_mb_at_the_end": round(kilobytes["RssAnon"] / 1024),
    }


if __name__ == "__main__":
    sys.exit(main())
