"""Draws pseudo-lesions into healthy frames: patches that are cut, warped, recoloured and blended in.

The idea is that of CutPaste (Li et al., CVPR 2021) and DRAEM (Zavrtanik et al., ICCV 2021): a network trained to find drawn
lesions also finds real ones. The shapes here are those of tissue: blobs with a bulge, a shadow, another texture or colour.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LESION_RATE = 0.6
"""Fraction of the frames that get a pseudo-lesion."""
MIN_CHANGE = 0.02
"""Minimum mean absolute difference over channels, in [0, 1], at which a changed pixel counts as lesion."""


@dataclass(frozen=True)
class Blob:
    """An irregular ellipse."""

    centre: tuple[float, float]
    """x and y in pixels."""
    radius: float
    """Longer semi-axis in pixels."""
    distance: Floats
    """(S, S): 0 at the centre, 1 at the edge."""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Return the pixels of the blob, bool (S, S)."""
        return self.distance < 1


def draw_blob(side: int, rng: np.random.Generator) -> Blob:
    """Draw a blob with a radius of 10 to 60% of the side; it may reach over the edge of the frame."""
    x, y = rng.uniform(0, side, 2)
    radius = np.exp(rng.uniform(np.log(0.1), np.log(0.6))) * side
    across, angle = radius * rng.uniform(0.55, 1), rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    dx, dy = columns - x, rows - y
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
    other = (dy * np.cos(angle) - dx * np.sin(angle)) / across
    ragged = smooth_noise(side, rng.uniform(0.04, 0.1) * side, rng) * rng.uniform(0, 0.2)
    return Blob((x, y), radius, np.maximum(np.hypot(along, other) + ragged, 0).astype(np.float32))


def draw_lesion(frame: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a frame with one pseudo-lesion, and the lesion's pixels, bool (S, S).

    Args:
        frame: (S, S, 3) in [0, 1].
        other: another frame of the same shape, from which patches are taken.
        rng: generator of shape, position and kind.
    """
    blob = draw_blob(len(frame), rng)
    soft = _softened(blob, rng)
    drawn = _transplanted(frame, other, soft, rng) if rng.random() < 0.5 else _bulged(frame, blob, rng)
    for rate, change in _CHANGES:
        if rng.random() < rate:
            drawn = change(drawn, blob, rng)
    blended = np.clip(frame + (drawn - frame) * soft, 0, 1).astype(np.float32)
    return blended, blob.inside & (np.abs(blended - frame).mean(2) > MIN_CHANGE)


def draw_example(frame: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return a frame with up to two pseudo-lesions, or none, and their pixels, float32 (S, S), 1 inside."""
    lesions = np.zeros(frame.shape[:2], bool)
    if rng.random() < LESION_RATE:
        for _ in range(rng.integers(1, 3)):
            frame, lesion = draw_lesion(frame, other, rng)
            lesions |= lesion
    return frame, lesions.astype(np.float32)


def vary(frame: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Return a mirrored, turned, zoomed and recoloured copy of a uint8 frame (S, S, 3), in [0, 1]."""
    side = len(frame)
    turned = np.rot90(frame[:, ::-1] if rng.random() < 0.5 else frame, int(rng.integers(4)))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-30, 30), rng.uniform(1, 1.3))
    moved = cv2.warpAffine(np.ascontiguousarray(turned), matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    colours = moved.astype(np.float32) / 255 * rng.uniform(0.95, 1.05, 3).astype(np.float32)
    mean = colours.mean()
    return np.clip((colours - mean) * rng.uniform(0.85, 1.15) + mean * rng.uniform(0.85, 1.15), 0, 1).astype(np.float32)


def smooth_noise(side: int, scale: float, rng: np.random.Generator) -> Floats:
    """Return Gaussian noise of standard deviation 1, smoothed over `scale` pixels, (S, S)."""
    noise = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), max(scale, 0.5))
    return (noise / noise.std()).astype(np.float32)


def _softened(blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the weight of the lesion per pixel, (S, S, 1) in [0, 1]: the blob with a soft edge."""
    inside = blob.inside.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.007, 0.04) * len(inside)), np.float32)[..., None]


def _transplanted(frame: Floats, other: Floats, soft: Floats, rng: np.random.Generator) -> Floats:
    """Return another frame, its mean colour in the blob moved towards the frame's."""
    weight = soft.sum()
    difference = ((other - frame) * soft).sum((0, 1)) / weight
    return (other - difference * rng.uniform(0.3, 1)).astype(np.float32)


def _bulged(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame magnified inside the blob, like the surface of a dome."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    least, power = rng.uniform(0.35, 0.9), rng.uniform(0.8, 2.5)
    scale = np.where(blob.inside, least + (1 - least) * np.power(blob.distance, power), 1).astype(np.float32)
    x, y = np.float32(blob.centre[0]), np.float32(blob.centre[1])
    return np.asarray(
        cv2.remap(
            frame, x + (columns - x) * scale, y + (rows - y) * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ),
        np.float32,
    )


def _shaded(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame shaded like a dome that is lit from one side."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    towards = ((columns - blob.centre[0]) * np.cos(angle) + (rows - blob.centre[1]) * np.sin(angle)) / blob.radius
    height = np.sqrt(np.clip(1 - np.square(blob.distance), 0, 1))
    light = 1 + rng.uniform(0.05, 0.35) * towards * np.clip(blob.distance, 0, 1) + rng.uniform(-0.1, 0.3) * (height - 0.5)
    return (frame * light[..., None]).astype(np.float32)


def _recoloured(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    return (frame * rng.uniform(0.75, 1.3, 3) ** rng.uniform(0.3, 1)).astype(np.float32)


def _blurred(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.007, 0.025) * len(frame)), np.float32)


def _roughened(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    noise = smooth_noise(len(frame), rng.uniform(0.01, 0.03) * len(frame), rng)
    return (frame + noise[..., None] * rng.uniform(0.02, 0.08)).astype(np.float32)


def _glinting(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame with a glint: the reflection of the lamp on a wet surface."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    x, y = np.add(blob.centre, rng.uniform(-0.5, 0.5, 2) * blob.radius)
    width, height = rng.uniform(0.01, 0.03, 2) * len(frame)
    glint = np.exp(-(((columns - x) / width) ** 2) - ((rows - y) / height) ** 2)
    return (frame + glint[..., None] * rng.uniform(0.3, 0.8)).astype(np.float32)


Change = Callable[[Floats, Blob, np.random.Generator], Floats]
_CHANGES: tuple[tuple[float, Change], ...] = (
    (0.6, _shaded),
    (0.5, _recoloured),
    (0.25, _blurred),
    (0.2, _roughened),
    (0.3, _glinting),
)
"""Changes inside a pseudo-lesion, each with its probability."""
