"""Polyps: rounded bumps on the wall, some with a stalk."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.phantom.wall import Floats, Mucosa, Tint, Wall, smooth_noise, with_glints

Mask = NDArray[np.bool_]

_LUMEN = 0.25
"""Minimum radius of a ring that a polyp may be on; smaller rings are too far away."""
_WITH_STALK = 0.35
"""Fraction of the polyps with a stalk."""


@dataclass(frozen=True)
class Place:
    """A circle around a polyp, in pixels."""

    x: int
    y: int
    reach: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the slices of the square around the circle in an array (H, W, ...)."""
        return slice(self.y - self.reach, self.y + self.reach + 1), slice(self.x - self.reach, self.x + self.reach + 1)


def draw_polyp(
    random: np.random.Generator, image: Floats, wall: Wall, mucosa: Mucosa, tint: Tint, free: Mask, size: float
) -> Mask:
    """Draw a polyp into an image; nothing changes outside the returned mask, so the polyp casts no shadow.

    Args:
        random: generator of the polyp.
        image: float32, shape (H, W, 3), RGB in [0, 1], written in place.
        wall: geometry of the wall.
        mucosa: light on the wall.
        tint: colour of the tissue.
        free: bool, shape (H, W), where it may be visible.
        size: maximum diameter in pixels; smaller if there is no space.

    Returns:
        bool, shape (H, W), True on its silhouette.
    """
    place = find_place(random, free & (wall.radius > _LUMEN), size / 2)
    patch = place.slices
    near_x, near_y = _outwards(wall.radius[patch])
    make = _stalked if random.random() < _WITH_STALK else _sessile
    height = make(random, place.reach, np.arctan2(near_y, near_x))
    lit, glint = _lighting(random, height, (float(wall.x[place.y, place.x]), float(wall.y[place.y, place.x])))
    # It protrudes from the wall towards the lamp, so it is brighter.
    around = np.clip(cv2.blur(mucosa.light[patch], (place.reach, place.reach)), 0.4, 1.2) * np.float32(random.uniform(1.1, 1.8))
    own = _own_tint(random, tint).exposed(lit * around, _mottling(random, height.shape))
    cover = _cover(height, near_x, near_y)
    image[patch] += cover[..., None] * (with_glints(own, glint) - image[patch])
    mask = np.zeros(free.shape, bool)
    mask[patch] = cover > 0
    return mask


def find_place(random: np.random.Generator, free: Mask, reach: float) -> Place:
    """Draw a random position at which a polyp fits; if there is none, take the widest and a smaller radius."""
    # The frame's edge counts as taken.
    framed = cv2.copyMakeBorder(free.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    room = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] - 1
    reach = min(reach, float(room.max()))
    fits = np.flatnonzero(room >= reach)
    y, x = divmod(int(fits[random.integers(len(fits))]), free.shape[1])
    return Place(x, y, int(reach))


def _outwards(radius: Floats) -> tuple[float, float]:
    """Return the direction, x and y of length 1, in which the wall approaches the camera."""
    x, y = float(np.mean(radius[:, -1] - radius[:, 0])), float(np.mean(radius[-1] - radius[0]))
    length = float(np.hypot(x, y)) or 1.0
    return x / length, y / length


def _cover(height: Floats, near_x: float, near_y: float) -> Floats:
    """Return the opacity of a bump, 0 to 1; its near side blends into the wall."""
    reach = height.shape[0] // 2
    inside = cv2.distanceTransform((height > 0).astype(np.uint8), cv2.DIST_L2, 5)
    x, y = _square(reach)
    soft = 2 + np.float32(0.9 * reach) * np.clip(x * np.float32(near_x) + y * np.float32(near_y) - np.float32(0.35), 0, 1)
    cover = np.minimum(inside / soft, 1)
    # A polyp that is indistinct from the wall is dropped.
    return np.where(cover > 0.1, cover, np.float32(0))


def _square(reach: int) -> tuple[Floats, Floats]:
    """Return x and y, each (2 reach + 1, 2 reach + 1), from -1 to 1 over the square around a place."""
    line = np.linspace(-1, 1, 2 * reach + 1, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


def _sessile(random: np.random.Generator, reach: int, _: float) -> Floats:
    """Return the height in pixels of a bump that sits on the wall."""
    x, y = _square(reach)
    return _dome(random, x, y, 1.0) * np.float32(reach * random.uniform(0.5, 0.9))


def _stalked(random: np.random.Generator, reach: int, outwards: float) -> Floats:
    """Return the height in pixels of a head on a stalk, whose foot points roughly in a direction in radians."""
    x, y = _square(reach)
    direction = outwards + random.uniform(-0.9, 0.9)
    to_x, to_y = np.float32(np.cos(direction)), np.float32(np.sin(direction))
    along, across = x * to_x + y * to_y, y * to_x - x * to_y
    head = random.uniform(0.6, 0.72)
    top = _dome(random, x + np.float32(1 - head) * to_x, y + np.float32(1 - head) * to_y, head) * np.float32(0.85 * head)
    # From the head's middle to the rim of the circle, a little bent, wider at its foot.
    bent = across - np.float32(random.uniform(-0.3, 0.3)) * (along + np.float32(1 - head)) * (1 - along)
    wide = np.float32(0.5 * head) * (1 + np.float32(0.5) * np.maximum(along, 0) ** 2)
    foot = np.maximum(along - np.float32(0.5), 0) * (wide / np.float32(0.5))
    stalk = np.sqrt(np.maximum(wide**2 - bent**2 - foot**2, 0)) * ((along > head - 1) & (x**2 + y**2 < 1))
    return np.maximum(top, np.float32(0.6) * stalk) * np.float32(reach)


def _dome(random: np.random.Generator, x: Floats, y: Floats, radius: float) -> Floats:
    """Return the height, 0 to 1, of a rounded, slightly lobed bump within `radius` of the origin."""
    turn, flat = random.uniform(0, 2 * np.pi), random.uniform(0.7, 1.0)
    long, short = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / flat
    distance, angle = cv2.cartToPolar(long.astype(np.float32), short.astype(np.float32))
    # Lobes stay within the circle.
    lobes = sum(random.uniform(0, 0.1) / n * (np.cos(n * angle + random.uniform(0, 2 * np.pi)) - 1) for n in range(2, 6))
    share = distance / (np.float32(radius) * np.exp(lobes))
    return np.sqrt(np.maximum(1 - share**2, 0)).astype(np.float32)


def _lighting(random: np.random.Generator, height: Floats, at: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the light on a bump, 0 and up, and its glints, 0 to 1; the lamp is at the lens.

    Args:
        random: generator of the roughness.
        height: in pixels, (S, S).
        at: x and y of the bump relative to the frame's centre, in half heights of the frame.
    """
    rough = height * (1 + np.float32(random.uniform(0.01, 0.05)) * smooth_noise(random, height.shape, 7))
    slope_x, slope_y = cv2.Sobel(rough, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(rough, cv2.CV_32F, 0, 1) / 8
    lamp = np.array([-0.6 * at[0], -0.6 * at[1], 1.0])
    lamp /= np.linalg.norm(lamp)
    steep = np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = (np.float32(lamp[2]) - np.float32(lamp[0]) * slope_x - np.float32(lamp[1]) * slope_y) / steep
    lit = np.float32(0.3) + np.float32(random.uniform(0.75, 1.0)) * np.maximum(facing, 0)
    wet = np.float32(0.012) * smooth_noise(random, height.shape, 9)
    glint = np.clip(np.float32(45) * (facing + wet - np.float32(random.uniform(0.955, 0.99))), 0, 1)
    # Stalks are low, and dull.
    return lit, glint * (height > height.max() / 2)


def _own_tint(random: np.random.Generator, tint: Tint) -> Tint:
    """Return the colour of a polyp: paler or redder than the surrounding tissue."""
    paler = random.uniform(0.7, 1.25)
    return Tint(tint.red * random.uniform(1.0, 1.25), tint.green * paler, tint.blue * paler * random.uniform(0.95, 1.15))


def _mottling(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.float32(random.uniform(0.02, 0.15)) * smooth_noise(random, shape, 6)
