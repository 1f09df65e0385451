"""Folders of endoscopy frames, prepared once into a store that later stages map into memory."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelscope.data.decode import depth_of, read_image
from pixelscope.data.frame_chunks import Report, chunk_array, chunk_index, prepare_chunks, read_frame, refuse
from pixelscope.data.frame_classes import find_classes
from pixelscope.data.frame_listing import Listing, list_frames
from pixelscope.data.frame_stages import stages, write_stages
from pixelscope.data.frame_store import (
    FIGURES,
    INDEX,
    VERSION,
    FrameRecord,
    FrameStore,
    LeftOut,
    StoreIndex,
    array_shapes,
    spread,
)
from pixelscope.data.listing import note
from pixelscope.data.value_range import unused_range_note
from pixelscope.errors import InputError
from pixelscope.files import held, write_text, written_whole
from pixelscope.imaging.box import Box
from pixelscope.imaging.config import PrepareConfig

FULL = {errno.ENOSPC, errno.EDQUOT}
_FIGURES = 3
"""Frames a class whose stages are kept."""


def prepare(
    folders: Sequence[Path],
    *,
    config: PrepareConfig | None = None,
    out: Path | None = None,
    stores: Path = Path("stores"),
    normal: Sequence[str] = (),
    abnormal: Sequence[str] = (),
    masks: Mapping[str, Path] | None = None,
    report: Report | None = None,
) -> FrameStore:
    """Prepare the frames in `folders`: content area, centre square, one size; or open the store that holds them already.

    A store is known by its key, a SHA-256 over the settings, the classes, and the names and contents of all files. A
    preparation that was stopped goes on where it was.

    Args:
        folders: class folders, and folders of class folders; see `find_classes`.
        config: how frames are prepared.
        out: folder of the store; default `stores`/NAME-KEY.
        stores: where stores are looked for and put.
        normal: names of further classes that are healthy.
        abnormal: names of further classes that are not.
        masks: folders of masks by class, where their name does not tell.
        report: called with the frames done and all frames, as preparation goes on.

    Raises:
        InputError: folders, frames or masks cannot be used; `out` holds something else.
    """
    config = config or PrepareConfig()
    listing = list_frames(find_classes(folders, normal, abnormal, masks), config.strict)
    depth = depth_of([frame.path for frame in listing.frames], config.range)
    unused = () if config.range is None or depth.low_high else (unused_range_note(config.range),)
    config = config.model_copy(update={"range": depth.low_high})
    listing = replace(listing, notes=(*listing.notes, *depth.note("--prepare.range"), *unused))
    key = listing.key(VERSION, config.model_dump(exclude={"strict"} | ({"range"} if config.range is None else set())))
    place = _place(folders, stores, key) if out is None else out
    if not _is_filled(place):
        _build(listing, config, key, place, report)
    store = FrameStore.open(place)
    if store.key != key:
        raise InputError(
            f"{place} holds a store of other frames or settings; remove it, or choose another --out, or leave --out away."
        )
    if config.strict:
        refuse(store.index.left_out)
    return store


def _place(folders: Sequence[Path], stores: Path, key: str) -> Path:
    """Return where the store of a key is, whatever the name before the key, or else where it is to be."""
    found = sorted(stores.glob(f"*-{key[:12]}"))
    name = Path(os.path.commonpath([folder.resolve() for folder in folders])).name
    return found[0] if found else stores / f"{name or 'frames'}-{key[:12]}"


def _is_filled(place: Path) -> bool:
    """Say whether a store is at `place` already; raises InputError where something else is."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    if not (place / INDEX).is_file():
        raise InputError(f"{place} exists and is no store of frames; choose another --out, or remove it.")
    return True


def _build(listing: Listing, config: PrepareConfig, key: str, place: Path, report: Report | None) -> None:
    """Prepare all frames in a hidden folder beside `place`, and put the whole store there by one renaming."""
    work = place.parent / f".{place.name}-{key[:12]}.part"
    work.mkdir(parents=True, exist_ok=True)
    with held(work):
        if not _is_filled(place):
            chunks = prepare_chunks(listing.frames, config, work / "chunks", report)
            index = _index(listing, config, key, chunks)
            whole = work / "store"
            shutil.rmtree(whole, ignore_errors=True)
            whole.mkdir()
            _write_arrays(whole, index, chunks)
            _write_figures(whole, index, listing)
            write_text(whole / INDEX, index.model_dump_json())
            whole.replace(place)
        shutil.rmtree(work, ignore_errors=True)


def _index(listing: Listing, config: PrepareConfig, key: str, chunks: Iterable[Path]) -> StoreIndex:
    parts = [chunk_index(path) for path in chunks]
    left_out = tuple(file for part in parts for file in part.left_out)
    if config.strict:
        refuse(left_out)
    frames = tuple(frame for part in parts for frame in part.frames)
    _check_enough(listing, frames, left_out)
    return StoreIndex(
        version=VERSION,
        key=key,
        settings=config.model_copy(update={"strict": False}),
        kinds=listing.kinds,
        notes=(*listing.notes, *_notes(left_out, len(listing.frames)), *listing.remarks),
        left_out=left_out,
        frames=frames,
    )


def _check_enough(listing: Listing, frames: Sequence[FrameRecord], left_out: Sequence[LeftOut]) -> None:
    labels = {frame.label for frame in frames}
    for label, name in enumerate(listing.kinds):
        if label not in labels:
            first = next(file for file in left_out if file.name.startswith(f"{name}/"))
            raise InputError(f"No frame of the class {name!r} can be used; the first: {first.message}")
    if len(frames) == 1:
        raise InputError(f"There is one usable frame only, {frames[0].name}; give at least two.")


def _notes(left_out: Sequence[LeftOut], count: int) -> tuple[str, ...]:
    unreadable, black = ([file.name for file in left_out if file.reason == reason] for reason in ("unreadable", "black"))
    return (
        *note(f"Skipped {{count}} unreadable of {count:,} frames: {{names}}.", unreadable),
        *note(f"Left out {{count}} of {count:,} frames, black all over: {{names}}.", black),
    )


def _write_arrays(folder: Path, index: StoreIndex, chunks: Sequence[Path]) -> None:
    count, side = len(index.frames), index.settings.size
    for name, shape in array_shapes(count, side).items():
        with written_whole(folder / f"{name}.npy") as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            _reserve(temporary)
            filled = 0
            for path in chunks:
                part = chunk_array(path, name)
                array[filled : filled + len(part)] = part.reshape(-1, *shape[1:])
                filled += len(part)
            array.flush()


def _reserve(path: Path) -> None:
    """Take the disk space of a whole file now: a map into a file that a full disk cannot hold ends the process."""
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in FULL:
                raise


def _write_figures(folder: Path, index: StoreIndex, listing: Listing) -> None:
    paths = {frame.name: frame.path for frame in listing.frames}
    labels = np.array([frame.label for frame in index.frames])
    chosen = [i for label in range(len(listing.kinds)) for i in spread(np.flatnonzero(labels == label), _FIGURES).tolist()]
    kept = (index.frames[i] for i in chosen)
    drawn = [
        stages(i, read_frame(read_image(paths[frame.name], value_range=index.settings.range)), Box(*frame.content))
        for i, frame in zip(chosen, kept, strict=True)
    ]
    with written_whole(folder / FIGURES) as temporary:
        write_stages(temporary, drawn)
