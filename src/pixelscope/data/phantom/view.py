"""Where the camera looks in the bowel: how far along and around its wall each pixel lies."""

from dataclasses import dataclass

import cv2
import numpy as np

from pixelscope.data.phantom.fields import Floats

TEXTURE = (128, 256)
"""Rows (along) and columns (around) of the textures that are laid on the wall."""
_FARTHEST = 2.2
"""Where they begin: at the ring whose radius has this negative logarithm."""


@dataclass(frozen=True)
class Wall:
    """What each pixel (H, W) sees of a bent tube from inside; lengths in half heights of the frame."""

    x: Floats
    """Rightwards from the frame's centre."""
    y: Floats
    """Downwards from the frame's centre."""
    radius: Floats
    """Of the ring of the wall through the pixel, as it appears: small far away in the lumen, large near the camera."""
    angle: Floats
    """Around the tube, in turns, 0 to 1."""
    columns: Floats
    """Of the textures that are laid on the wall."""
    rows: Floats
    """Of those textures."""

    def lay(self, texture: Floats) -> Floats:
        """Return how a texture looks on the wall: the farther away, the finer.

        Args:
            texture: float32, of the shape `TEXTURE`; its right edge meets its left one.

        Returns:
            float32, shape (H, W).
        """
        closed = cv2.copyMakeBorder(texture, 0, 0, 0, 1, cv2.BORDER_WRAP)
        return cv2.remap(closed, self.columns, self.rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def look(random: np.random.Generator, shape: tuple[int, int]) -> Wall:
    """Draw a direction of view, and return what a camera sees there.

    Rings of the wall appear as circles. The far ones lie around the lumen, the near ones around the frame's centre, as in
    a tube that bends: |p - c (1 - radius / near)| = radius for a pixel p and a lumen at c.
    """
    height, width = shape
    x = ((2 * np.arange(width) + 1 - width) / height).astype(np.float32)[None]
    y = ((2 * np.arange(height) + 1 - height) / height).astype(np.float32)[:, None]
    away, direction = random.uniform(0.05, 0.95), random.uniform(0, 2 * np.pi)
    lumen_x, lumen_y = np.float32(1.15 * away * np.cos(direction)), np.float32(away * np.sin(direction))
    near = np.float32(random.uniform(1.5, 2.2))
    bend_x, bend_y = lumen_x / near, lumen_y / near
    along = (x - lumen_x) * bend_x + (y - lumen_y) * bend_y
    room = 1 - bend_x**2 - bend_y**2
    radius = (along + np.sqrt(along**2 + room * ((x - lumen_x) ** 2 + (y - lumen_y) ** 2))) / room
    radius = np.maximum(radius, np.float32(1e-3))
    turns = cv2.phase(x - lumen_x + bend_x * radius, y - lumen_y + bend_y * radius) / np.float32(2 * np.pi)
    # The logarithm keeps the textures' proportions, as in the complex plane.
    rows = (cv2.log(radius) + np.float32(_FARTHEST)) * np.float32(TEXTURE[1] / (2 * np.pi))
    x, y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    return Wall(x, y, radius, turns, turns * np.float32(TEXTURE[1]), rows)
