"""Masks of lesions: two values, of the size of their frame."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError

Bytes = NDArray[np.uint8]

_BETWEEN = 0.01
"""Share of a mask's pixels that may lie between its two values: JPEG leaves ripples along edges."""


def lesion(mask: Bytes, shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    """Return where a mask marks a lesion.

    Args:
        mask: uint8, shape (H, W, C), black outside the lesion; any one value inside.
        shape: height and width of the frame.
        path: the mask's file, for messages.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the mask has another size than its frame, or more than two values.
    """
    if mask.shape[:2] != shape:
        raise InputError(
            f"The mask {path} is {mask.shape[1]} x {mask.shape[0]} and its frame {shape[1]} x {shape[0]}; give a mask of the "
            "frame's size."
        )
    values = mask.max(axis=2)
    top = int(values.max())
    between = np.count_nonzero((values > top // 8) & (values < top - top // 8))
    if between > _BETWEEN * values.size:
        raise InputError(
            f"The mask {path} has more than two values ({between / values.size:.0%} of it lies between black and {top}); "
            "give one that is black outside the lesion and white inside."
        )
    return values > top // 2
