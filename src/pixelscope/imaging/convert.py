"""Map the values of images deeper than 8 bits to bytes; needs only NumPy.

Images of a set share one range, so that equal values are equal greys in all of them.
"""

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""Values mapped to 0 and 255."""

BITS = (8, 10, 12, 16)
"""Bit depths of integer images."""

BYTES_FROM = 128
"""Minimum of the maximum from which floats above 1 count as bytes: sets of bytes reach it, values slightly above 1 do not."""


def common_range(lowest: float, highest: float, whole: bool) -> Range:
    """Return the `known_range` of images with values from `lowest` to `highest`; `lowest` to `highest` if there is none."""
    return known_range(lowest, highest, whole) or (lowest, highest)


def known_range(lowest: float, highest: float, whole: bool) -> Range | None:
    """Return the usual range of images with values from `lowest` to `highest`; None if there is none.

    For integers it is that of the smallest of 8, 10, 12 and 16 bits that contains them; for floats 0 to 1 or -1 to 1.

    Args:
        lowest: minimum of all images.
        highest: maximum of all images.
        whole: whether they are stored as integers.
    """
    known = [(0.0, 2.0**bits - 1) for bits in BITS] if whole else [(0.0, 1.0), (-1.0, 1.0)]
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), None)


def type_range(lowest: float, highest: float, whole: bool) -> Range:
    """Return the range of a single image, by its type.

    Integers have 16 bits; floats 0 to 1, -1 to 1, or 0 to 255 from `BYTES_FROM` on. Otherwise it is minimum to maximum.
    """
    floats = [(0.0, 1.0), (-1.0, 1.0), *([(0.0, 255.0)] if highest >= BYTES_FROM else [])]
    known = [(0.0, 65535.0)] if whole else floats
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), (lowest, highest))


def to_eight_bits(values: NDArray[np.generic], low_high: Range) -> NDArray[np.uint8]:
    """Return values as bytes: the range is mapped to 0 to 255 and clipped; all 0 if the range is empty."""
    low, high = low_high
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.astype(np.float64) - low) * scale).round().clip(0, 255).astype(np.uint8)


def range_note(low_high: Range) -> str:
    """Return the note that names the range of a set."""
    return f"Values of {range_text(low_high)} became 0 to 255 in all images; set it with --data.range LOW HIGH."


def unused_range_note(low_high: Range) -> str:
    """Return the note on a range given for images of 8 bits."""
    return f"The range {range_text(low_high)} is not used: no image is deeper than 8 bits."


def range_text(low_high: Range) -> str:
    """Return a range as text, with its bit depth if it has one."""
    low, high = low_high
    bits = next((f" ({bits} bits)" for bits in BITS if (low, high) == (0, 2**bits - 1)), "")
    return f"{low:g} to {high:g}{bits}"
