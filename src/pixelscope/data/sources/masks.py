"""Masks of images, one per image: a folder of mask files, or arrays."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pixelscope.data import load, parse
from pixelscope.data.frames.preprocess import read_mask
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.folder import find_images
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize


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
