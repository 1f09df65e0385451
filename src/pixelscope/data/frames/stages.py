"""The stages of preprocessing of a few frames, kept for figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.imaging.box import Box
from pixelscope.imaging.content_area import otsu_stages

Bytes = NDArray[np.uint8]

_LONGEST = 320
"""Longer side in pixels of the kept originals."""


@dataclass(frozen=True, eq=False)
class Stages:
    """One frame's way to its square; arrays and coordinates are those of the scaled original."""

    position: int
    """Of the frame in its store, which holds the last stage."""
    original: Bytes
    """uint8, shape (H, W, 3), the longer side at most 320."""
    grey: Bytes
    """uint8, shape (H, W)."""
    threshold: float
    """Of Otsu's method, on grey values of 0 to 255."""
    mask: Bytes
    """uint8, shape (H, W): 1 where the original is brighter than the threshold."""
    contour: NDArray[np.float32]
    """Shape (K, 2), x and y: the largest outer contour of the mask."""
    otsu_box: NDArray[np.float32]
    """Left, top, width, height: what bounds the contour."""
    box: NDArray[np.float32]
    """Left, top, width, height: the content area that was used."""


_PARTS = ("position", "original", "grey", "threshold", "mask", "contour", "otsu_box", "box")


def stages(position: int, frame: Bytes, content: Box) -> Stages:
    """Return the stages of a frame, uint8 (H, W, 3), whose content area is `content`."""
    found = otsu_stages(frame)
    height, width = frame.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Stages(
        position=position,
        original=np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)),
        grey=np.asarray(Image.fromarray(found.grey).resize(size, Image.Resampling.BILINEAR)),
        threshold=float(found.threshold),
        mask=np.asarray(Image.fromarray(found.mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)),
        contour=(found.contour * scale).astype(np.float32),
        otsu_box=_scaled(found.box, scale),
        box=_scaled(content, scale),
    )


def write_stages(path: Path, frames: Sequence[Stages]) -> None:
    """Write stages as .npz."""
    arrays = {f"{i}/{part}": np.asarray(getattr(one, part)) for i, one in enumerate(frames) for part in _PARTS}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, count=np.array(len(frames)), **arrays)


def read_stages(path: Path) -> list[Stages]:
    """Read stages that `write_stages` wrote."""
    with np.load(path, allow_pickle=False) as file:
        rows = [{part: file[f"{i}/{part}"] for part in _PARTS} for i in range(int(file["count"]))]
    return [Stages(**{**row, "position": int(row["position"]), "threshold": float(row["threshold"])}) for row in rows]


def _scaled(box: Box, scale: float) -> NDArray[np.float32]:
    return np.array([box.left, box.top, box.width, box.height], np.float32) * np.float32(scale)
