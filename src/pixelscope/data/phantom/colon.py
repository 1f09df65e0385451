"""The inside of a colon: geometry of the wall, light with folds and glints, colour, vessels, and polyps.

Polyps are rounded bumps on the wall, some with a stalk.
"""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

Floats: TypeAlias = MatLike
"""float32 arrays, as OpenCV uses them."""
Mask = NDArray[np.bool_]

TEXTURE = (128, 256)
"""Rows (along) and columns (around) of the textures on the wall."""
_FARTHEST = 2.2
"""Negative logarithm of the radius of the ring at which textures start."""
_VISIBLE_FOLDS = 24
_VESSEL_POINTS = 24
"""Points per line of a vessel."""
_VESSEL_BRIGHTNESS = (255, 200, 140)
"""Brightness of trunks, branches and twigs on the canvas."""
_MIN_POLYP_RING = 0.25
"""Minimum radius of a ring that a polyp may be on; smaller rings are too far away."""
_WITH_STALK = 0.35
"""Fraction of the polyps with a stalk."""


def smooth_noise(random: np.random.Generator, shape: tuple[int, int], cells: int) -> Floats:
    """Draw smooth noise with a standard deviation of 1 at its nodes.

    Args:
        random: generator of the noise.
        shape: height and width of the field.
        cells: distances between nodes along the width; along the height in proportion.

    Returns:
        float32, of that shape.
    """
    height, width = shape
    nodes = random.standard_normal((round(cells * height / width) + 1, cells + 1), np.float32)
    return cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def ring_noise(random: np.random.Generator, shape: tuple[int, int], cells: int, stretch: int = 1) -> Floats:
    """Draw noise that continues smoothly from its right edge to its left edge, to be wrapped around the wall.

    Args:
        random: generator of the noise.
        shape: height and width of the field, the width a power of 2.
        cells: nodes around, a power of 2 up to half of the width.
        stretch: ratio of the features' length around the wall to that along it.

    Returns:
        float32, of that shape.
    """
    rows, columns = shape
    nodes = random.standard_normal((max(1, round(cells * stretch * rows / columns)) + 1, cells), np.float32)
    nodes = np.concatenate([nodes[:, -2:], nodes, nodes[:, :2]], 1)
    step = columns // cells
    field = cv2.resize(nodes, (columns + 4 * step, rows), interpolation=cv2.INTER_CUBIC)
    return field[:, 2 * step : -2 * step].astype(np.float32)


@dataclass(frozen=True)
class Tint:
    """Colour of the tissue under the lamp: reflectance per channel times exposure."""

    red: float
    green: float
    blue: float

    def exposed(self, light: Floats, blood: Floats) -> Floats:
        """Return what a saturating sensor records: 1 - exp(-light * tint).

        Args:
            light: (H, W), 0 and up.
            blood: (H, W), about 0; higher values reflect less green and blue.

        Returns:
            float32, shape (H, W, 3), RGB in [0, 1].
        """
        pale = light * np.exp(-blood)
        channels = (light * np.float32(self.red), pale * np.float32(self.green), pale * np.float32(self.blue))
        return 1 - cv2.exp(cv2.merge([-channel for channel in channels]))


def draw_tint(random: np.random.Generator) -> Tint:
    """Draw the tissue's colour: from orange to pink, from dim to bright."""
    red = random.uniform(1.3, 2.0)
    return Tint(red, red * random.uniform(0.33, 0.45), red * random.uniform(0.17, 0.3))


def with_glints(image: Floats, glints: Floats) -> Floats:
    """Return an image (H, W, 3) with white glints (H, W), both in [0, 1]."""
    return image + cv2.merge([glints] * 3) * (1 - image)


def as_bytes(image: Floats, noise: Floats) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in [0, 1] with sensor noise (H, W), as uint8."""
    # NumPy would spread the noise over the channels at five times the cost.
    return np.clip(255 * (image + cv2.merge([noise] * 3)) + np.float32(0.5), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Wall:
    """Geometry of a bent tube seen from inside, per pixel (H, W); lengths in half heights of the frame."""

    x: Floats
    """Rightwards from the frame's centre."""
    y: Floats
    """Downwards from the frame's centre."""
    radius: Floats
    """Apparent radius of the ring through the pixel: small far away in the lumen, large near the camera."""
    angle: Floats
    """Angle around the tube, in turns, 0 to 1."""
    columns: Floats
    """Column in the textures."""
    rows: Floats
    """Row in the textures."""

    def project(self, texture: Floats) -> Floats:
        """Return a texture projected on the wall; it is finer farther away.

        Args:
            texture: float32, of the shape `TEXTURE`; its right edge continues at its left edge.

        Returns:
            float32, shape (H, W).
        """
        closed = cv2.copyMakeBorder(texture, 0, 0, 0, 1, cv2.BORDER_WRAP)
        return cv2.remap(closed, self.columns, self.rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def draw_wall(random: np.random.Generator, shape: tuple[int, int]) -> Wall:
    """Draw a viewing direction, and return the geometry of the wall seen there.

    Rings of the wall appear as circles. Far rings are centred on the lumen, near ones on the frame's centre, as in a bent
    tube: |p - c (1 - radius / near)| = radius for a pixel p and a lumen at c.
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


@dataclass(frozen=True)
class Mucosa:
    """Light on the wall, each (H, W)."""

    light: Floats
    """Brightness of a white wall, 0 and up; 1 is well lit."""
    gloss: Floats
    """Strength of glints, 0 to 1."""


def draw_mucosa(random: np.random.Generator, wall: Wall) -> Mucosa:
    """Draw the light on the wall that a camera sees."""
    folds, rim = _folds(random, wall)
    light = _falloff(random, wall) * folds * _relief(random, wall) * _glare(random, wall)
    return Mucosa(light, _gloss(random, wall, rim, light))


def _folds(random: np.random.Generator, wall: Wall) -> tuple[Floats, Floats]:
    """Return the shading by folds, about 1, and the closeness of each pixel to a fold's rim, 0 to 1.

    Outwards from its rim a fold recedes and darkens, up to the rim of the next fold, which hides the rest.
    """
    broad, narrow = ring_noise(random, TEXTURE, 4), ring_noise(random, TEXTURE, 16)
    warp = wall.project(np.float32(random.uniform(0.2, 0.5)) * broad + np.float32(random.uniform(0, 0.06)) * narrow)
    warp += np.float32(random.uniform(0, 0.3)) * np.cos(2 * np.pi * (wall.angle - np.float32(random.random())))
    depth = np.float32(random.uniform(0.8, 2.2)) * cv2.pow(wall.radius * cv2.exp(warp), -random.uniform(0.5, 0.9))
    depth += np.float32(random.random())
    fold = np.floor(depth)
    behind = ((1 - (depth - fold)) * 255).astype(np.uint8)
    height = _fold_heights(random, wall, fold)
    return 1 - height * cv2.LUT(behind, _SHADE), height * cv2.LUT(behind, _RIM)


def _fold_heights(random: np.random.Generator, wall: Wall, fold: Floats) -> Floats:
    """Return the height of the fold at each pixel, 0 to 1; few folds go all the way around."""
    table = ring_noise(random, (_VISIBLE_FOLDS, 256), 4, stretch=64)
    table = np.clip(np.float32(random.uniform(0.3, 0.75)) + np.float32(0.5) * table, 0, 1)
    return cv2.remap(table, wall.angle * np.float32(table.shape[1] - 1), np.clip(fold, 0, _VISIBLE_FOLDS - 1), cv2.INTER_LINEAR)


def _shade_of_a_fold() -> Floats:
    """Return the fraction of light that a fold absorbs, at 256 positions from its rim to the rim that hides it."""
    behind = np.arange(256) / 255
    shade = 0.8 * behind**1.5 - 0.4 * np.exp(-(((behind - 0.1) / 0.12) ** 2)) + 0.25 * np.exp(-behind / 0.03)
    # Blurred across the rim, so that its edge is not ragged.
    blur = np.exp(-((np.arange(-12, 13) / 3.5) ** 2))
    return np.convolve(np.pad(shade, 12, "wrap"), blur / blur.sum(), "valid").astype(np.float32)


_SHADE = _shade_of_a_fold()
_RIM = np.exp(-(((np.arange(256) / 255 - 0.1) / 0.09) ** 2)).astype(np.float32)


def _falloff(random: np.random.Generator, wall: Wall) -> Floats:
    """Return the camera's own light: weak deep in the lumen and in the frame's corners."""
    dark = np.float32(random.uniform(0.1, 0.45) ** 2)
    least = np.float32(0.02 + 0.25 * random.random() ** 3)
    square = wall.radius**2
    corners = 1 - np.float32(random.uniform(0.1, 0.25)) * (wall.x**2 + wall.y**2)
    return (least + (1 - least) * square / (square + dark)) * corners


def _glare(random: np.random.Generator, wall: Wall) -> Floats:
    """Return the extra light on a wall close to the lens on one side of the frame, 1 and up."""
    direction = random.uniform(0, 2 * np.pi)
    side = (
        wall.x * np.float32(np.cos(direction)) + wall.y * np.float32(np.sin(direction)) - np.float32(random.uniform(0.1, 0.8))
    )
    return 1 + np.float32(random.choice([0.0, 0.7, 2.0])) * np.maximum(side, 0) ** 2


def _relief(random: np.random.Generator, wall: Wall) -> Floats:
    """Return the shading, about 1, of structures broader or finer than folds."""
    hollows = cv2.exp(np.float32(0.2) * smooth_noise(random, wall.x.shape, 3))
    wrinkles = np.float32(random.uniform(0.02, 0.09)) * ring_noise(random, TEXTURE, 8, stretch=6)
    grain = np.float32(random.uniform(0.01, 0.04)) * ring_noise(random, TEXTURE, 64)
    return hollows * wall.project(1 + wrinkles + grain)


def _gloss(random: np.random.Generator, wall: Wall, rim: Floats, light: Floats) -> Floats:
    """Return glints: in wet places, mostly on the rims of folds, elongated along them."""
    wet = smooth_noise(random, wall.x.shape, 6) + rim
    drops = smooth_noise(random, wall.x.shape, 72) + np.float32(0.7) * wall.project(ring_noise(random, TEXTURE, 64, stretch=2))
    level = np.float32(random.uniform(2.0, 3.4))
    return np.clip(2 * (drops * np.clip(wet, 0, 1.5) - level), 0, 1) * np.minimum(2.5 * light, 1)


def draw_vessels(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Draw vessels on a canvas.

    Returns:
        float32, shape (H, W): 0 between vessels, up to 1 on them.
    """
    canvas = np.zeros(shape, np.uint8)
    for level, lines in reversed(list(enumerate(_vessel_tree(random, shape)))):
        # Eighths of a pixel.
        points = list(np.round(lines * 8).astype(np.int32))
        cv2.polylines(canvas, points, False, _VESSEL_BRIGHTNESS[level], 1, cv2.LINE_AA, 3)
    shown = np.clip(0.5 + smooth_noise(random, shape, 4), 0, 1)
    return cv2.GaussianBlur(canvas, (3, 3), 0.6) * (shown / np.float32(255))


def _vessel_tree(random: np.random.Generator, shape: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Return the lines of trunks, branches and twigs, each (lines, points, 2) as x and y in pixels."""
    height, width = shape
    count = int(random.integers(6, 18))
    start = random.uniform(0, 1, (count, 2)) * (width, height)
    heading = random.uniform(0, 2 * np.pi, count)
    length = height * random.uniform(0.4, 0.9)
    levels = []
    for children in (4, 3, 0):
        headings = heading[:, None] + np.cumsum(random.normal(0, 0.22, (len(start), _VESSEL_POINTS)), 1)
        steps = length / _VESSEL_POINTS * np.stack([np.cos(headings), np.sin(headings)], -1)
        lines = start[:, None] + np.cumsum(steps, 1)
        levels.append(lines)
        parents = np.repeat(np.arange(len(lines)), children)
        forks = random.integers(3, _VESSEL_POINTS, len(parents))
        start = lines[parents, forks]
        heading = headings[parents, forks] + random.choice([-1, 1], len(parents)) * random.uniform(0.4, 1.0, len(parents))
        length *= 0.55
    return levels


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
    place = find_place(random, free & (wall.radius > _MIN_POLYP_RING), size / 2)
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
