"""Writes frames as PNG: one grid, or one file per frame."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pixelscope.data.formats.decode import SUFFIXES
from pixelscope.errors import InputError, plural
from pixelscope.files import atomic_file

GAP = 2
"""Pixels between the frames of a grid."""
UNMEASURED = "PSNR or SSIM is not measured, because all pixels lie in insets"
"""Note on reconstructions of frames that show nothing outside of insets that the run masks."""


@dataclass(frozen=True)
class ImagesWritten:
    """The files written, and the quality of each reconstruction."""

    out: str
    count: int
    checkpoint: str
    seed: int
    frames: list[dict[str, Any]] = field(repr=False)
    """Per frame: name and, of a reconstruction, psnr in dB and ssim, None where all pixels lie in masked insets."""
    prior: str | None = None
    """Method of the fitted prior that new frames were drawn from; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return one line per reconstruction, and where the files are."""
        widest = max((len(frame["name"]) for frame in self.frames), default=0)
        lines = [f"{f['name']:<{widest}}  {_quality_text(f['psnr'], f['ssim'])}" for f in self.frames if "psnr" in f]
        prior = "" if self.prior is None else f", {self.prior} prior"
        return "\n".join([*lines, f"{plural(self.count, 'frame')}, checkpoint {self.checkpoint}{prior}: {self.out}"])


def _quality_text(psnr: float | None, ssim: float | None) -> str:
    return UNMEASURED if psnr is None or ssim is None else f"{psnr:6.2f} dB  SSIM {ssim:.3f}"


def is_grid(out: Path) -> bool:
    """Return whether `out` is one grid, and not a folder; raises InputError if it ends like an image that is no PNG."""
    if out.suffix.lower() in SUFFIXES - {".png"}:
        raise InputError(
            f"{out} would be a folder, because a grid is a PNG; give a name that ends in .png, or one without {out.suffix}."
        )
    return out.suffix.lower() == ".png"


def require_other_file(out: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if `out` is one of the files that are read, because it would be overwritten."""
    if out.exists() and any(file.exists() and out.samefile(file) for file in inputs):
        raise InputError(f"{out} is one of the files to read, and would be overwritten; choose another --out.")


def save_png(path: Path, image: np.ndarray, about: dict[str, object]) -> None:
    """Write a uint8 image (H, W, 3), with `about` as JSON in the text entry `pixelscope`."""
    note = PngInfo()
    note.add_text("pixelscope", json.dumps(about))
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=note)


def grid(rows: np.ndarray) -> np.ndarray:
    """Return rows of frames, uint8 (R, K, S, S, 3), as one image (H, W, 3) with white gaps."""
    count, columns, side = rows.shape[:3]
    step = side + GAP
    page = np.full((count * step + GAP, columns * step + GAP, 3), 255, np.uint8)
    for row in range(count):
        for column in range(columns):
            top, left = GAP + row * step, GAP + column * step
            page[top : top + side, left : left + side] = rows[row, column]
    return page
