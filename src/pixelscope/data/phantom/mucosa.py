"""The bowel's wall: folds, light, wetness."""

from dataclasses import dataclass

import cv2
import numpy as np

from pixelscope.data.phantom.fields import Floats, ring_noise, smooth_noise
from pixelscope.data.phantom.view import TEXTURE, Wall

_FAR = 24
"""Folds behind one another of which anything can be seen."""


@dataclass(frozen=True)
class Mucosa:
    """What the wall does to light, each (H, W)."""

    light: Floats
    """Brightness of a white wall, 0 and up; 1 is well lit."""
    gloss: Floats
    """0 to 1: how much of a glint there is."""


def draw_mucosa(random: np.random.Generator, wall: Wall) -> Mucosa:
    """Draw the wall that a camera sees."""
    folds, rim = _folds(random, wall)
    light = _falloff(random, wall) * folds * _relief(random, wall) * _glare(random, wall)
    return Mucosa(light, _gloss(random, wall, rim, light))


def _folds(random: np.random.Generator, wall: Wall) -> tuple[Floats, Floats]:
    """Return the shading by folds, about 1, and how near each pixel is to a fold's rim, 0 to 1.

    Outwards from its rim a fold falls back and darkens, up to the rim of the next one, which hides the rest of it.
    """
    broad, narrow = ring_noise(random, TEXTURE, 4), ring_noise(random, TEXTURE, 16)
    warp = wall.lay(np.float32(random.uniform(0.2, 0.5)) * broad + np.float32(random.uniform(0, 0.06)) * narrow)
    warp += np.float32(random.uniform(0, 0.3)) * np.cos(2 * np.pi * (wall.angle - np.float32(random.random())))
    depth = np.float32(random.uniform(0.8, 2.2)) * cv2.pow(wall.radius * cv2.exp(warp), -random.uniform(0.5, 0.9))
    depth += np.float32(random.random())
    fold = np.floor(depth)
    behind = ((1 - (depth - fold)) * 255).astype(np.uint8)
    height = _fold_heights(random, wall, fold)
    return 1 - height * cv2.LUT(behind, _SHADE), height * cv2.LUT(behind, _RIM)


def _fold_heights(random: np.random.Generator, wall: Wall, fold: Floats) -> Floats:
    """Return how high the fold at each pixel is, 0 to 1; few go all the way round."""
    table = ring_noise(random, (_FAR, 256), 4, stretch=64)
    table = np.clip(np.float32(random.uniform(0.3, 0.75)) + np.float32(0.5) * table, 0, 1)
    return cv2.remap(table, wall.angle * np.float32(table.shape[1] - 1), np.clip(fold, 0, _FAR - 1), cv2.INTER_LINEAR)


def _shade_of_a_fold() -> Floats:
    """Return what a fold takes of the light, at 256 places from its rim to the rim that hides it."""
    behind = np.arange(256) / 255
    shade = 0.8 * behind**1.5 - 0.4 * np.exp(-(((behind - 0.1) / 0.12) ** 2)) + 0.25 * np.exp(-behind / 0.03)
    # Blurred across the rim, so that its edge is not ragged.
    blur = np.exp(-((np.arange(-12, 13) / 3.5) ** 2))
    return np.convolve(np.pad(shade, 12, "wrap"), blur / blur.sum(), "valid").astype(np.float32)


_SHADE = _shade_of_a_fold()
_RIM = np.exp(-(((np.arange(256) / 255 - 0.1) / 0.09) ** 2)).astype(np.float32)


def _falloff(random: np.random.Generator, wall: Wall) -> Floats:
    """Return the camera's own light: weak far down the lumen and in the frame's corners."""
    dark = np.float32(random.uniform(0.1, 0.45) ** 2)
    least = np.float32(0.02 + 0.25 * random.random() ** 3)
    square = wall.radius**2
    corners = 1 - np.float32(random.uniform(0.1, 0.25)) * (wall.x**2 + wall.y**2)
    return (least + (1 - least) * square / (square + dark)) * corners


def _glare(random: np.random.Generator, wall: Wall) -> Floats:
    """Return what a wall close to the lens adds on one side of the frame, 1 and up."""
    direction = random.uniform(0, 2 * np.pi)
    side = (
        wall.x * np.float32(np.cos(direction)) + wall.y * np.float32(np.sin(direction)) - np.float32(random.uniform(0.1, 0.8))
    )
    return 1 + np.float32(random.choice([0.0, 0.7, 2.0])) * np.maximum(side, 0) ** 2


def _relief(random: np.random.Generator, wall: Wall) -> Floats:
    """Return the shading, about 1, of what is broader or finer than folds."""
    hollows = cv2.exp(np.float32(0.2) * smooth_noise(random, wall.x.shape, 3))
    wrinkles = np.float32(random.uniform(0.02, 0.09)) * ring_noise(random, TEXTURE, 8, stretch=6)
    grain = np.float32(random.uniform(0.01, 0.04)) * ring_noise(random, TEXTURE, 64)
    return hollows * wall.lay(1 + wrinkles + grain)


def _gloss(random: np.random.Generator, wall: Wall, rim: Floats, light: Floats) -> Floats:
    """Return glints: in wet places, most of them on the rims of folds, drawn out along them."""
    wet = smooth_noise(random, wall.x.shape, 6) + rim
    drops = smooth_noise(random, wall.x.shape, 72) + np.float32(0.7) * wall.lay(ring_noise(random, TEXTURE, 64, stretch=2))
    level = np.float32(random.uniform(2.0, 3.4))
    return np.clip(2 * (drops * np.clip(wet, 0, 1.5) - level), 0, 1) * np.minimum(2.5 * light, 1)
