"""Framing: where the foreground of images lies and how much of them it fills; needs nothing but NumPy.

Digits of USPS touch the edges of their images and those of MNIST have margins. A generator that changes looks and not
geometry cannot bridge that, so one domain is scaled and placed as the other is.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.resize import bilinear_weights

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SAMPLE = 1000
"""Images of a set on which its framing is measured, at equal distances over it."""

_BLOCK = 256
"""Images scaled at a time."""

_CONTRAST = 48
"""Least difference, of 255, between the background of an image and what stands out most from it."""

_LIKE_BACKGROUND = 0.1
"""Share of that difference within which a pixel is like the background."""

_STANDS_OUT = 0.5
"""Share of that difference from which a pixel is foreground."""

_PLAIN = 0.6
"""Share of an image's edge, at least, that is like the background where a foreground can be told from it."""

_TOLD = 0.8
"""Share of a set's images, at least, whose foreground can be told, where it has a framing at all."""

_SCALE = 0.1
"""Difference in the size of foregrounds, as a share, from which two framings are different."""

_SHIFT = 0.05
"""Distance between the middles of foregrounds, in sides of the image, from which two framings are different."""


@dataclass(frozen=True)
class Foreground:
    """Where the foreground of a set's images lies, in sides of the image from its top left corner; medians over images."""

    x: float
    """Middle of the foreground's box."""
    y: float
    width: float
    height: float
    side: float
    """The longer one of width and height, image by image."""
    background: tuple[int, int, int]
    """Colour at the edge of the images, 0 to 255."""


@dataclass(frozen=True)
class Framing:
    """How images are scaled and placed: into a square of `side` pixels, its top left corner at (left, top)."""

    side: int
    left: int
    top: int
    fill: tuple[int, int, int]
    """Colour of what the square leaves uncovered, 0 to 255."""

    @classmethod
    def of(cls, values: tuple[int, int, int, int, int, int]) -> Self:
        """Return the framing of the numbers SIDE LEFT TOP RED GREEN BLUE."""
        side, left, top, *fill = values
        return cls(side, left, top, (fill[0], fill[1], fill[2]))

    def numbers(self) -> tuple[int, int, int, int, int, int]:
        """Return it as numbers, SIDE LEFT TOP RED GREEN BLUE."""
        return (self.side, self.left, self.top, *self.fill)

    def apply(self, images: Bytes) -> Bytes:
        """Return images (N, S, S, C), C 1 or 3, scaled and placed; of the same shape."""
        down, across = self.matrices(images.shape[1])
        fill = np.array(self.fill if images.shape[3] == 3 else self.fill[:1], np.float32)
        framed = np.empty_like(images)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK] - fill
            n, size, _, channels = block.shape
            rows = np.matmul(down, block.reshape(n, size, size * channels))
            placed = np.matmul(across, rows.reshape(n * size, size, channels)).reshape(block.shape)
            # Rounded to a thousandth first: sums in another order then round alike where they lie half between two values.
            framed[start : start + _BLOCK] = (placed + fill).round(3).round().clip(0, 255)
        return framed

    def matrices(self, size: int) -> tuple[Floats, Floats]:
        """Return the matrices (size, size) that bring the rows of an image of `size` pixels to their places, and the columns.

        Bilinear, antialiased where it shrinks, as everywhere in this package.
        """
        places = np.arange(size)
        return bilinear_weights(size, self.side, places - self.top), bilinear_weights(size, self.side, places - self.left)

    def describe(self, size: int) -> str:
        """Return it as a person reads it, for images of `size` pixels."""
        return f"scaled to {self.side / size:.0%} and placed at ({self.left}, {self.top}) in {size} x {size} pixels"


def find_foreground(images: Bytes) -> Foreground | None:
    """Return where the foreground of images (N, S, S, C) lies; None if it cannot be told from the background.

    The background is the median colour along an image's edge; it can be told where most of the edge has it.
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
    """Return what frames images of `own` foreground, of `size` pixels, as those of the `other`; None if they are alike."""
    scale = other.side / own.side
    shift = max(abs(own.x - other.x), abs(own.y - other.y))
    if abs(scale - 1) < _SCALE and shift < _SHIFT:
        return None
    side = max(1, round(size * scale))
    return Framing(side, round(size * other.x - side * own.x), round(size * other.y - side * own.y), own.background)


def _box(image: Bytes) -> tuple[tuple[int, int, int, int], Floats] | None:
    """Return left, top, right and bottom of the foreground of an image (S, S, C), and its background (C,); None if unclear."""
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
