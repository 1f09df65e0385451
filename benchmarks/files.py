"""Memory and speed of classify and score over ever more files: python -m benchmarks.files PIXELDA ENDOVAE [--most N] [--out F].

PIXELDA and ENDOVAE: run folders or exported files. Files are drawn anew, and gone afterwards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.__main__ import about

COUNTS = (1_000, 10_000, 100_000)
DIGIT, FRAME = 28, 128
"""Sides of the files drawn for each system."""
A_FOLDER = 1_000


def main() -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pixelda", type=Path, nargs="*")
    parser.add_argument("--endovae", type=Path, nargs="*", default=[])
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="files at most")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/files.json"))
    chosen = parser.parse_args()
    counts = [count for count in COUNTS if count <= chosen.most]
    rows = [row for model in chosen.pixelda for row in measured(["pixelda", "classify"], model, counts, DIGIT)]
    rows += [row for model in chosen.endovae for row in measured(["endovae", "score"], model, counts, FRAME)]
    made = about(os.cpu_count() or 1, []) | {"command": " ".join(["python -m benchmarks.files", *sys.argv[1:]])}
    chosen.out.write_text(json.dumps({"about": made, "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['command']:<34} {row['files']:>8,} files  {row['files_per_second']:>7.1f} files/s  {row['peak_mb']:>6.0f} MB"
        )
    return 0


def measured(command: list[str], model: Path, counts: list[int], side: int) -> list[dict[str, Any]]:
    """Run a command over each number of files in turn."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder, there = Path(place) / "files", 0
        for count in counts:
            draw_files(folder, there, count, side)
            there = count
            out = Path(place) / f"{count}.csv"
            seconds, peak = peak_of([*command, str(model), str(folder), "--out", str(out)])
            with out.open("rb") as file:
                assert sum(1 for _ in file) == count + 1
            name = f"{' '.join(command)} {'of ' + model.suffix if model.suffix else 'of a run'}"
            rows.append({"command": name, "files": count, "files_per_second": count / seconds, "peak_mb": peak / 1024})
            print(rows[-1], file=sys.stderr)
    return rows


def draw_files(folder: Path, start: int, stop: int, side: int) -> None:
    """Write smooth random PNG files, a thousand a folder."""
    rng = np.random.default_rng(start)
    for number in range(start, stop):
        place = folder / f"{number // A_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BILINEAR).save(place / f"{number:07d}.png", compress_level=1)


def peak_of(arguments: list[str]) -> tuple[float, int]:
    """Return seconds and the greatest resident memory, in KiB, of one command."""
    begun = time.perf_counter()
    code = "import sys, resource; from pixelscope.cli import main; code = main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun, int(done.stderr.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
