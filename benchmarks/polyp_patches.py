"""Write a pair of domains of 64 x 64 pixels: patches with and without polyps from Kvasir's frames and from CVC-ClinicDB's.

python -m benchmarks.polyp_patches --kvasir DIR --cvc DIR --out DIR

--kvasir: folders polyps, polyp-masks, normal-colon and normal-cecum; --cvc: folders polyps and non_polyps of patches.
Both classes of a domain have the same sides before they are scaled: the area of CVC's patches alone tells their classes.
A name begins with its group, a frame of Kvasir or 25 successive patches of CVC; `--data.group-by '/([^/_]+)_'` keeps a group
on one side of a split.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
BLOCK = 25
"""Successive patches of CVC that stay on one side of a split."""
LARGEST = 112
"""Side in pixels of CVC's patches, at most; there are hardly any larger ones of polyps."""


def read(path: Path) -> Image.Image:
    """Return an image file in RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def square(image: Image.Image, side: int, centre: tuple[float, float]) -> Image.Image:
    """Return a square of an image around `centre` (x, y) or near it, so that it lies inside, scaled to SIZE."""
    left, top = (int(min(max(at - side / 2, 0), whole - side)) for at, whole in zip(centre, image.size, strict=True))
    return image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def cvc(folder: Path, draw: np.random.Generator) -> Iterator[tuple[str, str, Image.Image]]:
    """Give (class, name, patch): the middle of each of CVC's patches with at least SIZE pixels on both sides."""
    found = {name: sorted((folder / name).glob("*.jpg"), key=lambda path: int(path.stem)) for name in ("polyps", "non_polyps")}
    shorter = {name: [min(read(path).size) for path in paths] for name, paths in found.items()}
    sides = [int(draw.integers(SIZE, min(LARGEST, most) + 1)) for most in shorter["polyps"] if most >= SIZE]
    for name, paths in found.items():
        usable = [(path, most) for path, most in zip(paths, shorter[name], strict=True) if most >= SIZE]
        for (path, most), wanted in zip(usable, draw.choice(sides, len(usable)), strict=True):
            image = read(path)
            patch = square(image, min(int(wanted), most), (image.width / 2, image.height / 2))
            yield name, f"block{int(path.stem) // BLOCK:02}_{path.stem}", patch


def kvasir(folder: Path, draw: np.random.Generator) -> Iterator[tuple[str, str, Image.Image]]:
    """Give (class, name, patch): the polyp of each frame with a mask, and as many squares of normal frames."""
    sides = []
    for path in sorted((folder / "polyps").glob("*.jpg")):
        mask = np.asarray(read(folder / "polyp-masks" / f"{path.stem}.png").convert("L")) > 127
        rows, columns = np.nonzero(mask)
        image = read(path)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        side = int(min(max(extent * draw.uniform(0.6, 1.2), 1.5 * SIZE), 0.6 * min(image.size)))
        sides.append(side)
        yield "polyps", f"{path.stem}_0", square(image, side, (float(columns.mean()), float(rows.mean())))
    normal = [path for name in ("normal-colon", "normal-cecum") for path in sorted((folder / name).glob("*.jpg"))]
    for number, side in enumerate(draw.permutation(sides)):
        path = normal[number % len(normal)]
        image = read(path)
        centre = tuple(whole * draw.uniform(0.35, 0.65) for whole in image.size)
        patch = square(image, min(int(side), *image.size), (centre[0], centre[1]))
        yield "non_polyps", f"{path.stem}_{number // len(normal)}", patch


def main() -> None:
    """Write both domains as PNG in class folders."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kvasir", "cvc", "out"):
        options.add_argument(f"--{name}", type=Path, required=True)
    chosen = options.parse_args()
    for name, patches in (("kvasir", kvasir), ("cvc", cvc)):
        for label, stem, patch in patches(getattr(chosen, name), np.random.default_rng(0)):
            path = chosen.out / name / label / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            patch.save(path)


if __name__ == "__main__":
    main()
