"""Rectangles, and the content area of endoscopy frames: the image inside the black border."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError


@dataclass(frozen=True)
class Box:
    """A rectangle in an image, in pixels from the top left corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the slices of the rectangle in an array (H, W, ...)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def centre_square(self) -> "Box":
        """Return the largest centred square."""
        side = min(self.width, self.height)
        return Box(self.left + (self.width - side) // 2, self.top + (self.height - side) // 2, side, side)

    def intersection(self, other: "Box") -> "Box":
        """Return the intersection; its area is 0 if the boxes do not overlap."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right = min(self.left + self.width, other.left + other.width)
        bottom = min(self.top + self.height, other.top + other.height)
        return Box(left, top, max(0, right - left), max(0, bottom - top))


Method = Literal["robust", "otsu"]
"""`robust` keeps dark lumen; `otsu` is the reference study's method, which counts dark lumen as border."""

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

_LINES = 256
"""Blocks along the shorter side in which the border is searched: block means are less noisy and fast."""

_BRIGHTER = 10
"""Minimum grey levels of a lit block above the border's black. JPEG leaves up to 8 in a border, little in a block's mean."""

_TISSUE = 40
"""Minimum grey levels of an image pixel above the border's black, when a side is refined to the pixel."""

_BLACKEST = 24
"""Maximum black level of a border; 16 is black in limited-range video."""

_TEXT = 0.04
"""Maximum height of burned-in text, which is ignored, as a fraction of the frame's shorter side."""

_PART = 0.2
"""Minimum size of a part behind a black gap, as a fraction of the main part's lit blocks; smaller ones are side panels."""

_SMALLEST = 0.1
"""Minimum size of a content area, as a fraction of the frame; a smaller lit rectangle is a glint in the dark."""


@dataclass(frozen=True)
class OtsuStages:
    """The content area of the reference study, step by step.

    Attributes:
        grey: the frame in grey, uint8, shape (H, W).
        threshold: Otsu's threshold, 0 to 255.
        mask: where the frame is brighter, shape (H, W).
        contour: outline of the largest bright region as points (x, y), shape (K, 2); empty if nothing is bright.
        box: its bounding rectangle; the whole frame if nothing is bright.
    """

    grey: Bytes
    threshold: float
    mask: Flags
    contour: NDArray[np.int32]
    box: Box


def find_content_area(frame: Bytes, method: Method = "robust") -> Box:
    """Return the bounding rectangle of the endoscopic image, without the black border and its text.

    `robust` removes rows and columns from the frame's edges that are black over their whole length, relative to the frame's
    own black. Dark lumen stays, because it never fills a row or column. Thin text is ignored, and so are side panels behind a
    black gap. The black corners of an octagonal or round image stay inside. The whole frame is returned if there is no border,
    if all is black or of one colour, and if less than a tenth of the frame is lit.

    `otsu` is the bounding rectangle of the largest external contour of Otsu's mask (`otsu_stages`).

    Args:
        frame: uint8, shape (H, W, 3), RGB; three equal channels for grey.
        method: `robust` or `otsu`.

    Raises:
        InputError: shape or type of the frame are wrong, or the method is unknown.
    """
    require_frame(frame)
    if method not in _METHODS:
        raise InputError(f'There is no method "{method}" for the content area; choose one of: {", ".join(_METHODS)}.')
    return _METHODS[method](frame)


def otsu_stages(frame: Bytes) -> OtsuStages:
    """Return the content area of the reference study with all steps: grey, Otsu's mask, largest external contour, rectangle.

    Args:
        frame: uint8, shape (H, W, 3), RGB.

    Raises:
        InputError: shape or type of the frame are wrong.
    """
    require_frame(frame)
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
    threshold, mask = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # Regions one pixel wide have no area; the number of points distinguishes them.
    largest = max(contours, key=lambda points: (cv2.contourArea(points), len(points)), default=np.empty((0, 1, 2)))
    contour = np.asarray(largest[:, 0], np.int32)
    box = Box(*map(int, cv2.boundingRect(contour))) if len(contour) else _whole(frame)
    return OtsuStages(grey, float(threshold), mask > 0, contour, box)


def require_frame(frame: Bytes) -> None:
    """Raise InputError unless the frame is uint8 of shape (H, W, 3) with at least one pixel."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise InputError(
            f"A frame must be uint8 of shape (H, W, 3), but this is {frame.dtype} of shape {frame.shape}; "
            "give RGB bytes, with three equal channels for grey."
        )


def brightest_channel(pixels: Bytes) -> Bytes:
    """Return the brightest channel (H, W) of pixels (H, W, 3): red tissue is dark in grey long before it is black."""
    red, green, blue = channels(pixels)
    return maximum(red, green, blue)


def channels(pixels: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """Return the three channels (H, W) of pixels (H, W, 3)."""
    # OpenCV copies every channel once more unless it is given the arrays to write to.
    red, green, blue = (np.empty(pixels.shape[:2], np.uint8) for _ in range(3))
    cv2.split(pixels, [red, green, blue])
    return red, green, blue


def maximum(red: Bytes, green: Bytes, blue: Bytes) -> Bytes:
    """Return the maximum of three channels (H, W); it is written into `red`."""
    cv2.max(red, green, red)
    cv2.max(red, blue, red)
    return red


def _robust(frame: Bytes) -> Box:
    block = max(1, min(frame.shape[:2]) // _LINES)
    brightest = brightest_channel(frame)
    blocks = brightest if block == 1 else brightest_channel(_shrink(frame, block))
    black = _black(blocks)
    _, lit = cv2.threshold(blocks, black + _BRIGHTER, 1, cv2.THRESH_BINARY)
    rough = _main_rectangle(_without_text(np.asarray(lit, np.uint8)))
    if rough.area < _SMALLEST * blocks.size:
        return _whole(frame)
    return _refine(brightest, rough, block, black)


def _shrink(frame: Bytes, block: int) -> Bytes:
    """Return the means of blocks of `block` x `block` pixels; incomplete blocks at the right and bottom are dropped."""
    height, width = frame.shape[0] // block, frame.shape[1] // block
    blocks = cv2.resize(frame[: height * block, : width * block], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(blocks, np.uint8)


def _black(blocks: Bytes) -> float:
    # A tenth of the outermost blocks: the corners of an octagon alone are more.
    outermost = np.sort(np.concatenate([blocks[0], blocks[-1], blocks[:, 0], blocks[:, -1]]))
    below, share = divmod((len(outermost) - 1) / 10, 1)
    low, high = outermost[int(below) : int(below) + 2].astype(np.float64)[[0, -1]]
    return min(float(low + share * (high - low)), _BLACKEST)


def _without_text(lit: Bytes) -> Bytes:
    side = max(1, round(_TEXT * min(lit.shape)))
    return np.asarray(cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)), np.uint8)


def _main_rectangle(lit: Bytes) -> Box:
    """Return the rectangle of the main part, in blocks; its area is 0 if nothing is lit."""
    if not cv2.countNonZero(lit):
        return Box(0, 0, 0, 0)
    left, right = _main_run(_sums(lit, 0))
    top, bottom = _main_run(_sums(lit[:, left:right], 1))
    # Rows of a side panel are removed before.
    inner_left, inner_right = _main_run(_sums(lit[top:bottom, left:right], 0))
    return Box(left + inner_left, top, inner_right - inner_left, bottom - top)


def _sums(lit: Bytes, axis: int) -> NDArray[np.int32]:
    return np.asarray(cv2.reduce(lit, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.int32).ravel()


def _main_run(counts: NDArray[np.int32]) -> tuple[int, int]:
    """Return start and end of the main run of lines with lit blocks, joined with runs that are not much smaller."""
    lit = np.concatenate([[False], counts > 0, [False]])
    turns = np.flatnonzero(lit[1:] != lit[:-1])
    starts, ends = turns[::2], turns[1::2]
    sums = np.add.reduceat(counts, starts)
    parts = np.flatnonzero(sums >= _PART * sums.max())
    return int(starts[parts[0]]), int(ends[parts[-1]])


def _refine(brightest: Bytes, rough: Box, block: int, black: float) -> Box:
    """Return the rectangle in pixels, with each side moved by up to a block to the edge of the image."""
    height, width = brightest.shape
    rows, columns = (slice(part.start * block, part.stop * block) for part in rough.slices)
    across, down = brightest[rows], brightest[:, columns].T
    left = _first_line(across, columns.start, block, black)
    right = width - _first_line(across[:, ::-1], width - columns.stop, block, black)
    top = _first_line(down, rows.start, block, black)
    bottom = height - _first_line(down[:, ::-1], height - rows.stop, block, black)
    return Box(left, top, right - left, bottom - top)


def _first_line(lines: Bytes, rough: int, block: int, black: float) -> int:
    """Return the first column near `rough` that is half as bright as the brightest one there."""
    # The outermost lit block may be partly lit; the one inside it has the full length of the picture.
    start = max(0, rough - block)
    # A glint counts no more than tissue does.
    light = lines[:, start : rough + 2 * block].clip(black, black + _TISSUE).mean(0) - black
    return start + int((light >= light.max() / 2).argmax())


def _whole(frame: Bytes) -> Box:
    return Box(0, 0, frame.shape[1], frame.shape[0])


_METHODS: dict[str, Callable[[Bytes], Box]] = {"robust": _robust, "otsu": lambda frame: otsu_stages(frame).box}
