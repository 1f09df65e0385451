"""Synthetic endoscopy frames: colon, octagon and inset, and folders of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from pixelscope.data.phantom.colon import (
    Floats,
    Mucosa,
    Tint,
    as_bytes,
    draw_mucosa,
    draw_polyp,
    draw_tint,
    draw_vessels,
    draw_wall,
    smooth_noise,
    with_glints,
)
from pixelscope.data.sources.listing import PHANTOM_RECORD
from pixelscope.errors import InputError
from pixelscope.files import atomic_folder, write_text
from pixelscope.imaging.content_area import Box

WIDTH, HEIGHT = 360, 300
SMALLEST = 96
"""Minimum width and height in pixels at which every part fits."""
DIAMETERS = (0.15, 0.45)
"""Minimum and maximum diameter of a polyp, as fractions of the frame's width; half of Kvasir's are between 0.27 and 0.48."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PhantomFrame:
    """A synthetic frame with its ground truth."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    lesion: Mask
    """(H, W), True on the visible silhouette of the polyp; without the polyp, all other pixels would be the same."""
    content: Box
    """Bounding box of the visible octagon."""
    inset: Box | None
    """Green or black box in the lower left, with its frame; None if there is none."""


def draw_frame(seed: int, *, polyp: bool, width: int = WIDTH, height: int = HEIGHT) -> PhantomFrame:
    """Draw a synthetic endoscopy frame.

    Args:
        seed: 0 or more; view, wall, border and noise depend on it alone, not on `polyp`.
        polyp: put a polyp on the wall.
        width: width of the frame in pixels.
        height: height of the frame in pixels.

    Raises:
        InputError: the seed is negative, or the frame is smaller than 96 pixels.
    """
    if seed < 0 or min(width, height) < SMALLEST:
        raise InputError(
            f"No frame of {width} x {height} pixels can be drawn from the seed {seed}; give a seed of 0 or more, and a width "
            f"and height of {SMALLEST} or more."
        )
    # Separate draws, so that a polyp changes nothing outside itself.
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
    """Return the image, RGB in [0, 1], and the silhouette of a polyp with a diameter of `size` pixels; 0 for none.

    Args:
        view: generator of the view.
        bump: generator of the polyp.
        free: (H, W), where the image is visible.
        size: diameter in pixels.
    """
    wall = draw_wall(view, free.shape)
    mucosa, tint = draw_mucosa(view, wall), draw_tint(view)
    picture = cv2.GaussianBlur(_expose(view, mucosa, tint), (5, 5), view.uniform(0.5, 0.9))
    if not size:
        return picture, np.zeros(free.shape, bool)
    return picture, draw_polyp(bump, picture, wall, mucosa, tint, free, size)


def _expose(random: np.random.Generator, mucosa: Mucosa, tint: Tint) -> Floats:
    """Return the image of the wall, RGB in [0, 1]: blood, colour, glints."""
    shape = mucosa.light.shape
    vessels = np.float32(random.choice([0.0, 0.35, 0.7])) * draw_vessels(random, shape)
    flush = np.float32(0.1) * smooth_noise(random, shape, 5) + np.float32(0.05) * smooth_noise(random, shape, 24)
    return with_glints(tint.exposed(mucosa.light * (1 - np.float32(0.3) * vessels), vessels + flush), mucosa.gloss)


Bytes = NDArray[np.uint8]

_GREEN = (5, 185, 144)
_GREY = (150, 140, 170)
_WHITE = 225


@dataclass(frozen=True)
class Overlay:
    """What covers the image: border, text and inset."""

    pixels: Bytes
    """(H, W, 3), RGB."""
    covers: NDArray[np.bool_]
    """(H, W), True where `pixels` are visible."""
    content: Box
    """Bounding box of the visible octagon."""
    inset: Box | None
    """Green or black box in the lower left, with its frame."""


def draw_overlay(random: np.random.Generator, width: int, height: int) -> Overlay:
    """Draw border, text and inset of a frame."""
    content = _content(random, width, height)
    border = np.ones((height, width), np.uint8)
    cv2.fillConvexPoly(border, _octagon(random, content), 0)
    pixels = np.zeros((height, width, 3), np.uint8)
    inset = _inset_box(random, content) if random.random() < 0.7 else None
    text = _text(random, width, height)
    pixels[text > 0] = text[text > 0, None]
    covers = (border > 0) | (text > 0)
    if inset is not None:
        pixels[inset.slices] = _inset(random, inset) if random.random() < 0.4 else 0
        covers[inset.slices] = True
    return Overlay(pixels, covers, content, inset)


def _content(random: np.random.Generator, width: int, height: int) -> Box:
    left, right = round(width * random.uniform(0.02, 0.12)), round(width * random.uniform(0.01, 0.08))
    top, bottom = round(height * random.uniform(0, 0.05)), round(height * random.uniform(0, 0.05))
    return Box(left, top, width - left - right, height - top - bottom)


def _octagon(random: np.random.Generator, box: Box) -> NDArray[np.int32]:
    """Return the eight corners, x and y, of a box with cut corners."""
    cut = box.height * (random.uniform(0.18, 0.24) + random.uniform(-0.02, 0.02, 4))
    left, top, right, bottom = box.left, box.top, box.left + box.width - 1, box.top + box.height - 1
    corners = [
        (left, top + cut[0]), (left + cut[0], top), (right - cut[1], top), (right, top + cut[1]),
        (right, bottom - cut[2]), (right - cut[2], bottom), (left + cut[3], bottom), (left, bottom - cut[3]),
    ]  # fmt: skip
    return np.round(corners).astype(np.int32)


def _inset_box(random: np.random.Generator, content: Box) -> Box:
    width, height = round(content.width * random.uniform(0.3, 0.32)), round(content.height * random.uniform(0.31, 0.33))
    return Box(content.left, content.top + content.height - height, width, height)


def _inset(random: np.random.Generator, box: Box) -> Bytes:
    """Return the image of a scope guide: two green views of the endoscope in a black frame."""
    pixels = np.zeros((box.height, box.width, 3), np.uint8)
    frame = max(2, box.height // 20)
    cv2.rectangle(pixels, (frame, frame), (box.width - frame - 1, box.height - frame - 1), _GREEN, cv2.FILLED)
    cv2.line(pixels, (box.width // 2, frame), (box.width // 2, box.height - frame - 1), (0, 120, 95), 1)
    for half in range(2):
        start = np.array([box.width * (0.12 + 0.46 * half), box.height * 0.85])
        turns = np.cumsum(random.normal(0, 0.35, 16)) - np.pi / 3
        steps = np.stack([np.cos(turns), np.sin(turns)], 1) * box.height / 24
        points = np.clip(start + np.cumsum(steps, 0), frame + 2, (box.width - frame - 3, box.height - frame - 3))
        cv2.polylines(pixels, [np.round(points * 8).astype(np.int32)], False, _GREY, max(1, box.height // 40), cv2.LINE_AA, 3)
    return pixels


def _text(random: np.random.Generator, width: int, height: int) -> Bytes:
    """Return burned-in lines of text, uint8 (H, W), 0 elsewhere."""
    day, month, year = random.integers(1, 29), random.integers(1, 13), random.integers(2010, 2021)
    hour, minute, second = random.integers(0, 24), *random.integers(0, 60, 2)
    lines = ["ID:", "Name:", "", "Sex:  Age:", "D.O.B.:", f"{day:02}/{month:02}/{year}", f"{hour:02}:{minute:02}:{second:02}"]
    lines = lines[int(random.choice([0, 5])) :]
    canvas = np.zeros((height, width), np.uint8)
    size, top = height / 300, random.uniform(0.1, 0.25) * height
    for number, line in enumerate(lines):
        place = (round(4 * size), round(top + 11 * size * number))
        cv2.putText(canvas, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.26 * size, _WHITE, 1, cv2.LINE_AA)
    return canvas


NORMAL, POLYPS, MASKS = "normal-phantom", "polyps", "polyp-masks"
"""Folders of frames without a polyp, of frames with one, and of masks."""
DRAWING = 1
"""Version of the drawing; it is increased whenever the same seed draws another frame."""

_QUALITY = 92


def write_phantom(folder: Path, *, normal: int, polyps: int, seed: int) -> Path:
    """Write synthetic frames as `normal-phantom/*.jpg` and `polyps/*.jpg`, and masks of the polyps as `polyp-masks/*.png`.

    Every frame shows another view. The same seed gives the same files with the same versions of NumPy and OpenCV; a larger
    number starts with the same frames. The folder appears when all are written; if it already has these frames, nothing is
    written.

    Args:
        folder: folder to write; it must not exist, be empty, or have the frames of the same call.
        normal: number of frames without a polyp.
        polyps: number of frames with one.
        seed: 0 or more.

    Returns:
        `folder`.

    Raises:
        InputError: there are no frames, a number is negative, or the folder has other content.
    """
    if min(normal, polyps, seed) < 0 or normal + polyps == 0:
        raise InputError(
            f"{normal} normal frames and {polyps} with polyps cannot be drawn from the seed {seed}; give numbers of 0 or more, "
            "and at least one frame."
        )
    recipe = {"drawing": DRAWING, "normal": normal, "polyps": polyps, "seed": seed}
    if not _is_free(folder, recipe):
        return folder
    # An empty folder of this name is replaced, as by any rename.
    with atomic_folder(folder) as work:
        _write_frames(work, seed, normal, polyps)
        write_text(work / PHANTOM_RECORD, json.dumps(recipe, indent=2) + "\n")
    return folder


def _is_free(folder: Path, recipe: dict[str, int]) -> bool:
    """Return whether `folder` can be written; False if it already has what `recipe` describes."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return True
    if not _holds(folder, recipe):
        raise InputError(f"{folder} exists and has other content; remove it, or choose another folder.")
    return False


def _holds(folder: Path, recipe: dict[str, int]) -> bool:
    try:
        found = json.loads((folder / PHANTOM_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    parts = {NORMAL: recipe["normal"], POLYPS: recipe["polyps"], MASKS: recipe["polyps"]}
    return found == recipe and all(len(list((folder / name).glob("*.*"))) == count for name, count in parts.items())


def _write_frames(folder: Path, seed: int, normal: int, polyps: int) -> None:
    for kind, (name, count) in enumerate(((NORMAL, normal), (POLYPS, polyps))):
        # A class without frames has no folder.
        for number, own_seed in enumerate(np.random.SeedSequence([seed, kind]).generate_state(count, np.uint64)):
            frame = draw_frame(int(own_seed), polyp=name == POLYPS)
            pixels = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            _write(folder / name / f"{number:04}.jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, _QUALITY)
            if name == POLYPS:
                _write(folder / MASKS / f"{number:04}.png", 255 * frame.lesion.astype(np.uint8))


def _write(path: Path, pixels: MatLike, *options: int) -> None:
    # By way of memory: OpenCV's own writing to files fails without a word where the disk is full.
    encoded = cv2.imencode(path.suffix, pixels, options)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
