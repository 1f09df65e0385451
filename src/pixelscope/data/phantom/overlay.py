"""What a recorder lays over the picture: the black border, the burned-in text, the inset."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.box import Box

Bytes = NDArray[np.uint8]

_GREEN = (5, 185, 144)
_GREY = (150, 140, 170)
_WHITE = 225


@dataclass(frozen=True)
class Overlay:
    """What hides the picture, and where."""

    pixels: Bytes
    """(H, W, 3), RGB."""
    covers: NDArray[np.bool_]
    """(H, W), True where `pixels` are seen."""
    content: Box
    """Bounding box of the octagon through which the picture shows."""
    inset: Box | None
    """The green or black box in the lower left, its frame included."""


def draw_overlay(random: np.random.Generator, width: int, height: int) -> Overlay:
    """Draw border, text and inset of a frame."""
    content = _content(random, width, height)
    border = np.ones((height, width), np.uint8)
    cv2.fillConvexPoly(border, _octagon(random, content), 0)
    pixels = np.zeros((height, width, 3), np.uint8)
    inset = _inset_box(random, content) if random.random() < 0.7 else None
    text = _text(random, width, height)
    pixels[text > 0] = text[text > 0, None]
    covers = (border > 0) | (text > 0)
    if inset is not None:
        pixels[inset.slices] = _inset(random, inset) if random.random() < 0.4 else 0
        covers[inset.slices] = True
    return Overlay(pixels, covers, content, inset)


def _content(random: np.random.Generator, width: int, height: int) -> Box:
    left, right = round(width * random.uniform(0.02, 0.12)), round(width * random.uniform(0.01, 0.08))
    top, bottom = round(height * random.uniform(0, 0.05)), round(height * random.uniform(0, 0.05))
    return Box(left, top, width - left - right, height - top - bottom)


def _octagon(random: np.random.Generator, box: Box) -> NDArray[np.int32]:
    """Return the eight corners, x and y, of a box whose corners are cut off."""
    cut = box.height * (random.uniform(0.18, 0.24) + random.uniform(-0.02, 0.02, 4))
    left, top, right, bottom = box.left, box.top, box.left + box.width - 1, box.top + box.height - 1
    corners = [
        (left, top + cut[0]), (left + cut[0], top), (right - cut[1], top), (right, top + cut[1]),
        (right, bottom - cut[2]), (right - cut[2], bottom), (left + cut[3], bottom), (left, bottom - cut[3]),
    ]  # fmt: skip
    return np.round(corners).astype(np.int32)


def _inset_box(random: np.random.Generator, content: Box) -> Box:
    width, height = round(content.width * random.uniform(0.3, 0.32)), round(content.height * random.uniform(0.31, 0.33))
    return Box(content.left, content.top + content.height - height, width, height)


def _inset(random: np.random.Generator, box: Box) -> Bytes:
    """Return the picture of a scope guide: two green views of the endoscope in a black frame."""
    pixels = np.zeros((box.height, box.width, 3), np.uint8)
    frame = max(2, box.height // 20)
    cv2.rectangle(pixels, (frame, frame), (box.width - frame - 1, box.height - frame - 1), _GREEN, cv2.FILLED)
    cv2.line(pixels, (box.width // 2, frame), (box.width // 2, box.height - frame - 1), (0, 120, 95), 1)
    for half in range(2):
        start = np.array([box.width * (0.12 + 0.46 * half), box.height * 0.85])
        turns = np.cumsum(random.normal(0, 0.35, 16)) - np.pi / 3
        steps = np.stack([np.cos(turns), np.sin(turns)], 1) * box.height / 24
        points = np.clip(start + np.cumsum(steps, 0), frame + 2, (box.width - frame - 3, box.height - frame - 3))
        cv2.polylines(pixels, [np.round(points * 8).astype(np.int32)], False, _GREY, max(1, box.height // 40), cv2.LINE_AA, 3)
    return pixels


def _text(random: np.random.Generator, width: int, height: int) -> Bytes:
    """Return burned-in lines of text, uint8 (H, W), 0 beside them."""
    day, month, year = random.integers(1, 29), random.integers(1, 13), random.integers(2010, 2021)
    hour, minute, second = random.integers(0, 24), *random.integers(0, 60, 2)
    lines = ["ID:", "Name:", "", "Sex:  Age:", "D.O.B.:", f"{day:02}/{month:02}/{year}", f"{hour:02}:{minute:02}:{second:02}"]
    lines = lines[int(random.choice([0, 5])) :]
    canvas = np.zeros((height, width), np.uint8)
    size, top = height / 300, random.uniform(0.1, 0.25) * height
    for number, line in enumerate(lines):
        place = (round(4 * size), round(top + 11 * size * number))
        cv2.putText(canvas, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.26 * size, _WHITE, 1, cv2.LINE_AA)
    return canvas
