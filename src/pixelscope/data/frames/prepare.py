"""Prepare folders of endoscopy frames into a frame store, in two views, which later stages map into memory.

A store is written in a hidden folder and renamed, so that it is complete or absent.
"""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.disk_array import RowWriter, evenly_spaced
from pixelscope.data.formats.decode import decode, depth_of, read_content, reject_decompression_bombs
from pixelscope.data.frames.discovery import find_classes
from pixelscope.data.frames.duplicates import perceptual_hash
from pixelscope.data.frames.listing import ListedFrame, Listing, list_frames
from pixelscope.data.frames.preprocess import (
    CentreFrame,
    FrameImage,
    PreparedFrame,
    Stages,
    cut_centre,
    cut_square,
    is_black,
    read_frame,
    read_whole,
    stages,
    three_channels,
    write_stages,
)
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
)
from pixelscope.data.sources.masks import frame_mask
from pixelscope.errors import InputError, note
from pixelscope.files import atomic_file, folder_lock, keep_heap, write_text
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box, find_content_area
from pixelscope.imaging.convert import unused_range_note
from pixelscope.imaging.insets import Inset, find_insets
from pixelscope.runs.progress import ProgressCallback

RANGE = "--range LOW HIGH (in a training --prepare.range)"
"""Option that gives the range of values, for messages."""
_FIGURES = 3
"""Frames per class whose stages are kept."""
_CHUNK = 64
"""Frames between two reports of progress."""
_THREADS = 8
"""Maximum number of threads that decode and resize."""
_TOGETHER = 4
"""Frames per task of a thread; at most four times as many per thread are in memory."""

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
    """Prepare the frames in `folders`: content area, centre square, one size; or open the store that already has them.

    A store is identified by its key, a SHA-256 over the settings, the classes, and the names and contents of all files.

    Args:
        folders: class folders, and folders of class folders; see `find_classes`.
        config: how frames are prepared.
        out: folder of the store; default `stores`/NAME-KEY.
        stores: where stores are looked for and put.
        normal: names of further classes that are healthy.
        abnormal: names of further classes that are not.
        masks: folders of masks by class, if their names do not name the class.
        progress: called with the number of prepared frames and of all frames.

    Raises:
        InputError: folders, frames or masks cannot be used; `out` has other content.

    Example:
        >>> store = pixelscope.endovae.prepare([Path("my/frames")], out=Path("stores/frames"))
    """
    config = config or PrepareConfig()
    listing = list_frames(find_classes(folders, normal, abnormal, masks), config.strict)
    depth = depth_of([frame.path for frame in listing.frames], config.range, RANGE)
    unused = () if config.range is None or depth.low_high else (unused_range_note(config.range),)
    config = config.model_copy(update={"range": depth.low_high})
    listing = replace(listing, notes=(*listing.notes, *depth.note(RANGE), *unused))
    key = listing.key(VERSION, config.model_dump(exclude={"strict"} | ({"range"} if config.range is None else set())))
    place = _place(folders, stores, key) if out is None else out
    if not _is_filled(place):
        _build(listing, config, key, place, progress)
    store = FrameStore.open(place)
    if store.key != key:
        raise InputError(f"{place} is a store of other frames or settings; remove it, give another --out, or leave out --out.")
    if config.strict:
        raise_if_skipped(store.index.left_out)
    return store


def open_or_prepare(frames: Path, config: PrepareConfig, progress: ProgressCallback | None = None) -> FrameStore:
    """Open a frame store, or prepare a folder of frames as one.

    Args:
        frames: the store, which keeps its settings, or the folder.
        config: how a folder is prepared.
        progress: called with the number of prepared frames and of all frames.

    Raises:
        InputError: folders, frames or masks cannot be used.
    """
    return FrameStore.open(frames) if FrameStore.is_store(frames) else prepare([frames], config=config, progress=progress)


def _place(folders: Sequence[Path], stores: Path, key: str) -> Path:
    """Return the folder of the store with a key, whatever name precedes the key; if there is none, the folder to make."""
    found = sorted(stores.glob(f"*-{key[:12]}"))
    name = Path(os.path.commonpath([folder.resolve() for folder in folders])).name
    return found[0] if found else stores / f"{name or 'frames'}-{key[:12]}"


def _is_filled(place: Path) -> bool:
    """Return whether `place` is a store already; raises InputError if it is something else."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    if not FrameStore.is_store(place):
        raise InputError(f"{place} exists and is not a store of frames; give another --out, or remove it.")
    return True


def _build(listing: Listing, config: PrepareConfig, key: str, place: Path, progress: ProgressCallback | None) -> None:
    """Write the store in a hidden folder next to `place`, then rename it; wait if another process builds it."""
    work = place.parent / f".{place.name}-{key[:12]}.part"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(work):
            if not _is_filled(place):
                whole = work / "store"
                shutil.rmtree(whole, ignore_errors=True)
                whole.mkdir(parents=True)
                with _workers() as pool:
                    frames, left_out = _write_arrays(whole, listing.frames, config, pool, progress)
                    _check_enough(listing, frames, left_out)
                    index = _index(listing, config, key, frames, left_out)
                    _write_figures(whole, index, listing, pool)
                write_text(whole / INDEX, index.model_dump_json())
                whole.replace(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _threads() -> int:
    """Return the number of threads that decode and resize."""
    return min(_THREADS, os.cpu_count() or 1)


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
    unreadable, black, small = (
        [file.name for file in left_out if file.reason == reason] for reason in ("unreadable", "black", "small")
    )
    return (
        *note(f"Skipped {{count}} unreadable of {count:,} frames: {{names}}.", unreadable),
        *note(f"Left out {{count}} of {count:,} frames, black all over: {{names}}.", black),
        *note(f"Left out {{count}} of {count:,} frames, too small for the centre view: {{names}}.", small),
    )


def _write_arrays(
    folder: Path,
    listed: Sequence[ListedFrame],
    config: PrepareConfig,
    pool: ThreadPoolExecutor,
    progress: ProgressCallback | None,
) -> tuple[list[FrameRecord], list[SkippedFile]]:
    """Prepare all frames and write their arrays; returns the record of each stored frame, and the files that gave none.

    Raises InputError for a mask that does not fit its frame, and with `strict` for the first unreadable or black frame.
    """
    frames: list[FrameRecord] = []
    left_out: list[SkippedFile] = []
    with ExitStack() as stack:
        shapes = array_shapes(0, config.size).items()
        rows = {name: stack.enter_context(RowWriter(folder / f"{name}.npy", shape[1:])) for name, shape in shapes}
        for done, cut in enumerate(_prepared(listed, config, pool), 1):
            if isinstance(cut, SkippedFile):
                left_out.append(cut)
            else:
                frames.append(_record(cut))
                for name, array in cut.arrays().items():
                    rows[name].write(array[None])
            if config.strict:
                raise_if_skipped(left_out)
            if progress is not None and (done % _CHUNK == 0 or done == len(listed)):
                progress(done, len(listed))
    return frames, left_out


def _write_figures(folder: Path, index: StoreIndex, listing: Listing, pool: ThreadPoolExecutor) -> None:
    paths = {frame.name: frame.path for frame in listing.frames}
    labels = np.array([frame.label for frame in index.frames])
    chosen = [
        i for label in range(len(listing.kinds)) for i in evenly_spaced(np.flatnonzero(labels == label), _FIGURES).tolist()
    ]

    def drawn(i: int) -> Stages:
        frame = index.frames[i]
        image = decode(paths[frame.name], value_range=index.settings.range)
        return stages(i, three_channels(image), Box(*frame.content))

    with atomic_file(folder / FIGURES) as temporary:
        write_stages(temporary, list(pool.map(drawn, chosen)))


def raise_if_skipped(left_out: Sequence[SkippedFile]) -> None:
    """Raise an InputError for the first file left out, if any: what a strict preparation does."""
    if left_out:
        raise InputError(left_out[0].message)


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Yield the threads that read and prepare frames; OpenCV starts no further threads."""
    keep_heap()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with reject_decompression_bombs(), ThreadPoolExecutor(_threads()) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def _prepared(listed: Sequence[ListedFrame], config: PrepareConfig, pool: ThreadPoolExecutor) -> Iterator["_Cut | SkippedFile"]:
    """Yield the prepared frames in order.

    The pool's threads decode and resize in parallel. This thread reads the files, finds content areas and insets, and hashes:
    these take many short calls, between which threads would wait for each other.
    """
    threads = _threads()
    some = (list(map(_File.read, listed[start : start + _TOGETHER])) for start in range(0, len(listed), _TOGETHER))
    reading = deque(pool.submit(_each, _opened, frames, config) for frames in islice(some, threads + 1))
    cutting: deque[Future[list[_Cut | SkippedFile]]] = deque()
    while reading or cutting:
        if reading:
            opened = reading.popleft().result()
            reading.extend(pool.submit(_each, _opened, frames, config) for frames in islice(some, 1))
            cutting.append(pool.submit(_each, _square, _each(_looked_at, opened, config), config))
        if len(cutting) > threads or not reading:
            yield from cutting.popleft().result()


In = TypeVar("In")
Out = TypeVar("Out")


def _each(
    step: Callable[[In, PrepareConfig], Out | SkippedFile], frames: Sequence[In | SkippedFile], config: PrepareConfig
) -> list[Out | SkippedFile]:
    """Return the results of a step of the preparation; frames that are left out stay so."""
    return [one if isinstance(one, SkippedFile) else step(one, config) for one in frames]


@dataclass(frozen=True)
class _File:
    """Contents of the files of a frame; None if there is no file, or it cannot be read."""

    file: ListedFrame
    frame: bytes | None
    mask: bytes | None

    @classmethod
    def read(cls, file: ListedFrame) -> "_File":
        return cls(file, read_content(file.path), None if file.mask is None else read_content(file.mask))


@dataclass(frozen=True, eq=False)
class _Opened:
    """A decoded frame, and its mask where it has one."""

    file: ListedFrame
    image: FrameImage
    whole: Bytes
    """uint8, shape (H, W, 3): the frame at its own size; `image.pixels`, unless that is half as large."""
    lesion: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class _LookedAt:
    """A decoded frame, and the properties found in its pixels."""

    opened: _Opened
    content: Box
    insets: Sequence[Inset]


@dataclass(frozen=True, eq=False)
class _Cut:
    """A prepared frame and its centre view."""

    file: ListedFrame
    prepared: PreparedFrame
    centre: CentreFrame

    def arrays(self) -> dict[str, Bytes]:
        """Return the arrays that are stored, by name."""
        full, centre = self.prepared, self.centre
        return {
            "frames": full.frame,
            "insets": full.inset,
            "lesions": full.lesion,
            "centre": centre.frame,
            "centre_insets": centre.inset,
            "centre_lesions": centre.lesion,
        }


def _opened(read: _File, config: PrepareConfig) -> _Opened | SkippedFile:
    """Decode a frame and its mask; on a thread within `reject_decompression_bombs`."""
    file = read.file
    try:
        image = read_frame(file.path, config, read.frame)
        whole = image.pixels if image.factor == 1 else read_whole(file.path, config, read.frame)
    except InputError as error:
        return SkippedFile(name=file.name, reason="unreadable", message=str(error))
    lesion = None if file.mask is None else frame_mask(file.mask, (image.size[1], image.size[0]), read.mask)
    return _Opened(file, image, whole, lesion)


def _looked_at(opened: _Opened, config: PrepareConfig) -> _LookedAt:
    pixels = opened.image.pixels
    content = find_content_area(pixels, config.method)
    return _LookedAt(opened, content, find_insets(pixels, content))


def _square(found: _LookedAt, config: PrepareConfig) -> _Cut | SkippedFile:
    """Return both views of a frame, or why it is left out."""
    opened, file = found.opened, found.opened.file
    prepared = cut_square(opened.image, opened.lesion, found.content, found.insets, config)
    if is_black(prepared.frame):
        return SkippedFile(name=file.name, reason="black", message=f"The frame {file.path} is black all over; remove it.")
    try:
        centre = cut_centre(opened.whole, opened.lesion, prepared, config)
    except InputError as error:
        return SkippedFile(name=file.name, reason="small", message=f"{file.path} has no centre view. {error}")
    return _Cut(file, prepared, centre)


def _record(cut: _Cut) -> FrameRecord:
    return FrameRecord(
        name=cut.file.name,
        label=cut.file.label,
        content=_rectangle(cut.prepared.content),
        size=cut.prepared.size,
        insets=tuple(InsetRecord(kind=inset.kind, box=_rectangle(inset.box)) for inset in cut.prepared.insets),
        lesion=cut.file.mask is not None,
        sha256=cut.file.sha256,
        hash=f"{perceptual_hash(cut.prepared.frame):016x}",
    )


def _rectangle(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.width, box.height
