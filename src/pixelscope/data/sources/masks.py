"""Read masks: the mask of one frame, or one mask per image from a folder of files or arrays."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data import load, parse
from pixelscope.data.formats.decode import load_stored, reject_decompression_bombs
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.folder import find_images
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize

Values = NDArray[Any]
Flags = NDArray[np.bool_]

_BETWEEN = 0.01
"""Maximum fraction of a mask's pixels between its two values: JPEG leaves ripples along edges, resizing intermediate steps."""

_FEW = 16
"""Maximum number of distinct values of an uncompressed mask: low values are then labels, not ripples."""

_LOSSY = ("JPEG", "MPO")
"""Lossy formats, which cannot store labels."""

_LAST_LABEL = 32
"""Maximum value of a mask whose values can only be labels."""


def read_mask(path: Path) -> Flags:
    """Read a mask from an image file, upright.

    If there are black and other visible pixels, the inside is where the value exceeds half of the maximum. If all visible
    pixels are black, or none is, the inside is what is visible, or in a palette the indices above 0.

    Args:
        path: an image of any mode and depth.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the file cannot be read, or the mask has more than two values.
    """
    with reject_decompression_bombs():
        return decode_mask(path)


def decode_mask(path: Path, content: bytes | None = None) -> Flags:
    """Read a mask as `read_mask` does; call it within `reject_decompression_bombs`.

    content: the file's content, if it is read already.
    """
    stored, turn = load_stored(path, content)
    lossy = isinstance(stored, Image.Image) and stored.format in _LOSSY
    flags = mask_from_values(_values(stored, path), str(path), lossy)
    if turn is None:
        return flags
    return np.asarray(Image.fromarray(flags.astype(np.uint8)).transpose(turn)) > 0


def mask_from_values(values: Values, name: str, lossy: bool = False) -> Flags:
    """Return where a mask of two values has the greater one.

    Args:
        values: integers or floats of any range and shape, 0 outside.
        name: name of the mask in messages.
        lossy: whether it was stored in a lossy format.

    Raises:
        InputError: there are more than two values, except for a few in between.
    """
    used, counts = _counted(values)
    top = used.max(initial=0)
    between = counts[(used > top / 8) & (used < top - top / 8)].sum()
    if between > _BETWEEN * values.size or (not lossy and _has_labels(used)):
        named = ", ".join(f"{value:g}" for value in used) if len(used) <= _FEW else f"{len(used):,}, up to {top:g}"
        raise InputError(
            f"The mask {name} has more than two values ({named}); give a mask that is black outside and white inside."
        )
    return values > (top // 2 if values.dtype == np.uint8 else top / 2)


def _counted(values: Values) -> tuple[Values, Values]:
    """Return the different values, ascending, and the number of each."""
    if values.dtype != np.uint8 or values.ndim != 2 or not values.size:
        return np.unique(values, return_counts=True)
    counts = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()
    used = np.flatnonzero(counts)
    return used.astype(np.uint8), counts[used]


def frame_mask(path: Path, shape: tuple[int, int], content: bytes | None = None) -> Flags:
    """Return where a mask marks a lesion; call it within `reject_decompression_bombs`.

    Args:
        path: the mask's file.
        shape: height and width of the frame.
        content: the file's content, if it is read already.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the mask cannot be read, differs from its frame in size, or has more than two values.
    """
    marked = decode_mask(path, content)
    if marked.shape != shape:
        raise InputError(
            f"The mask {path} is {marked.shape[1]} x {marked.shape[0]} and its frame {shape[1]} x {shape[0]}; give a mask of "
            "the frame's size."
        )
    return marked


def _has_labels(used: Values) -> bool:
    """Return whether the distinct values of a mask are labels of several classes."""
    top = used.max(initial=0)
    others = used[(used > 0) & (used < top)]
    if not len(others) or len(used) > _FEW:
        return False
    if used.dtype.kind != "f" and top <= _LAST_LABEL:
        return True
    # Ripples are close to both values, labels to black alone.
    return bool(others.min() <= top / 32) and not bool((others >= top - top / 8).any())


def _values(stored: Image.Image | Values, path: Path) -> Values:
    """Return the values (H, W) of a mask, 0 outside."""
    if not isinstance(stored, Image.Image):
        has_alpha = stored.ndim == 3 and stored.shape[2] == 4
        return _visible(*((stored[..., :3], stored[..., 3]) if has_alpha else (stored, None)), path)
    transparent = "A" in stored.mode.upper() or "transparency" in stored.info
    alpha = np.asarray(stored.convert("RGBA"))[..., 3] if transparent else None
    colours = np.asarray(stored.convert("L" if stored.mode in ("1", "L", "LA", "La") else "RGB"))
    if stored.mode == "P" and alpha is None and not _both_kinds(colours.max(axis=2)):
        return np.asarray(stored)
    return _visible(colours, alpha, path)


def _visible(colours: Values, alpha: Values | None, path: Path) -> Values:
    """Return the values of colours (H, W) or (H, W, 3), or the visibility if colours are all black or all not.

    Raises:
        InputError: there are several colours and none is black, so that inside and outside are ambiguous.
    """
    values = colours.max(axis=2) if colours.ndim == 3 else colours
    if alpha is None and _both_kinds(values):
        return values
    visible = np.ones(values.shape, bool) if alpha is None else alpha > np.iinfo(alpha.dtype).max // 2
    if not visible.any() or _both_kinds(values[visible]):
        return np.where(visible, values, 0)
    if not visible.all():
        return visible.astype(np.uint8)
    spread = np.ptp(colours.reshape(-1, *colours.shape[2:]).astype(np.float64), axis=0).max()
    if spread > values.max() / 2:
        raise InputError(
            f"The mask {path} has several colours and none is black; give one that is black outside, white inside."
        )
    return values


def _both_kinds(values: Values) -> bool:
    return bool(values.any()) and not bool(values.all())


def load_masks(source: str, size: int, data_root: Path | None = None) -> ImageSet:
    """Read masks as grey or colour images of `size` pixels: 0 outside and 255 inside, with values between along edges.

    Raises:
        InputError: masks cannot be read.
    """
    kind, path = parse(source)
    return _from_files(Path(path), size) if kind == "folder" else _from_arrays(source, size, data_root)


def require_same_names(masks: ImageSet, images: ImageSet) -> None:
    """Raise InputError if masks are named after images, but in another order; other names are not compared.

    A mask's name may add a prefix and a suffix that all masks share, as in `7_mask`. These change the order of file names:
    10_mask comes before 1_mask, but 1 comes before 10.
    """
    ours, theirs = ([PurePosixPath(name).stem for name in some.names] for some in (masks, images))
    named = _named_after(ours, theirs)
    if not set(ours) & set(named):
        return
    for mask, expected, image in zip(ours, named, theirs, strict=False):
        if mask != expected:
            raise InputError(
                f"--losses.content-mask has the mask {mask} where the mask of the image {image} belongs; give one mask "
                "per readable image, with the same name."
            )


def _from_files(folder: Path, size: int) -> ImageSet:
    found = find_images(folder)
    masks = np.empty((len(found.files), 1, size, size), np.uint8)
    for position, path in enumerate(found.files):
        white = read_mask(path).astype(np.uint8) * 255
        masks[position] = resize(white[None, None], size)[0]
    return ImageSet(masks, Provenance(f"folder:{folder}", f"Masks of {folder.name}"), names=found.names)


def _from_arrays(source: str, size: int, data_root: Path | None) -> ImageSet:
    """Read masks from arrays; values 0 and 1 mean 0 and 255."""
    masks = load(source, size=None, data_root=data_root)
    pixels = masks.in_memory()
    brightest = int(pixels.max())
    if brightest != 1 and brightest < 128:
        raise InputError(f"The masks {source} have values up to {brightest} of 255; give 0 outside and 255 inside.")
    white = pixels * 255 if brightest == 1 else pixels
    return ImageSet(resize(white, size), masks.provenance)


def _named_after(masks: Sequence[str], images: Sequence[str]) -> list[str]:
    """Return image names with the prefix and suffix that most masks share; unchanged if less than half share one."""
    if not masks or set(masks) & set(images):
        return list(images)
    around = {masks[0].partition(image)[::2] for image in images if image in masks[0]}
    options = [[f"{before}{image}{after}" for image in images] for before, after in sorted(around)]
    best = max(options, key=lambda names: len(set(masks) & set(names)), default=[])
    return best if 2 * len(set(masks) & set(best)) > len(masks) else list(images)
