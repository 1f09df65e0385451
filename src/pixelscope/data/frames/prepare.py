"""Folders of endoscopy frames, prepared once into a frame store that later stages map into memory.

A store is written in a hidden folder and renamed, so that it is complete or absent.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.decode import depth_of, read_image, read_images, reject_decompression_bombs
from pixelscope.data.disk_array import RowWriter
from pixelscope.data.frames.discovery import ListedFrame, Listing, find_classes, list_frames
from pixelscope.data.frames.duplicates import perceptual_hash
from pixelscope.data.frames.preprocess import PreparedFrame, frame_mask, is_black, prepare_frame, stages, write_stages
from pixelscope.data.frames.store import (
    FIGURES,
    INDEX,
    VERSION,
    FrameRecord,
    FrameStore,
    InsetRecord,
    SkippedFile,
    StoreIndex,
    array_shapes,
    evenly_spaced,
)
from pixelscope.data.sources.listing import note
from pixelscope.errors import InputError
from pixelscope.files import held, write_text, written_whole
from pixelscope.imaging.box import Box
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.convert import unused_range_note
from pixelscope.progress import ProgressCallback

_FIGURES = 3
"""Frames per class whose stages are kept."""
_CHUNK = 16
"""Frames decoded at once: 100 MB at 1920 x 1080, 400 MB at twice that."""
_THREADS = 16
"""Maximum number of threads; each holds a few copies of its frame."""

Bytes = NDArray[np.uint8]


def prepare(
    folders: Sequence[Path],
    *,
    config: PrepareConfig | None = None,
    out: Path | None = None,
    stores: Path = Path("stores"),
    normal: Sequence[str] = (),
    abnormal: Sequence[str] = (),
    masks: Mapping[str, Path] | None = None,
    progress: ProgressCallback | None = None,
) -> FrameStore:
    """Prepare the frames in `folders`: content area, centre square, one size; or open the store that holds them already.

    A store is identified by its key, a SHA-256 over the settings, the classes, and the names and contents of all files.

    Args:
        folders: class folders, and folders of class folders; see `find_classes`.
        config: how frames are prepared.
        out: folder of the store; default `stores`/NAME-KEY.
        stores: where stores are looked for and put.
        normal: names of further classes that are healthy.
        abnormal: names of further classes that are not.
        masks: folders of masks by class, where their name does not tell.
        progress: called with the frames done and all frames, as preparation goes on.

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
        _build(listing, config, key, place, progress)
    store = FrameStore.open(place)
    if store.key != key:
        raise InputError(
            f"{place} holds a store of other frames or settings; remove it, or choose another --out, or leave --out away."
        )
    if config.strict:
        raise_if_skipped(store.index.left_out)
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


def _build(listing: Listing, config: PrepareConfig, key: str, place: Path, progress: ProgressCallback | None) -> None:
    """Write the store in a hidden folder next to `place`, then rename it; another process that builds it is waited for."""
    work = place.parent / f".{place.name}-{key[:12]}.part"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with held(work):
            if not _is_filled(place):
                whole = work / "store"
                shutil.rmtree(whole, ignore_errors=True)
                whole.mkdir(parents=True)
                frames, left_out = _write_arrays(whole, listing.frames, config, progress)
                _check_enough(listing, frames, left_out)
                index = _index(listing, config, key, frames, left_out)
                _write_figures(whole, index, listing)
                write_text(whole / INDEX, index.model_dump_json())
                whole.replace(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _index(
    listing: Listing, config: PrepareConfig, key: str, frames: Sequence[FrameRecord], left_out: Sequence[SkippedFile]
) -> StoreIndex:
    return StoreIndex(
        version=VERSION,
        key=key,
        settings=config.model_copy(update={"strict": False}),
        kinds=listing.kinds,
        notes=(*listing.notes, *_notes(left_out, len(listing.frames)), *listing.remarks),
        left_out=tuple(left_out),
        frames=tuple(frames),
    )


def _check_enough(listing: Listing, frames: Sequence[FrameRecord], left_out: Sequence[SkippedFile]) -> None:
    labels = {frame.label for frame in frames}
    for label, name in enumerate(listing.kinds):
        if label not in labels:
            first = next(file for file in left_out if file.name.startswith(f"{name}/"))
            raise InputError(f"No frame of the class {name!r} can be used; the first: {first.message}")
    if len(frames) == 1:
        raise InputError(f"There is one usable frame only, {frames[0].name}; give at least two.")


def _notes(left_out: Sequence[SkippedFile], count: int) -> tuple[str, ...]:
    unreadable, black = ([file.name for file in left_out if file.reason == reason] for reason in ("unreadable", "black"))
    return (
        *note(f"Skipped {{count}} unreadable of {count:,} frames: {{names}}.", unreadable),
        *note(f"Left out {{count}} of {count:,} frames, black all over: {{names}}.", black),
    )


def _write_arrays(
    folder: Path, listed: Sequence[ListedFrame], config: PrepareConfig, progress: ProgressCallback | None
) -> tuple[list[FrameRecord], list[SkippedFile]]:
    """Prepare all frames and write their arrays; returns the record of each stored frame, and the files that gave none.

    Raises InputError for a mask that does not fit its frame, and with `strict` for the first unreadable or black frame.
    """
    frames: list[FrameRecord] = []
    left_out: list[SkippedFile] = []
    with ExitStack() as stack:
        stack.enter_context(_one_thread_each())
        pool = stack.enter_context(ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)))
        shapes = array_shapes(0, config.size).items()
        rows = {name: stack.enter_context(RowWriter(folder / f"{name}.npy", shape[1:])) for name, shape in shapes}
        for start in range(0, len(listed), _CHUNK):
            chunk = listed[start : start + _CHUNK]
            for result in _prepare(chunk, config, pool):
                if isinstance(result, SkippedFile):
                    left_out.append(result)
                    continue
                record, prepared = result
                frames.append(record)
                for name, array in (("frames", prepared.frame), ("insets", prepared.inset), ("lesions", prepared.lesion)):
                    rows[name].write(array[None])
            if config.strict:
                raise_if_skipped(left_out)
            if progress is not None:
                progress(start + len(chunk), len(listed))
    return frames, left_out


def _write_figures(folder: Path, index: StoreIndex, listing: Listing) -> None:
    paths = {frame.name: frame.path for frame in listing.frames}
    labels = np.array([frame.label for frame in index.frames])
    chosen = [
        i for label in range(len(listing.kinds)) for i in evenly_spaced(np.flatnonzero(labels == label), _FIGURES).tolist()
    ]
    kept = (index.frames[i] for i in chosen)
    drawn = [
        stages(i, read_frame(read_image(paths[frame.name], value_range=index.settings.range)), Box(*frame.content))
        for i, frame in zip(chosen, kept, strict=True)
    ]
    with written_whole(folder / FIGURES) as temporary:
        write_stages(temporary, drawn)


def raise_if_skipped(left_out: Sequence[SkippedFile]) -> None:
    """Raise an InputError for the first file left out, if any: what a strict preparation does."""
    if left_out:
        raise InputError(left_out[0].message)


def read_frame(image: Bytes) -> Bytes:
    """Return a decoded image (H, W, 1) or (H, W, 3) with three channels."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own in each of ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _prepare(
    frames: Sequence[ListedFrame], config: PrepareConfig, pool: ThreadPoolExecutor
) -> list[tuple[FrameRecord, PreparedFrame] | SkippedFile]:
    images = list(read_images([frame.path for frame in frames], value_range=config.range))
    with reject_decompression_bombs():
        return list(pool.map(lambda frame, image: _one(frame, image, config), frames, images))


def _one(
    frame: ListedFrame, image: Bytes | InputError, config: PrepareConfig
) -> tuple[FrameRecord, PreparedFrame] | SkippedFile:
    if isinstance(image, InputError):
        return SkippedFile(name=frame.name, reason="unreadable", message=str(image))
    original = read_frame(image)
    marked = None if frame.mask is None else frame_mask(frame.mask, original.shape[:2])
    prepared = prepare_frame(original, marked, config)
    if is_black(prepared.frame):
        return SkippedFile(name=frame.name, reason="black", message=f"The frame {frame.path} is black all over; remove it.")
    return _record(frame, original, prepared), prepared


def _record(frame: ListedFrame, original: Bytes, prepared: PreparedFrame) -> FrameRecord:
    return FrameRecord(
        name=frame.name,
        label=frame.label,
        content=_rectangle(prepared.content),
        size=(original.shape[1], original.shape[0]),
        insets=tuple(InsetRecord(kind=inset.kind, box=_rectangle(inset.box)) for inset in prepared.insets),
        lesion=frame.mask is not None,
        sha256=frame.sha256,
        hash=f"{perceptual_hash(prepared.frame):016x}",
    )


def _rectangle(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.width, box.height
