"""Resizing of image batches, antialiased and in little memory."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_CHUNK_PIXELS = 4_000_000
"""Pixels in flight at once; float copies of so many take 16 MB."""


def resize(images: Tensor, size: int) -> Tensor:
    """Resize to `size` x `size`: the shorter side becomes `size`, and the centre is kept of the longer one.

    Bilinear, antialiased where it shrinks, rounded to the nearest value.

    Args:
        images: uint8, shape (N, C, H, W).
        size: side of the result in pixels, at least 1.

    Returns:
        uint8, shape (N, C, size, size); `images` itself where it has that shape already.
    """
    square = centre_square(images)
    if square.shape[-1] == size:
        return square
    count, channels, side, _ = square.shape
    resized = torch.empty(count, channels, size, size, dtype=torch.uint8)
    rows = max(1, _CHUNK_PIXELS // (channels * max(side, size) ** 2))
    for start in range(0, count, rows):
        chunk = square[start : start + rows].float()
        scaled = interpolate(chunk, (size, size), mode="bilinear", antialias=True)
        resized[start : start + rows] = scaled.round_().clamp_(0, 255)
    return resized


def centre_square(images: Tensor) -> Tensor:
    """Return the largest square in the middle of images (..., H, W), as a view."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]
