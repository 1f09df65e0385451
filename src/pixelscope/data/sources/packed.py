"""Packed images as a source: rows on disk, read when they are asked for; `pixelscope.data.pack` writes them.

A pack is a folder with images.npy (N, C, S, S) and an index; labels.npy, test.npy and items.npy if there are labels, a split
and a known collection; names.json if there are names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data.disk_array import DiskArray
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.errors import InputError
from pixelscope.files import find_link

INDEX = "pack.json"
NAMES = "names.json"
FORMAT = 2
"""Format 1 named an aligned collection without its digest, so that sets of other digits passed as aligned."""


def is_pack(folder: Path) -> bool:
    """Return whether `folder` is a pack."""
    return (folder / INDEX).is_file() and (folder / "images.npy").is_file()


def load_pack(folder: Path, size: int | None = 32, value_range: tuple[float, float] | None = None) -> ImageSet:
    """Open a pack; images are read on demand.

    Args:
        folder: the pack.
        size: expected side in pixels; None accepts any.
        value_range: expected range of deep images; None accepts any.

    Raises:
        InputError: the pack is damaged, or of another format, size or range.
    """
    index = _read_index(folder)
    link = find_link(folder, 1)
    if link is not None:
        raise InputError(f"{link} is a link, which could lead to any file; put the file itself into the pack if you trust it.")
    images = DiskArray(folder / "images.npy")
    if index.get("count") != len(images) or images.ndim != 4:
        raise InputError(f"{folder} is damaged: its images differ from its {INDEX}; pack them again.")
    if size is not None and images.shape[-2:] != (size, size):
        raise InputError(
            f"{folder} has images of {images.shape[-1]} x {images.shape[-2]} pixels and {size} x {size} are wanted; "
            f"pack them again with --size {size}, or train with --data.size {images.shape[-1]}."
        )
    packed = _packed_range(folder, index)
    if None not in (packed, value_range) and packed != value_range:
        raise InputError(
            f"{folder} was packed with the range {packed} and {value_range} is wanted; pack the images again with --range."
        )
    return ImageSet(
        images=images,
        provenance=Provenance(
            f"pack:{folder}",
            str(index.get("title", folder.name)),
            str(index.get("licence", "unknown")),
            str(index.get("citation", "")),
            tuple(map(str, index.get("notes", ()))),
            packed,
        ),
        labels=_extra(folder, "labels", len(images)),
        classes=tuple(map(str, index.get("classes", ()))),
        names=_names(folder, len(images)),
        test=_extra(folder, "test", len(images)),
        collection=index.get("collection"),
        items=_extra(folder, "items", len(images)),
    )


def _packed_range(folder: Path, index: dict[str, Any]) -> tuple[float, float] | None:
    match index.get("value_range"):
        case None:
            return None
        case [int() | float() as low, int() | float() as high]:
            return float(low), float(high)
    raise InputError(f"{folder} is damaged: its value range is not a pair of numbers; pack the images again.")


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        known = index["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} is not a pack, or is damaged; make it with `pixelscope data pack`.") from None
    if not known:
        raise InputError(f"{folder} has format {index['format']} and this version reads {FORMAT}; pack the images again.")
    return index


def _names(folder: Path, count: int) -> list[str]:
    """Return the names of the images; none for packs of earlier versions."""
    path = folder / NAMES
    if not path.exists():
        return []
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        names = None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} is damaged or does not have {count} names; pack the images again.")
    return names


def _extra(folder: Path, name: str, count: int) -> np.ndarray | None:
    path = folder / f"{name}.npy"
    if not path.exists():
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path} cannot be read; pack the images again.") from None
    if values.shape != (count,):
        raise InputError(f"{path} has shape {values.shape} for {count} images; pack them again.")
    return values
