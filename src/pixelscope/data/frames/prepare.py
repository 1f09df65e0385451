"""Folders of endoscopy frames, prepared once into a store that later stages map into memory.

Frames are prepared by chunks, each a file that is there whole or not at all: a killed run goes on from there.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.config import Config
from pixelscope.data.decode import depth_of, read_image, read_images, reject_decompression_bombs
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
    progress: ProgressCallback | None = None,
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
    """Prepare all frames in a hidden folder beside `place`, and put the whole store there by one renaming."""
    work = place.parent / f".{place.name}-{key[:12]}.part"
    work.mkdir(parents=True, exist_ok=True)
    with held(work):
        if not _is_filled(place):
            chunks = prepare_chunks(listing.frames, config, work / "chunks", progress)
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
        raise_if_skipped(left_out)
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


Bytes = NDArray[np.uint8]

_CHUNK = 16
"""Frames decoded at once: 100 MB at 1920 x 1080, 400 MB at twice that."""

_THREADS = 16
"""At most: each holds a few copies of its frame."""


class ChunkIndex(Config):
    """What is known of the frames of a chunk."""

    frames: tuple[FrameRecord, ...]
    left_out: tuple[SkippedFile, ...]


def prepare_chunks(
    frames: Sequence[ListedFrame], config: PrepareConfig, folder: Path, progress: ProgressCallback | None
) -> list[Path]:
    """Prepare all frames that `folder` does not hold already, and return its chunks in order.

    Raises InputError for masks that do not fit and, if strict, for the first frame that cannot be read or is black.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with _one_thread_each(), ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(frames), _CHUNK):
            paths.append(folder / f"{start:09d}.npz")
            done = frames[start : start + _CHUNK]
            if not paths[-1].exists():
                _prepare(done, config, pool, paths[-1])
            if progress is not None:
                progress(start + len(done), len(frames))
    return paths


def chunk_index(path: Path) -> ChunkIndex:
    """Return what is known of the frames of a chunk."""
    with np.load(path, allow_pickle=False) as file:
        return ChunkIndex.model_validate_json(str(file["index"]))


def chunk_array(path: Path, name: str) -> Bytes:
    """Return the `frames`, `insets` or `lesions` of a chunk."""
    with np.load(path, allow_pickle=False) as file:
        return file[name]


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


def _prepare(frames: Sequence[ListedFrame], config: PrepareConfig, pool: ThreadPoolExecutor, path: Path) -> None:
    """Prepare the frames of one chunk and write it to `path`."""
    images = list(read_images([frame.path for frame in frames], value_range=config.range))
    with reject_decompression_bombs():
        results = list(pool.map(lambda frame, image: _one(frame, image, config), frames, images))
    left_out = tuple(result for result in results if isinstance(result, SkippedFile))
    if config.strict:
        raise_if_skipped(left_out)
    kept = [result for result in results if not isinstance(result, SkippedFile)]
    index = ChunkIndex(frames=tuple(record for record, _ in kept), left_out=left_out)
    prepared = [frame for _, frame in kept]
    arrays = {
        "frames": _stacked([one.frame for one in prepared]),
        "insets": _stacked([one.inset for one in prepared]),
        "lesions": _stacked([one.lesion for one in prepared]),
    }
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, index=np.array(index.model_dump_json()), **arrays)


def _stacked(arrays: Sequence[Bytes]) -> Bytes:
    return np.stack(arrays) if arrays else np.empty(0, np.uint8)


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
