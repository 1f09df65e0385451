"""Find insets, boxes drawn over endoscopic images; mask tissue, which is neither inset, black border nor glint.

An inset is the green map of the scope's position, or the black box that hides it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.content_area import Box, channels, maximum, require_frame

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

BORDER = 0.10
"""Maximum brightness of a pixel of the black border, in [0, 1]."""

GLINT = 0.75
"""Minimum value of each channel of a glint, in [0, 1]."""

FLAT = 8
"""Maximum difference of values within a channel, from 0 to 255, in a frame of a single colour with noise."""

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
"""A pixel and its four neighbours."""

_REACH = 0.55
"""Size of the corner in which black boxes are searched, as a fraction of the content's width and height."""

_CORNER = 0.06
"""Maximum gap between a black box and the content's sides, as a fraction of the content's width and height."""

_THINNEST = 0.03
"""Minimum width and height of a black box, as a fraction of the content's."""

_DARK = 30
"""Maximum value inside a black box, including the dim frame that some have."""

_BLACK = 16
"""Maximum median of a black box; 16 is black in limited-range video."""

_STEP = 8
"""Minimum grey levels of the step from a black box to the image next to it."""

_FILLED = 0.9
"""Minimum fraction of dark pixels in each row and column of a black box."""

_BLUR = 4
"""Width in pixels of an edge blurred by JPEG and resizing."""

_EDGES = 4
"""Number of straight edges per direction tried as sides of a box: a step and a dim frame have two."""

_SHARP = 0.09
"""Minimum product of the sharp fractions of a box's two inner sides. Where a box meets dark tissue or another box, one of them
may be short, but not both; a slanted corner has neither."""

_INSIDE = 0.9
"""Fraction of a box inside a larger one from which it counts as the same box."""

_GREENER = 40
"""Minimum difference of green and red in a green box. Dye and instruments of that colour are not rectangles."""

_GREEN_LEAST, _GREEN_MOST = 0.01, 0.3
"""Minimum and maximum size of a green box, as fractions of the content."""

_RECTANGULAR = 0.8
"""Minimum fraction of its bounding rectangle that a green box fills; drawings in it leave holes."""

_DIM, _FRAME = 40, 0.04
"""Maximum value of a green box's frame, and its maximum width as a fraction of the content's shorter side."""

_MARGIN = 2
"""Pixels added on each side of a box for JPEG blur."""

_SMALLEST = 16
"""Minimum length in pixels of the content's shorter side for boxes to be detected."""

_ENOUGH = 500
"""Length in pixels of the content's shorter side that suffices; larger images are subsampled."""


@dataclass(frozen=True)
class Inset:
    """A box drawn over the image.

    Attributes:
        kind: `green` for the map of the scope's position, `black` for a blacked-out box.
        box: its position in the frame, with its dim frame.
    """

    kind: Literal["green", "black"]
    box: Box


def find_insets(frame: Bytes, content: Box) -> list[Inset]:
    """Return the boxes drawn over the image, the green ones first.

    A green box is a filled rectangle of saturated green, anywhere. A black box is a black rectangle in a corner of the
    content, with straight, sharp edges towards the image; two overlapping ones form a step and are both found. Dark lumen is
    not a box: its edges bend and fade. The black corners of an octagonal or round image are not boxes either: their edges are
    slanted. A box that covers such a corner extends to the content's sides.

    Contents below 16 pixels in height or width have no boxes.

    Args:
        frame: uint8, shape (H, W, 3), RGB.
        content: the content area, see `find_content_area`; boxes are clipped to it.

    Raises:
        InputError: shape or type of the frame are wrong.
    """
    require_frame(frame)
    side = min(content.width, content.height)
    if side < _SMALLEST:
        return []
    step = max(1, side // _ENOUGH)
    # OpenCV takes four times as long to split the channels of pixels that are not contiguous.
    picture = np.ascontiguousarray(frame[content.slices][::step, ::step])
    red, green, blue = channels(picture)
    greener = np.asarray(cv2.subtract(green, red), np.uint8)
    bright = maximum(red, green, blue)
    green_boxes = [Inset("green", _place(box, content, step)) for box in _green_boxes(greener, bright)]
    return green_boxes + [Inset("black", _place(box, content, step)) for box in _black_boxes(bright)]


def inpaint(frame: Bytes, mask: Flags) -> Bytes:
    """Return the frame with the masked pixels inpainted by Telea's fast marching.

    Crop frame and mask to the content first; otherwise the black border next to a box would flow into it.

    Args:
        frame: uint8, shape (H, W, 3).
        mask: shape (H, W), True where to inpaint. If it is all True or all False, the frame is unchanged.
    """
    require_frame(frame)
    return np.asarray(cv2.inpaint(frame, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def _place(box: Box, content: Box, step: int) -> Box:
    """Return a box of the subsampled content in the frame's pixels, with its margin."""
    left, top = content.left + step * (box.left - _MARGIN), content.top + step * (box.top - _MARGIN)
    placed = Box(left, top, step * (box.width + 2 * _MARGIN), step * (box.height + 2 * _MARGIN))
    return placed.intersection(content)


def _green_boxes(greener: Bytes, brightest: Bytes) -> list[Box]:
    """Return the filled green rectangles; `greener` is by how much each pixel is greener than red."""
    mask = np.asarray(cv2.threshold(greener, _GREENER, 1, cv2.THRESH_BINARY)[1], np.uint8)
    if cv2.countNonZero(mask) < _GREEN_LEAST * mask.size:
        return []
    # The line between the map's two halves would part it.
    bridge = 2 * max(1, round(_FRAME / 4 * min(mask.shape))) + 1
    around = _around(mask, bridge)
    closed = cv2.morphologyEx(mask[around.slices], cv2.MORPH_CLOSE, np.ones((bridge, bridge), np.uint8))
    _, _, regions, _ = cv2.connectedComponentsWithStats(closed)
    found = [region for region in regions[1:] if _is_green_box(region, mask.size)]
    boxes = [Box(around.left + x, around.top + y, width, height) for x, y, width, height, _ in np.array(found).tolist()]
    return [_with_frame(box, brightest) for box in boxes]


def _around(mask: Bytes, margin: int) -> Box:
    """Return the rectangle around all set pixels of a mask, with a margin, within the mask."""
    left, top, width, height = cv2.boundingRect(mask)
    wider = Box(left - margin, top - margin, width + 2 * margin, height + 2 * margin)
    return wider.intersection(Box(0, 0, mask.shape[1], mask.shape[0]))


def _is_green_box(region: NDArray[np.int32], pixels: int) -> bool:
    _, _, width, height, area = map(int, region)
    return _GREEN_LEAST * pixels <= area <= _GREEN_MOST * pixels and area >= _RECTANGULAR * width * height


def _with_frame(box: Box, brightest: Bytes) -> Box:
    """Return a green box with its dim frame, if it has one."""
    reach = max(_BLUR, round(_FRAME * min(brightest.shape)))
    rows, columns = box.slices
    dim = brightest <= _DIM
    above = _frame_width(dim[max(0, rows.start - reach) : rows.start, columns].mean(1)[::-1])
    below = _frame_width(dim[rows.stop : rows.stop + reach, columns].mean(1))
    before = _frame_width(dim[rows, max(0, columns.start - reach) : columns.start].mean(0)[::-1])
    after = _frame_width(dim[rows, columns.stop : columns.stop + reach].mean(0))
    return Box(box.left - before, box.top - above, box.width + before + after, box.height + above + below)


def _frame_width(dim: NDArray[np.float64]) -> int:
    """Return the width of a box's frame in lines, including the blurred ones before it."""
    lines = dim >= _FILLED
    start = int(np.argmax(lines)) if lines.any() else len(lines)
    return start + _run(lines[start:]) if start < len(lines) else 0


def _black_boxes(brightest: Bytes) -> list[Box]:
    found: list[Box] = []
    height, width = brightest.shape
    for upside_down, mirrored in product((False, True), repeat=2):
        turned = brightest[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        for box in _lower_left_boxes(turned):
            left = width - box.left - box.width if mirrored else box.left
            top = height - box.top - box.height if upside_down else box.top
            found.append(Box(left, top, box.width, box.height))
    return _largest(found)


def _largest(boxes: list[Box]) -> list[Box]:
    """Return the boxes that are not almost inside a larger one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: box.area, reverse=True):
        if all(box.intersection(larger).area < _INSIDE * box.area for larger in kept):
            kept.append(box)
    return kept


def _lower_left_boxes(brightest: Bytes) -> list[Box]:
    """Return the black boxes in the lower left corner."""
    above = brightest.shape[0] - int(_REACH * brightest.shape[0])
    corner = _Corner(np.ascontiguousarray(brightest[above:, : int(_REACH * brightest.shape[1])]))
    rights = list(corner.right_edges())
    tops = list(corner.top_edges()) if rights else []
    boxes = [corner.box(right, top) for right, top in product(rights, tops)]
    return [Box(box.left, box.top + above, box.width, box.height) for box in boxes if box is not None]


class _Corner:
    """A lower left corner of an image: its dark pixels and their sharp edges."""

    def __init__(self, brightest: Bytes) -> None:
        self.height, self.width = brightest.shape
        self.least_width = max(_BLUR, round(_THINNEST / _REACH * self.width))
        self.least_height = max(_BLUR, round(_THINNEST / _REACH * self.height))
        self.brightest = brightest
        self.dark = np.asarray(cv2.threshold(brightest, _DARK, 1, cv2.THRESH_BINARY_INV)[1], np.uint8)

    @cached_property
    def sums(self) -> NDArray[np.int32]:
        """Return the dark pixels above and to the left of each pixel, shape (H + 1, W + 1)."""
        return np.asarray(cv2.integral(self.dark), np.int32)

    # Edges are differences over two pixels: they are seldom sharper.

    @cached_property
    def rightward(self) -> Bytes:
        """Return 1 where a dark pixel has a brighter one to its right, shape (H, W - 2)."""
        return _step(self.brightest[:, 2:], self.brightest[:, :-2]) & self.dark[:, :-2]

    @cached_property
    def upward(self) -> Bytes:
        """Return 1 where a dark pixel has a brighter one above it, shape (H - 2, W)."""
        return _step(self.brightest[:-2], self.brightest[2:]) & self.dark[2:]

    def right_edges(self) -> Iterator[int]:
        """Yield the columns with most transitions from dark to brighter, the best first."""
        return _peaks(cv2.reduce(self.rightward, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0], self.least_height)

    def top_edges(self) -> Iterator[int]:
        """Yield the rows with most transitions from brighter to dark, the best first."""
        return _peaks(cv2.reduce(self.upward, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0], self.least_width)

    def box(self, right_edge: int, top_edge: int) -> Box | None:
        """Return the black box with these sides, or None."""
        box = self._filled(right_edge - 1, top_edge + _BLUR)
        if box is None or not self._is_in_corner(box) or not self._is_sharp(box, right_edge, top_edge):
            return None
        inside = self.brightest[box.slices]
        return box if np.count_nonzero(inside <= _BLACK) > inside.size / 2 else None

    def _filled(self, right: int, top: int) -> Box | None:
        """Return the dark rectangle that extends left and down from a column and a row just inside of it."""
        if right < self.least_width or self.height - top < self.least_height:
            return None
        bottom = top + _run(self._dark_rows(right - self.least_width, right)[top:])
        if bottom - top < self.least_height:
            return None
        columns = self._dark_columns(top, bottom)
        left = right - _run(columns[:right][::-1])
        if right - left < self.least_width:
            return None
        rows = self._dark_rows(left, right)
        bottom = top + _run(rows[top:])
        if bottom - top < self.least_height:
            return None
        right += min(_BLUR, _run(columns[right:]))
        top -= min(_BLUR, _run(rows[:top][::-1]))
        return Box(left, top, right - left, bottom - top)

    def _dark_rows(self, left: int, right: int) -> Flags:
        return np.diff(self.sums[:, right] - self.sums[:, left]) >= _FILLED * (right - left)

    def _dark_columns(self, top: int, bottom: int) -> Flags:
        return np.diff(self.sums[bottom] - self.sums[top]) >= _FILLED * (bottom - top)

    def _is_in_corner(self, box: Box) -> bool:
        below = self.height - box.top - box.height
        return box.left <= _CORNER / _REACH * self.width and below <= _CORNER / _REACH * self.height

    def _is_sharp(self, box: Box, right_edge: int, top_edge: int) -> bool:
        rows, columns = box.slices
        right, top = self.rightward[rows, right_edge].mean(), self.upward[top_edge, columns].mean()
        return bool(right * top >= _SHARP)


def _step(bright: Bytes, dark: Bytes) -> Bytes:
    """Return 1 where `bright` is brighter than `dark` by a step."""
    return np.asarray(cv2.threshold(cv2.subtract(bright, dark), _STEP - 1, 1, cv2.THRESH_BINARY)[1], np.uint8)


def _peaks(votes: NDArray[Any], least: int) -> Iterator[int]:
    """Yield the positions with most votes, the best first, farther from each other than the blur."""
    votes = votes.copy()
    for _ in range(_EDGES):
        best = int(votes.argmax())
        if votes[best] < least:
            return
        yield best
        votes[max(0, best - _BLUR) : best + _BLUR + 1] = 0


def _run(flags: Flags) -> int:
    """Return the number of set flags before the first unset one."""
    return len(flags) if flags.all() else int(flags.argmin())


def tissue_mask(frames: NDArray[np.uint8], insets: Flags) -> Flags:
    """Return where frames show tissue, including dark lumen; bool (N, S, S).

    Excluded are insets, black that touches the frame's edge, and glints. One pixel around black and glints is excluded too,
    because resizing blurs them. A rest of a single colour with noise is not tissue: it is a covered lens, or an empty image.

    Args:
        frames: uint8 (N, S, S, 3).
        insets: bool (N, S, S), True inside.
    """
    return np.stack([_tissue(frame, inset) for frame, inset in zip(frames, insets, strict=True)])


def touching_edge(black: Flags) -> Flags:
    """Return the connected parts of `black`, bool (H, W), that touch the frame's edge."""
    labels = np.asarray(cv2.connectedComponents(black.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1])
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(edge[edge > 0]))


def _tissue(frame: NDArray[np.uint8], inset: Flags) -> Flags:
    border = touching_edge(frame @ np.array(LUMA) < BORDER * 255)
    red, green, blue = channels(frame)
    glints = np.asarray(cv2.min(cv2.min(red, green), blue)) > GLINT * 255
    around = cv2.dilate((border | glints).astype(np.uint8), _CROSS) > 0
    left = ~(inset | around)
    colours = frame[left]
    return left & bool(len(colours) and (colours.max(0) - colours.min(0) > FLAT).any())
