"""Smooth random fields, from which everything irregular is made."""

from typing import TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike

Floats: TypeAlias = MatLike
"""float32 arrays, as OpenCV gives and takes them."""


def smooth_noise(random: np.random.Generator, shape: tuple[int, int], cells: int) -> Floats:
    """Draw noise, of standard deviation 1 at its nodes and smooth between them.

    Args:
        random: where it is drawn from.
        shape: height and width of the field.
        cells: distances between nodes along the width; along the height in proportion.

    Returns:
        float32, of that shape.
    """
    height, width = shape
    nodes = random.standard_normal((round(cells * height / width) + 1, cells + 1), np.float32)
    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def ring_noise(random: np.random.Generator, shape: tuple[int, int], cells: int, stretch: int = 1) -> Floats:
    """Draw noise whose right edge joins its left one smoothly, to be laid around the wall.

    Args:
        random: where it is drawn from.
        shape: height and width of the field, the width a power of 2.
        cells: nodes around, a power of 2 up to half of the width.
        stretch: how many times longer the noise's features are around than along.

    Returns:
        float32, of that shape.
    """
    rows, columns = shape
    nodes = random.standard_normal((max(1, round(cells * stretch * rows / columns)) + 1, cells), np.float32)
    nodes = np.concatenate([nodes[:, -2:], nodes, nodes[:, :2]], 1)
    step = columns // cells
    field = cv2.resize(nodes, (columns + 4 * step, rows), interpolation=cv2.INTER_CUBIC)
    return field[:, 2 * step : -2 * step].astype(np.float32)
