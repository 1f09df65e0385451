"""Views of prepared frames: the whole square of the content area, and its centre, which holds no border and no inset."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.imaging.box import Box

ViewName = Literal["full", "centre"]
"""`full`: the centre square of the content area. `centre`: one square inside it, see `centre_box`."""
VIEWS: tuple[ViewName, ...] = ("full", "centre")

CENTRE_LEFT, CENTRE_TOP, CENTRE_SIDE = 0.50, 0.275, 0.45
"""Left, top and side of the centre view, as fractions of the side of the content area's centre square.

Columns 0.50 to 0.95 and rows 0.275 to 0.725: no border and no corner of an octagon, nothing of the lower left, where devices
put insets and text, and no 5% margin. Insets of Kvasir's frames lie at columns below 0.36 and rows above 0.55.
"""
CENTRE_SIZE = 224
"""Side in pixels of the stored centre view."""
MIN_CENTRE = 4
"""Minimum side of the centre view in pixels of the original; of less, nothing is left to see."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class View:
    """Frames of a store in one view.

    frames: uint8, shape (N, S, S, 3), RGB.
    insets: uint8, shape (N, S, S), 1 inside an inset.
    lesions: uint8, shape (N, S, S), 1 inside a lesion.
    """

    name: ViewName
    frames: Bytes
    insets: Bytes
    lesions: Bytes


def centre_box(square: Box) -> Box:
    """Return the centre view's square in the centre square of a content area; its area is 0 in a square of 0 or 1 pixels."""
    left, top, side = (round(part * square.width) for part in (CENTRE_LEFT, CENTRE_TOP, CENTRE_SIDE))
    return Box(square.left + left, square.top + top, side, side)


def require_centre(content: Box) -> Box:
    """Return the centre view's square in a content area of an original frame.

    Raises:
        InputError: fewer than `MIN_CENTRE` pixels are left along a side.
    """
    box = centre_box(content.centre_square())
    if box.width < MIN_CENTRE:
        raise InputError(
            f"The content area is {content.width} x {content.height} pixels, of which the centre view shows {box.width} x "
            f"{box.height}, and at least {MIN_CENTRE} x {MIN_CENTRE} are needed; give larger frames."
        )
    return box
