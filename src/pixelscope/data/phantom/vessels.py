"""Blood vessels: trees of crooked lines."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.phantom.fields import Floats, smooth_noise

_POINTS = 24
"""Points of a line."""
_BRIGHTNESS = (255, 200, 140)
"""Of trunks, branches, twigs, as drawn on the canvas."""


def draw_vessels(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Draw vessels on a canvas.

    Returns:
        float32, shape (H, W): 0 beside the vessels, up to 1 on them.
    """
    canvas = np.zeros(shape, np.uint8)
    for level, lines in reversed(list(enumerate(_tree(random, shape)))):
        # Eighths of a pixel.
        points = list(np.round(lines * 8).astype(np.int32))
        cv2.polylines(canvas, points, False, _BRIGHTNESS[level], 1, cv2.LINE_AA, 3)
    shown = np.clip(0.5 + smooth_noise(random, shape, 4), 0, 1)
    return cv2.GaussianBlur(canvas, (3, 3), 0.6) * (shown / np.float32(255))


def _tree(random: np.random.Generator, shape: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return the lines of trunks, branches and twigs, each (lines, points, 2) as x and y in pixels."""
    height, width = shape
    count = int(random.integers(6, 18))
    start = random.uniform(0, 1, (count, 2)) * (width, height)
    heading = random.uniform(0, 2 * np.pi, count)
    length = height * random.uniform(0.4, 0.9)
    levels = []
    for children in (4, 3, 0):
        headings = heading[:, None] + np.cumsum(random.normal(0, 0.22, (len(start), _POINTS)), 1)
        steps = length / _POINTS * np.stack([np.cos(headings), np.sin(headings)], -1)
        lines = start[:, None] + np.cumsum(steps, 1)
        levels.append(lines)
        parents = np.repeat(np.arange(len(lines)), children)
        forks = random.integers(3, _POINTS, len(parents))
        start = lines[parents, forks]
        heading = headings[parents, forks] + random.choice([-1, 1], len(parents)) * random.uniform(0.4, 1.0, len(parents))
        length *= 0.55
    return levels
