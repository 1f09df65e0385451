"""Framing: position and size of the foreground in images; needs only NumPy.

Digits of USPS touch the edges of their images; digits of MNIST have margins. A generator that changes appearance but not
geometry cannot bridge this, so one domain is scaled and shifted to match the other.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.resize import bilinear_weights

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SAMPLE = 1000
"""Maximum number of images on which a set's framing is measured, spread over the set."""

_BLOCK = 256
"""Images scaled at a time."""

_CONTRAST = 48
"""Minimum difference, of 255, between an image's background and the pixel that differs most."""

_LIKE_BACKGROUND = 0.1
"""Fraction of that difference up to which a pixel is background."""

_STANDS_OUT = 0.5
"""Fraction of that difference from which a pixel is foreground."""

_PLAIN = 0.6
"""Minimum fraction of an image's edge that must be background for a foreground to be detected."""

_TOLD = 0.8
"""Minimum fraction of a set's images with a detected foreground."""

_SCALE = 0.1
"""Minimum relative difference in size of foregrounds for framings to differ."""

_SHIFT = 0.05
"""Minimum distance of foreground centres, in sides of the image, for framings to differ."""


@dataclass(frozen=True)
class Foreground:
    """Position of the foreground, in sides of the image from its top left corner; medians over images."""

    x: float
    """Centre of the foreground's box."""
    y: float
    width: float
    height: float
    side: float
    """Maximum of width and height."""
    background: tuple[int, int, int]
    """Colour at the edges of the images, 0 to 255."""


@dataclass(frozen=True)
class Framing:
    """Scale and shift of images: into a square of `side` pixels with its top left corner at (left, top)."""

    side: int
    left: int
    top: int
    fill: tuple[int, int, int]
    """Colour outside the square, 0 to 255."""

    @classmethod
    def of(cls, values: tuple[int, int, int, int, int, int]) -> Self:
        """Return the framing with the numbers SIDE LEFT TOP RED GREEN BLUE."""
        side, left, top, *fill = values
        return cls(side, left, top, (fill[0], fill[1], fill[2]))

    def numbers(self) -> tuple[int, int, int, int, int, int]:
        """Return the numbers SIDE LEFT TOP RED GREEN BLUE."""
        return (self.side, self.left, self.top, *self.fill)

    def apply(self, images: Bytes) -> Bytes:
        """Return images (N, S, S, C), C 1 or 3, scaled and shifted; of the same shape."""
        down, across = self.matrices(images.shape[1])
        fill = np.array(self.fill if images.shape[3] == 3 else self.fill[:1], np.float32)
        framed = np.empty_like(images)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK] - fill
            n, size, _, channels = block.shape
            rows = np.matmul(down, block.reshape(n, size, size * channels))
            placed = np.matmul(across, rows.reshape(n * size, size, channels)).reshape(block.shape)
            # Rounded to a thousandth first, so that sums in another order round the same way near a half.
            framed[start : start + _BLOCK] = (placed + fill).round(3).round().clip(0, 255)
        return framed

    def matrices(self, size: int) -> tuple[Floats, Floats]:
        """Return the matrices (size, size) that scale and shift the rows, and the columns, of an image of `size` pixels.

        Bilinear, antialiased.
        """
        places = np.arange(size)
        return bilinear_weights(size, self.side, places - self.top), bilinear_weights(size, self.side, places - self.left)

    def describe(self, size: int) -> str:
        """Return a description for images of `size` pixels."""
        return f"scaled to {self.side / size:.0%} and shifted to ({self.left}, {self.top}) in {size} x {size} pixels"


def find_foreground(images: Bytes) -> Foreground | None:
    """Return the position of the foreground of images (N, S, S, C); None if it cannot be detected.

    The background is the median colour along an image's edge; most of the edge must have this colour.
    """
    found = [box for image in images if (box := _box(image)) is not None]
    if len(found) < _TOLD * len(images) or not found:
        return None
    boxes = np.array([box for box, _ in found], np.float64) / images.shape[1]
    left, top, right, bottom = boxes.T
    colours = np.median([colour for _, colour in found], axis=0).round().astype(int).tolist()
    return Foreground(
        x=float(np.median(left + right)) / 2,
        y=float(np.median(top + bottom)) / 2,
        width=float(np.median(right - left)),
        height=float(np.median(bottom - top)),
        side=float(np.median(np.maximum(right - left, bottom - top))),
        background=(colours[0], colours[-2] if len(colours) == 3 else colours[0], colours[-1]),
    )


def matching(own: Foreground, other: Foreground, size: int) -> Framing | None:
    """Return the framing that moves the foreground `own` of images of `size` pixels to `other`; None if they match already."""
    scale = other.side / own.side
    shift = max(abs(own.x - other.x), abs(own.y - other.y))
    if abs(scale - 1) < _SCALE and shift < _SHIFT:
        return None
    side = max(1, round(size * scale))
    return Framing(side, round(size * other.x - side * own.x), round(size * other.y - side * own.y), own.background)


def _box(image: Bytes) -> tuple[tuple[int, int, int, int], Floats] | None:
    """Return left, top, right, bottom of the foreground of an image (S, S, C), and its background (C,); None if undetected."""
    edge = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    background = np.median(edge, axis=0)
    distance = np.abs(image - background).max(axis=2)
    contrast = distance.max()
    plain = (np.abs(edge - background).max(axis=1) <= _LIKE_BACKGROUND * contrast).mean()
    if contrast < _CONTRAST or plain < _PLAIN:
        return None
    stands_out = distance >= _STANDS_OUT * contrast
    rows, columns = np.flatnonzero(stands_out.any(1)), np.flatnonzero(stands_out.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1), background.astype(np.float32)
