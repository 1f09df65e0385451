"""One drawn endoscopy frame, put together from its parts."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.phantom.colour import Tint, as_bytes, draw_tint, with_glints
from pixelscope.data.phantom.fields import Floats, smooth_noise
from pixelscope.data.phantom.mucosa import Mucosa, draw_mucosa
from pixelscope.data.phantom.overlay import draw_overlay
from pixelscope.data.phantom.polyp import draw_polyp
from pixelscope.data.phantom.vessels import draw_vessels
from pixelscope.data.phantom.view import look
from pixelscope.errors import InputError
from pixelscope.imaging.box import Box

WIDTH, HEIGHT = 360, 300
SMALLEST = 96
"""Least width and height in pixels at which every part still has its place."""
DIAMETERS = (0.15, 0.45)
"""Least and greatest of a polyp, as shares of the frame's width; those of half of Kvasir's are from 0.27 to 0.48."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PhantomFrame:
    """A drawn frame, and what is known of it exactly."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    lesion: Mask
    """(H, W), True on the polyp's silhouette as it is seen; without the polyp, all other pixels would be the same."""
    content: Box
    """Bounding box of the octagon through which the picture shows."""
    inset: Box | None
    """The green or black box in the lower left, its frame included; None where there is none."""


def draw_frame(seed: int, *, polyp: bool, width: int = WIDTH, height: int = HEIGHT) -> PhantomFrame:
    """Draw what a colonoscope shows.

    Args:
        seed: 0 or more; the view, the wall, the border and the noise depend on it alone, and not on `polyp`.
        polyp: put a polyp on the wall.
        width: of the frame, in pixels.
        height: of the frame, in pixels.

    Raises:
        InputError: the seed is negative, or the frame smaller than 96 pixels.
    """
    if seed < 0 or min(width, height) < SMALLEST:
        raise InputError(
            f"No frame of {width} x {height} pixels can be drawn from the seed {seed}; give a seed of 0 or more, and a width "
            f"and height of {SMALLEST} or more."
        )
    # Draws of their own, so that a polyp changes nothing beside itself.
    view, bump, sensor = (np.random.default_rng([seed, part]) for part in range(3))
    overlay = draw_overlay(view, width, height)
    window = overlay.content.slices
    free = ~overlay.covers[window]
    size = width * bump.uniform(*DIAMETERS) if polyp else 0.0
    picture, silhouette = _draw_picture(view, bump, free, size)
    noise = sensor.standard_normal(free.shape, np.float32) * np.float32(sensor.uniform(0.006, 0.016))
    image, lesion = overlay.pixels, np.zeros((height, width), bool)
    cv2.copyTo(as_bytes(picture, noise), free.astype(np.uint8), image[window])
    lesion[window] = silhouette
    return PhantomFrame(image, lesion, overlay.content, overlay.inset)


def _draw_picture(view: np.random.Generator, bump: np.random.Generator, free: Mask, size: float) -> tuple[Floats, Mask]:
    """Return the picture, RGB in [0, 1], and the silhouette of a polyp of a diameter of `size` pixels; 0 for none.

    Args:
        view: where the view is drawn from.
        bump: where the polyp is drawn from.
        free: (H, W), where the picture is seen.
        size: in pixels.
    """
    wall = look(view, free.shape)
    mucosa, tint = draw_mucosa(view, wall), draw_tint(view)
    picture = cv2.GaussianBlur(_expose(view, mucosa, tint), (5, 5), view.uniform(0.5, 0.9))
    if not size:
        return picture, np.zeros(free.shape, bool)
    return picture, draw_polyp(bump, picture, wall, mucosa, tint, free, size)


def _expose(random: np.random.Generator, mucosa: Mucosa, tint: Tint) -> Floats:
    """Return the wall's picture, RGB in [0, 1]: its blood, its colour, its glints."""
    shape = mucosa.light.shape
    vessels = np.float32(random.choice([0.0, 0.35, 0.7])) * draw_vessels(random, shape)
    flush = np.float32(0.1) * smooth_noise(random, shape, 5) + np.float32(0.05) * smooth_noise(random, shape, 24)
    return with_glints(tint.exposed(mucosa.light * (1 - np.float32(0.3) * vessels), vessels + flush), mucosa.gloss)
