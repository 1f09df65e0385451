"""Packed images: any source, written once as rows on disk, from which trainings read batches.

`pixelscope.data.sources.packed` reads packs, and describes their files.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data import load, parse, require_path, with_range_note
from pixelscope.data.disk_array import BLOCK, RowWriter, blocks
from pixelscope.data.formats.decode import depth_of, is_flat, read_readable
from pixelscope.data.imageset import ImageSet
from pixelscope.data.sources.folder import find_images
from pixelscope.data.sources.packed import FORMAT, INDEX, NAMES, load_pack
from pixelscope.errors import InputError, plural
from pixelscope.files import atomic_file, atomic_folder, require_absent, write_text
from pixelscope.runs.progress import ProgressCallback

RANGE = "data pack --range LOW HIGH"
"""Option that gives the range of values, for messages."""


def pack(
    source: str,
    out: Path,
    *,
    size: int = 32,
    strict: bool = False,
    data_root: Path | None = None,
    progress: ProgressCallback | None = None,
    value_range: tuple[float, float] | None = None,
) -> ImageSet:
    """Write a source as a pack, so that trainings can read sets that do not fit into memory.

    Args:
        source: as for `load`; a folder is read a few thousand images at a time, other kinds as a whole.
        out: folder to make; it must not exist.
        size: side in pixels to which images are resized.
        strict: refuse a folder with an unreadable image instead of skipping it.
        data_root: folder in which a KIND alone is looked up.
        progress: called with the images done and all images, while a folder is read.
        value_range: see `load`.

    Returns:
        The images, on disk.

    Raises:
        InputError: the source cannot be read, or `out` exists.

    Example:
        >>> pixelscope.pack("my/photos", Path("packed/photos"), size=32)
    """
    kind, rest = parse(source)
    if kind == "folder":
        packed = pack_folder(require_path("folder", rest, "a folder of images"), out, size, strict, progress, value_range)
        return with_range_note(packed, value_range)
    return pack_images(load(source, size=size, strict=strict, data_root=data_root, value_range=value_range), out)


def pack_folder(
    folder: Path,
    out: Path,
    size: int,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    value_range: tuple[float, float] | None = None,
) -> ImageSet:
    """Pack a folder of any number of images, a few thousand at a time in memory; see `load_folder` for how it is read.

    All images are stored in colour. Unreadable ones are skipped and counted, or refused if `strict`.

    Raises:
        InputError: `out` exists, or fewer than two images can be read.
    """
    layout = find_images(folder)
    kept: list[int] = []
    flat: list[int] = []
    depth = depth_of(layout.files, value_range, RANGE)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, len(layout.files), BLOCK):
            files = layout.files[start : start + BLOCK]
            images, errors = read_readable(files, size, depth.low_high)
            if errors and strict:
                raise errors[min(errors)]
            read = [start + position for position in range(len(files)) if position not in errors]
            kept.extend(read)
            flat.extend(read[position] for position, image in enumerate(images) if is_flat(image))
            colour = np.broadcast_to(images, (*images.shape[:3], 3)) if len(images) else images.reshape(0, size, size, 3)
            yield np.ascontiguousarray(colour.transpose(0, 3, 1, 2))
            if progress is not None:
                progress(min(start + BLOCK, len(layout.files)), len(layout.files))

    def about() -> dict[str, Any]:
        notes = layout.read_notes(set(range(len(layout.files))) - set(kept), flat)
        origin = {"source": f"folder:{folder}", "title": f"Images of {folder.name}", "classes": layout.classes}
        return {**origin, "notes": [*notes, *depth.note(RANGE)], "value_range": depth.low_high}

    def extras() -> dict[str, np.ndarray]:
        found = {"labels": (layout.labels, np.int64), "test": (layout.test, np.bool_)}
        return {name: np.array(values, kind)[kept] for name, (values, kind) in found.items() if values is not None}

    return _write(out, pieces(), (3, size, size), about, extras, lambda: [layout.names[i] for i in kept])


def pack_images(images: ImageSet, out: Path) -> ImageSet:
    """Pack a set of images; raises InputError if `out` exists."""
    origin = images.provenance

    def about() -> dict[str, Any]:
        fields = ("source", "title", "licence", "citation", "value_range")
        notes = {"classes": images.classes, "notes": origin.notes, "collection": images.collection}
        return {**{name: getattr(origin, name) for name in fields}, **notes}

    def extras() -> dict[str, np.ndarray]:
        found = {"labels": images.labels, "test": images.test, "items": images.items}
        return {name: values for name, values in found.items() if values is not None}

    pieces = (np.ascontiguousarray(block) for block in blocks(images.images))
    return _write(out, pieces, tuple(images.images.shape[1:]), about, extras, lambda: images.names)


def _write(
    out: Path,
    pieces: Iterator[np.ndarray],
    shape: tuple[int, ...],
    about: Callable[[], dict[str, Any]],
    extras: Callable[[], dict[str, np.ndarray]],
    names: Callable[[], Sequence[str]],
) -> ImageSet:
    """Write a pack, whole or not at all."""
    require_absent(out)
    with atomic_folder(out) as work:
        with RowWriter(work / "images.npy", shape) as rows:
            for piece in pieces:
                rows.write(piece)
        count = rows.count
        if count < 2:
            raise InputError(f"Only {plural(count, 'image')} could be read, and a pack needs at least 2; give more.")
        for name, values in extras().items():
            with atomic_file(work / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, values, allow_pickle=False)
        if names():
            write_text(work / NAMES, json.dumps(list(names())))
        write_text(work / INDEX, json.dumps({"format": FORMAT, "count": count, **about()}, indent=1) + "\n")
    return load_pack(out, None)
