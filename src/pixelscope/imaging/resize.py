"""Resize image batches with antialiasing and little memory."""

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_CHUNK_PIXELS = 4_000_000
"""Pixels per chunk; their float copies take 16 MB."""


def resize(images: Bytes, size: int) -> Bytes:
    """Resize to `size` x `size`: the shorter side becomes `size`, and the longer one is cropped to its centre.

    Bilinear, antialiased when shrinking, rounded to the nearest integer, halves to even. The result for an image does not
    depend on others in the batch.

    Args:
        images: uint8, shape (N, C, H, W).
        size: side of the result in pixels, at least 1.

    Returns:
        uint8, shape (N, C, size, size); `images` itself if it has that shape.
    """
    square = centre_square(images)
    if square.shape[-1] == size:
        return square
    count, channels, side, _ = square.shape
    weights = bilinear_weights(side, size, np.arange(size))
    resized = np.empty((count, channels, size, size), np.uint8)
    rows = max(1, _CHUNK_PIXELS // (channels * max(side, size) ** 2))
    for start in range(0, count, rows):
        # One product per image and channel, all of one shape: in a larger one, sums could depend on an image's place.
        scaled = np.matmul(np.matmul(weights, square[start : start + rows].astype(np.float32)), weights.T)
        resized[start : start + rows] = np.rint(scaled, out=scaled).clip(0, 255)
    return resized


def bilinear_weights(size: int, side: int, places: NDArray[np.int64]) -> Floats:
    """Return the matrix (len(places), size) that scales `size` pixels to `side`, and takes those at `places` of the result.

    Bilinear, antialiased when shrinking. Places outside 0 to `side` - 1 have rows of zeros.
    """
    step = size / side
    reach = max(1.0, step)
    middles = (places + 0.5) * step
    weights = (1 - np.abs(np.arange(size)[None] + 0.5 - middles[:, None]) / reach).clip(min=0)
    weights[(places < 0) | (places >= side)] = 0
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0).astype(np.float32)


def centre_square(images: Bytes) -> Bytes:
    """Return the largest centred square of images (..., H, W), as a view."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def resize_frames(frames: Bytes, side: int) -> Bytes:
    """Return uint8 frames (N, S, S, 3), or masks (N, S, S), at another side: bilinear if they grow, by area if they shrink."""
    return _resized(frames, side, cv2.INTER_LINEAR)


def resize_frames_bicubic(frames: Bytes, side: int) -> Bytes:
    """Return uint8 frames (N, S, S, 3) at another side: bicubic if they grow, by area if they shrink."""
    return _resized(frames, side, cv2.INTER_CUBIC)


def _resized(frames: Bytes, side: int, enlarging: int) -> Bytes:
    if frames.shape[1] == side:
        return frames
    how = cv2.INTER_AREA if frames.shape[1] > side else enlarging
    return np.stack([cv2.resize(frame, (side, side), interpolation=how) for frame in frames])
