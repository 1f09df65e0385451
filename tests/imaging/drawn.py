"""Drawn endoscope frames whose content is known: pictures of several shapes on a black border."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.box import Box

Frame = NDArray[np.uint8]

TISSUE = (180, 105, 85)


def border(height: int, width: int, black: int = 0) -> Frame:
    return np.full((height, width, 3), black, np.uint8)


def noisy(frame: Frame, spread: float = 2.0, seed: int = 0) -> Frame:
    """Return the frame with normal noise, as cameras and JPEG leave it."""
    noise = np.random.default_rng(seed).normal(0, spread, frame.shape)
    return np.clip(np.round(frame + noise), 0, 255).astype(np.uint8)


def octagon(frame: Frame, content: Box, cut: float = 0.2, colour: tuple[int, int, int] = TISSUE) -> Frame:
    """Return the frame with a filled octagon whose bounding rectangle is `content`; `cut` is the share of a side it loses."""
    x, y = round(cut * content.width), round(cut * content.height)
    right, bottom = content.width - 1, content.height - 1
    corners = [
        (x, 0),
        (right - x, 0),
        (right, y),
        (right, bottom - y),
        (right - x, bottom),
        (x, bottom),
        (0, bottom - y),
        (0, y),
    ]
    points = np.add(corners, (content.left, content.top)).astype(np.int32)
    return cv2.fillPoly(frame.copy(), [points], colour)


def disc(frame: Frame, content: Box) -> Frame:
    """Return the frame with the ellipse that fits into `content`."""
    axes = ((content.width - 1) // 2, (content.height - 1) // 2)
    middle = (content.left + axes[0], content.top + axes[1])
    return cv2.ellipse(frame.copy(), middle, axes, 0, 0, 360, TISSUE, -1)


def lumen(frame: Frame, middle: tuple[int, int], axes: tuple[int, int], black: int = 0) -> Frame:
    """Return the frame with a dark ellipse that fades into what is about it."""
    height, width = frame.shape[:2]
    mask = cv2.ellipse(np.zeros((height, width), np.float32), middle, axes, 0, 0, 360, 1, -1)
    blur = max(3, min(axes) // 3) | 1
    mask = cv2.GaussianBlur(mask, (blur, blur), 0)[..., None]
    return (frame * (1 - mask) + np.minimum(frame, black) * mask).astype(np.uint8)


def text(frame: Frame, lines: Sequence[str], corner: tuple[int, int], size: float = 0.5) -> Frame:
    frame = frame.copy()
    for number, line in enumerate(lines):
        cv2.putText(frame, line, (corner[0], corner[1] + round(36 * size * number)), 0, size, (255, 255, 255), 1)
    return frame


def filled(frame: Frame, box: Box, colour: tuple[int, int, int]) -> Frame:
    frame = frame.copy()
    frame[box.slices] = colour
    return frame


def overlap(found: Box, true: Box) -> tuple[float, float]:
    """Return the share of the true rectangle that is kept, and the intersection over the union."""
    common = found.intersection(true).area
    return common / true.area, common / (found.area + true.area - common)
