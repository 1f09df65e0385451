"""Render labelled images: pictograms over crops of photos, as a camera might see them."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.formats.decode import image_size, load_stored, reject_decompression_bombs
from pixelscope.data.sources.listing import RENDER_RECORD, contents, is_passed_over, parts_among
from pixelscope.data.sources.mnist_m import photos_sha256, read_photo
from pixelscope.errors import InputError, plural
from pixelscope.files import atomic_folder, write_text
from pixelscope.imaging.config import RenderConfig
from pixelscope.imaging.convert import to_srgb
from pixelscope.runs.progress import ProgressCallback

Floats = NDArray[np.floating[Any] | np.integer[Any]]
"""Of type float32, as the type checker knows OpenCV's results."""
Random = np.random.Generator

SUPERSAMPLING = 4
"""Samples per output pixel and direction when a pictogram is warped."""


@dataclass(frozen=True)
class Rendered:
    """How a set was rendered, enough to render it again from the same pictograms and photos."""

    version: str
    """Version of Pixelscope."""
    seed: int
    settings: dict[str, Any]
    """Every setting of `RenderConfig`."""
    images: dict[str, int]
    """Number of images per class."""
    pictograms: dict[str, str]
    """SHA-256 of each pictogram by its name."""
    photos: int
    """Number of photos."""
    photos_sha256: str
    """SHA-256 of the names and contents of the photos."""
    notes: tuple[str, ...]
    """Notes on files that were not read."""

    def to_text(self) -> str:
        """Return text for a terminal."""
        count, size = sum(self.images.values()), self.settings["size"]
        made = f"{plural(count, 'image')} of {size} x {size} pixels in {plural(len(self.images), 'class')}"
        drawn = f"from {plural(len(self.pictograms), 'pictogram')} over {plural(self.photos, 'photo')}, seed {self.seed}"
        return "\n".join([*self.notes, f"{made}, {drawn}"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"notes": list(self.notes)}


class _Job(NamedTuple):
    """An image to render; `photo` is a position in the list of photos."""

    name: str
    index: int
    photo: int
    random: Random


def render_pictograms(
    pictograms: Path, photos: Path, out: Path, config: RenderConfig = RenderConfig(), progress: ProgressCallback | None = None
) -> Rendered:
    """Render a labelled set: pictograms rotated, sheared, scaled and shifted over crops of photos, then dimmed and blurred.

    An image is a function of the seed, its class, its number, the pictograms of its class and the photos; other classes and
    the number of images do not change it.

    Args:
        pictograms: folder of drawings on a transparent background: `CLASS.png`, or `CLASS/name.png` for classes with several,
            which take turns. Transparent margins are cropped.
        photos: folder of photos, at any depth, not smaller than the images.
        out: folder to make; it must not exist. Contents: CLASS/00000.png and so on, and the record pixelscope-render.json.
        config: number, size and seed of the images, and ranges of the variations.
        progress: called with the images done and all images.

    Returns:
        The content of pixelscope-render.json.

    Raises:
        InputError: `out` exists; a pictogram is unreadable, opaque or empty; a class has none; there are fewer than two
            classes; there are no photos, or one is unreadable or too small.

    Example:
        >>> config = pixelscope.RenderConfig(count=50)
        >>> pixelscope.render_pictograms(Path("pictograms"), Path("photos"), Path("rendered"), config)
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists already; remove it, or choose another --out.")
    _check_apart(pictograms, photos, out)
    drawings, sums, notes = _read_pictograms(pictograms)
    files, about_photos = _find_photos(photos, config.size)
    with atomic_folder(out) as work:
        for name in drawings:
            (work / name).mkdir()
        jobs = _jobs(list(drawings), len(files), config)
        for done, (job, image) in enumerate(_render_all(jobs, drawings, files, config), 1):
            Image.fromarray(image).save(work / job.name / f"{job.index:05d}.png")
            if progress is not None:
                progress(done, len(jobs))
        made = Rendered(
            version("pixelscope"), config.seed, config.model_dump(mode="json"), dict.fromkeys(drawings, config.count), sums,
            len(files), photos_sha256(photos, files), (*notes, *about_photos),
        )  # fmt: skip
        write_text(work / RENDER_RECORD, json.dumps(made.to_dict(), indent=1) + "\n")
    return made


def render(pictogram: Floats, photo: NDArray[np.uint8], config: RenderConfig, random: Random) -> NDArray[np.uint8]:
    """Render one image.

    Args:
        pictogram: RGBA in [0, 1], shape (H, W, 4), colours premultiplied by alpha.
        photo: uint8, shape (H, W, 3), no side below `config.size`.
        config: ranges of the variations.
        random: generator of all draws.

    Returns:
        uint8, shape (S, S, 3).
    """
    layer = warp(pictogram, config, random)
    background = _crop(photo, config, random) * _factor(config.background, random)
    image = layer[..., :3] + (1 - layer[..., 3:]) * np.minimum(background, 1)
    return _degrade(_light(image, config, random), config, random)


def warp(pictogram: Floats, config: RenderConfig, random: Random) -> Floats:
    """Return a pictogram rotated, sheared, scaled and shifted, antialiased; arrays as in `render`, result (S, S, 4).

    Colours stay premultiplied, so that the arbitrary colour of transparent pixels never mixes into an edge.
    """
    side = config.size * SUPERSAMPLING
    length = random.uniform(*config.scale) * side
    angle = np.deg2rad(random.uniform(-config.rotation, config.rotation))
    shear = random.uniform(-config.shear, config.shear, 2)
    shift = random.uniform(-config.shift, config.shift, 2) * side
    small = _reduced(pictogram, length)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[1, shear[0]], [shear[1], 1]]) * (length / max(small.shape[:2]))
    centre = (np.array(small.shape[1::-1]) - 1) / 2
    offset = (side - 1) / 2 + shift - linear @ centre
    warped = cv2.warpAffine(small, np.column_stack([linear, offset]), (side, side), flags=cv2.INTER_LINEAR)
    return np.clip(cv2.resize(warped, (config.size, config.size), interpolation=cv2.INTER_AREA), 0, 1)


def _reduced(pictogram: Floats, length: float) -> Floats:
    """Return a pictogram whose longer side is at most about `length` pixels, so that no warp skips its pixels."""
    factor = length / max(pictogram.shape[:2])
    if factor >= 1:
        return pictogram
    height, width = (max(1, round(side * factor)) for side in pictogram.shape[:2])
    return cv2.resize(pictogram, (width, height), interpolation=cv2.INTER_AREA)


def _crop(photo: NDArray[np.uint8], config: RenderConfig, random: Random) -> Floats:
    """Return a square crop of a photo in [0, 1], of random position and side, resized to (S, S, 3)."""
    side = min(round(config.size * random.uniform(*config.crop)), *photo.shape[:2])
    top, left = (random.random(2) * (np.array(photo.shape[:2]) - side + 1)).astype(int)
    crop = photo[top : top + side, left : left + side].astype(np.float32) / 255
    return cv2.resize(crop, (config.size, config.size), interpolation=cv2.INTER_AREA)


def _light(image: Floats, config: RenderConfig, random: Random) -> Floats:
    """Return an image with other contrast, saturation and brightness; channels differ slightly."""
    grey = image.mean(2, keepdims=True)
    dulled = grey + random.uniform(*config.saturation) * (image - grey)
    contrasted = image.mean() + random.uniform(*config.contrast) * (dulled - image.mean())
    channels = 1 + random.uniform(-config.colour, config.colour, 3)
    return (contrasted * (_factor(config.brightness, random) * channels)).astype(np.float32)


def _degrade(image: Floats, config: RenderConfig, random: Random) -> NDArray[np.uint8]:
    """Return an image as bytes, clipped as in overexposure, then blurred and noisy."""
    sigma = random.uniform(*config.blur) * config.size
    blurred = image.clip(0, 1)
    if sigma > 0:
        blurred = cv2.GaussianBlur(blurred, (0, 0), sigma)
    noise = random.normal(0, 1, image.shape) * random.uniform(*config.noise)
    return np.rint(np.clip(255 * blurred + noise, 0, 255)).astype(np.uint8)


def _factor(low_high: tuple[float, float], random: Random) -> float:
    """Draw a factor; one half is as likely as double."""
    return float(np.exp(random.uniform(*np.log(low_high))))


def _jobs(names: Sequence[str], photos: int, config: RenderConfig) -> list[_Job]:
    """Return the images to render, sorted by photo, so that each photo is read once."""
    jobs = []
    for name in names:
        key = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8])
        for index in range(config.count):
            random = np.random.default_rng([config.seed, key, index])
            jobs.append(_Job(name, index, int(random.random() * photos), random))
    return sorted(jobs, key=lambda job: job.photo)


def _render_all(
    jobs: Sequence[_Job], drawings: dict[str, list[Floats]], files: Sequence[Path], config: RenderConfig
) -> Iterator[tuple[_Job, NDArray[np.uint8]]]:
    position, photo = -1, np.empty(0, np.uint8)
    for job in jobs:
        if job.photo != position:
            position, photo = job.photo, read_photo(files[job.photo], config.size)
        mine = drawings[job.name]
        yield job, render(mine[job.index % len(mine)], photo, config, job.random)


def _check_apart(pictograms: Path, photos: Path, out: Path) -> None:
    for folder, what in ((pictograms, "pictograms"), (photos, "photos")):
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give a folder of {what} with --{what}.")
    folders = {"pictograms": pictograms, "photos": photos}
    for (inner, one), (outer, other) in itertools.permutations(folders.items(), 2):
        if one.resolve().is_relative_to(other.resolve()):
            where = "the same folder as" if one.resolve() == other.resolve() else "inside"
            raise InputError(
                f"--{inner} {one} is {where} --{outer} {other}, so its images would be used as {outer}; give separate folders."
            )
    for name, folder in folders.items():
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"--out {out} is inside --{name} {folder}, so rendered images would be used as {name}; choose another --out."
            )


def _read_pictograms(folder: Path) -> tuple[dict[str, list[Floats]], dict[str, str], tuple[str, ...]]:
    """Return the pictograms of each class, the SHA-256 of each file by name, and notes on files that were not read."""
    found = contents(folder)
    if not found.images:
        raise InputError(
            f"There are no pictograms in {folder}; put CLASS.png there, or CLASS/name.png. {' '.join(found.notes())}"
        )
    for child in found.children():
        if not found.holds_images(child):
            raise InputError(f"The class folder {folder / child} has no pictogram; add one, or remove the folder.")
    classes: dict[str, list[Floats]] = {}
    sums = {}
    with reject_decompression_bombs():
        for path, name in zip(found.images, found.names, strict=True):
            first, slash, _ = name.partition("/")
            classes.setdefault(first if slash else path.stem, []).append(read_pictogram(path))
            sums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    _check_classes(folder, list(classes))
    return {name: classes[name] for name in sorted(classes)}, sums, found.notes()


def _check_classes(folder: Path, names: Sequence[str]) -> None:
    if len(names) < 2:
        raise InputError(f"{folder} has pictograms of one class only, {names[0]}; labelled images need at least two classes.")
    other = [name for name in names if is_passed_over(name)]
    if parts := [*parts_among(names), *other]:
        what = "skipped as a file of another program" if other else "read as a part of a split"
        raise InputError(f"A class cannot be called {parts[0]}: its folder would be {what}; rename its pictogram.")


def read_pictogram(path: Path) -> Floats:
    """Read a drawing on a transparent background, without transparent margins; call it within `reject_decompression_bombs`.

    Returns:
        RGBA in [0, 1], float32 (H, W, 4), colours premultiplied by alpha.

    Raises:
        InputError: the file is unreadable, fully opaque or fully transparent.
    """
    stored, turn = load_stored(path)
    image = to_srgb(stored) if isinstance(stored, Image.Image) else _from_values(stored)
    if image is not None and turn is not None:
        image = image.transpose(turn)
    if image is None or not ("A" in image.mode.upper() or "transparency" in image.info):
        raise InputError(f"The pictogram {path} has no alpha channel; save it as a PNG with a transparent background.")
    layer = np.asarray(image.convert("RGBA"), np.float32) / 255
    alpha = layer[..., 3]
    if alpha.min() == 1:
        raise InputError(
            f"The pictogram {path} is fully opaque; make its background transparent, or "
            "add a transparent margin if there is none."
        )
    if not alpha.any():
        raise InputError(f"The pictogram {path} is fully transparent; draw it again, or remove it.")
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    layer[..., :3] *= alpha[..., None]
    return np.ascontiguousarray(layer[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _from_values(values: NDArray[Any]) -> Image.Image | None:
    """Return 16-bit RGBA values as an 8-bit image; None if there is no alpha channel."""
    if values.ndim != 3 or values.shape[2] != 4:
        return None
    return Image.fromarray((values.astype(np.float64) / 257).round().astype(np.uint8))


def _find_photos(folder: Path, size: int) -> tuple[list[Path], tuple[str, ...]]:
    """Return the photos in a folder, and notes on other files; every photo is checked, even if it is not used."""
    found = contents(folder)
    if not found.images:
        raise InputError(
            f"There are no photos in {folder}; give a folder of .jpg or .png files. {' '.join(found.notes())}".rstrip()
        )
    for path in found.images:
        sides = image_size(path)
        if sides is None or min(sides) < size:
            read_photo(path, size)  # raises an error that names the fault
    return found.images, found.notes()
