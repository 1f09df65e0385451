"""Masks of the content loss: one for each source image, in the images' order."""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pixelscope.data import load, parse
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.masks import read_mask
from pixelscope.data.sources.folder import find_images
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.domains import Domains

_log = logging.getLogger(__name__)


def load_masks(config: BaselineConfig, domains: Domains, data_root: Path | None = None) -> ImageSet | None:
    """Return the mask of each training image of the source, where the configuration names masks and uses them.

    Returns:
        Grey or colour images of the side of the configuration, 0 outside and 255 inside, steps between along edges.

    Raises:
        InputError: masks cannot be read as masks, or are not one for each image.
    """
    if not isinstance(config, PixelDAConfig) or config.losses.content_mask == "pixels":
        return None
    if not config.losses.content:
        _log.warning("--losses.content-mask %s is not used, as --losses.content is 0.", config.losses.content_mask)
        return None
    kind, path = parse(config.losses.content_mask)
    size = config.data.size
    masks = _from_files(Path(path), size) if kind == "folder" else _from_arrays(config.losses.content_mask, size, data_root)
    if len(masks) != domains.source.count:
        raise InputError(
            f"--losses.content-mask has {len(masks)} masks for {domains.source.count} source images; "
            "give one for each, in the images' order."
        )
    training = masks.select(domains.source.training_positions)
    _require_same_names(training, domains.source.train)
    return training


def _from_files(folder: Path, size: int) -> ImageSet:
    found = find_images(folder)
    masks = np.empty((len(found.files), 1, size, size), np.uint8)
    for position, path in enumerate(found.files):
        white = read_mask(path).astype(np.uint8) * 255
        masks[position] = resize(white[None, None], size)[0]
    return ImageSet(masks, Provenance(f"folder:{folder}", f"Masks of {folder.name}"), names=found.names)


def _from_arrays(source: str, size: int, data_root: Path | None) -> ImageSet:
    """Read masks that are no files of their own; 0 and 1 mean the same as 0 and 255."""
    masks = load(source, size=None, data_root=data_root)
    pixels = masks.in_memory()
    brightest = int(pixels.max())
    if brightest != 1 and brightest < 128:
        raise InputError(f"The masks {source} have values up to {brightest} of 255; give 0 outside and 255 inside.")
    white = pixels * 255 if brightest == 1 else pixels
    return ImageSet(resize(white, size), masks.provenance)


def _require_same_names(masks: ImageSet, images: ImageSet) -> None:
    """Raise InputError where masks have the names of images, but not each that of its own; other names are not compared.

    Before and after its image's name a mask's may have what all have, as in `7_mask`: there 10_mask comes before 1_mask,
    though 1 comes before 10.
    """
    ours, theirs = ([PurePosixPath(name).stem for name in some.names] for some in (masks, images))
    named = _named_after(ours, theirs)
    if not set(ours) & set(named):
        return
    for mask, expected, image in zip(ours, named, theirs, strict=False):
        if mask != expected:
            raise InputError(
                f"The mask {mask} of --losses.content-mask stands where that of the image {image} is expected; give one mask "
                "for each image that can be read, under its name."
            )


def _named_after(masks: Sequence[str], images: Sequence[str]) -> list[str]:
    """Return the images' names with what most masks have before and after them; as they are where less than half have it."""
    if not masks or set(masks) & set(images):
        return list(images)
    around = {masks[0].partition(image)[::2] for image in images if image in masks[0]}
    options = [[f"{before}{image}{after}" for image in images] for before, after in sorted(around)]
    best = max(options, key=lambda names: len(set(masks) & set(names)), default=[])
    return best if 2 * len(set(masks) & set(best)) > len(masks) else list(images)
