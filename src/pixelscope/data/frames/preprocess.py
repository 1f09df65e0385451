"""One decoded frame to the small square that is stored."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.imaging.box import Box
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import find_content_area
from pixelscope.imaging.insets import Inset, find_insets, inpaint, inset_mask

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Value = TypeVar("Value", np.uint8, np.float32)


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A frame's square in its content area, with what is known of it."""

    frame: Bytes
    """uint8, shape (size, size, 3)."""
    inset: Bytes
    """uint8, shape (size, size): 1 where any of what was drawn together lies inside an inset."""
    lesion: Bytes
    """uint8, shape (size, size): 1 where more than half lies inside the lesion."""
    content: Box
    """The content area in the original; the square is its `centre_square()`."""
    insets: tuple[Inset, ...]
    """The insets in the original."""


def prepare_frame(original: Bytes, lesion: Mask | None, config: PrepareConfig) -> PreparedFrame:
    """Find the content area and insets of a frame, cut the square out, resize it, and fill the insets if so configured.

    Args:
        original: uint8, shape (H, W, 3), RGB.
        lesion: bool, shape (H, W), or None where the frame has no mask.
        config: size, method and what is done about insets.
    """
    content = find_content_area(original, config.method)
    insets = find_insets(original, content)
    inside = inset_mask(original.shape[:2], insets) if insets else None
    square = content.centre_square().slices
    frame = resize_square(original[square], config.size)
    inset = _covered(None if inside is None else inside[square], config.size, 0)
    if config.insets == "inpaint" and inset.any():
        # After the black border is cut off, which would flow into the fill, and at the small size, where it is quick.
        frame = inpaint(frame, inset > 0)
    return PreparedFrame(
        frame=frame,
        inset=inset,
        lesion=_covered(None if lesion is None else lesion[square], config.size, 0.5),
        content=content,
        insets=tuple(insets),
    )


def is_black(frame: Bytes) -> bool:
    """Say whether a prepared frame shows nothing: no value above the noise that JPEG leaves in black."""
    return int(frame.max()) <= 16


def resize_square(square: NDArray[Value], size: int) -> NDArray[Value]:
    """Resize uint8 (H, H, 3) or (H, H), or float32 (H, H), to `size`, bilinear and antialiased.

    It is the rule of `pixelscope.imaging.resize`: each value is a weighted mean, falling linearly to nothing at twice
    the pixel's width. OpenCV's bilinear is not antialiased, and its area mean only at whole factors.
    """
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def _covered(inside: Mask | None, size: int, share: float) -> Bytes:
    """Return uint8 (size, size): 1 where more than `share` of what the frame's rule draws together is inside."""
    if inside is None or not inside.any():
        return np.zeros((size, size), np.uint8)
    return (resize_square(inside.astype(np.float32), size) > share).astype(np.uint8)
