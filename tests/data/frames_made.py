"""Small frames like those of an endoscope, written by the tests: a lit picture in a black border."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

LEFT, TOP, RIGHT, BOTTOM = 8, 4, 12, 6
"""Black margins of a drawn frame."""


def drawn(seed: int, width: int = 80, height: int = 60) -> Bytes:
    """Return a frame (height, width, 3): soft reddish blobs, lit everywhere, with black margins."""
    random = np.random.default_rng(seed)
    coarse = random.integers(90, 256, (5, 6, 3)).astype(np.uint8) // np.array([1, 2, 2], np.uint8)
    frame = np.zeros((height, width, 3), np.uint8)
    inner = (width - LEFT - RIGHT, height - TOP - BOTTOM)
    frame[TOP : height - BOTTOM, LEFT : width - RIGHT] = cv2.resize(coarse, inner, interpolation=cv2.INTER_CUBIC)
    return frame


def write_frames(folder: Path, counts: dict[str, int]) -> Path:
    """Write a folder of drawn PNG frames for each class, 0.png, 1.png, ..., no two alike."""
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(folder / name / f"{i}.png", drawn(1000 * number + i))
    return folder


def save(path: Path, image: Bytes | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path
