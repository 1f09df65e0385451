"""Which values of an image deeper than 8 bits become black and white; needs nothing but NumPy.

Images of one set share one range, so that the same value is the same grey in all of them.
"""

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""The values that become 0 and 255."""

BITS = (8, 10, 12, 16)
"""Depths that integers are stored with."""

BYTES_FROM = 128
"""Greatest value from which floats beyond 1 are taken for bytes: a set of bytes reaches it, values a little over 1 do not."""


def common_range(lowest: float, highest: float, whole: bool) -> Range:
    """Return the range of images whose values go from `lowest` to `highest`.

    Integers have that of the least depth of 8, 10, 12 and 16 bits that holds them all; floats 0 to 1, or -1 to 1. What none
    of these holds has its own least and greatest value.

    Args:
        lowest: least value of all images.
        highest: greatest value of all images.
        whole: whether they are stored as integers.
    """
    known = [(0.0, 2.0**bits - 1) for bits in BITS] if whole else [(0.0, 1.0), (-1.0, 1.0)]
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), (lowest, highest))


def type_range(lowest: float, highest: float, whole: bool) -> Range:
    """Return the range of one image that is read alone, by its type.

    Integers have 16 bits; floats 0 to 1, -1 to 1, or 0 to 255 from `BYTES_FROM` on. What these do not hold has its own least
    and greatest value.
    """
    floats = [(0.0, 1.0), (-1.0, 1.0), *([(0.0, 255.0)] if highest >= BYTES_FROM else [])]
    known = [(0.0, 65535.0)] if whole else floats
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), (lowest, highest))


def to_eight_bits(values: NDArray[np.generic], low_high: Range) -> NDArray[np.uint8]:
    """Return values as bytes: the range becomes 0 to 255, what lies beyond it 0 or 255; all 0 where the range is empty."""
    low, high = low_high
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.astype(np.float64) - low) * scale).round().clip(0, 255).astype(np.uint8)


def range_note(low_high: Range) -> str:
    """Return the note that names the range of a set of images."""
    return f"Values of {range_text(low_high)} became 0 to 255 in all images; fix it with --data.range LOW HIGH."


def unused_range_note(low_high: Range) -> str:
    """Return the note on a range that was given for images of 8 bits."""
    return f"The range {range_text(low_high)} that was given is not used: no image is deeper than 8 bits."


def range_text(low_high: Range) -> str:
    """Return a range as people read it, the depth named where it is one."""
    low, high = low_high
    bits = next((f" ({bits} bits)" for bits in BITS if (low, high) == (0, 2**bits - 1)), "")
    return f"{low:g} to {high:g}{bits}"
