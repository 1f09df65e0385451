"""Preparation by chunks of frames, each a file that is there whole or not at all: what a killed run goes on from."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.config import Config
from pixelscope.data.decode import bombs_refused, read_images
from pixelscope.data.duplicates import perceptual_hash
from pixelscope.data.frame_listing import ListedFrame
from pixelscope.data.frame_preparation import PreparedFrame, is_black, prepare_frame
from pixelscope.data.frame_store import FrameRecord, InsetRecord, LeftOut
from pixelscope.data.masks import frame_mask
from pixelscope.errors import InputError
from pixelscope.files import written_whole
from pixelscope.imaging.box import Box
from pixelscope.imaging.config import PrepareConfig

Bytes = NDArray[np.uint8]
Report = Callable[[int, int], None]
"""Called with the frames done and all frames."""

_CHUNK = 16
"""Frames decoded at once: 100 MB at 1920 x 1080, 400 MB at twice that."""

_THREADS = 16
"""At most: each holds a few copies of its frame."""


class ChunkIndex(Config):
    """What is known of the frames of a chunk."""

    frames: tuple[FrameRecord, ...]
    left_out: tuple[LeftOut, ...]


def prepare_chunks(frames: Sequence[ListedFrame], config: PrepareConfig, folder: Path, report: Report | None) -> list[Path]:
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
            if report is not None:
                report(start + len(done), len(frames))
    return paths


def chunk_index(path: Path) -> ChunkIndex:
    """Return what is known of the frames of a chunk."""
    with np.load(path, allow_pickle=False) as file:
        return ChunkIndex.model_validate_json(str(file["index"]))


def chunk_array(path: Path, name: str) -> Bytes:
    """Return the `frames`, `insets` or `lesions` of a chunk."""
    with np.load(path, allow_pickle=False) as file:
        return file[name]


def refuse(left_out: Sequence[LeftOut]) -> None:
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
    with bombs_refused():
        results = list(pool.map(lambda frame, image: _one(frame, image, config), frames, images))
    left_out = tuple(result for result in results if isinstance(result, LeftOut))
    if config.strict:
        refuse(left_out)
    kept = [result for result in results if not isinstance(result, LeftOut)]
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


def _one(frame: ListedFrame, image: Bytes | InputError, config: PrepareConfig) -> tuple[FrameRecord, PreparedFrame] | LeftOut:
    if isinstance(image, InputError):
        return LeftOut(name=frame.name, reason="unreadable", message=str(image))
    original = read_frame(image)
    marked = None if frame.mask is None else frame_mask(frame.mask, original.shape[:2])
    prepared = prepare_frame(original, marked, config)
    if is_black(prepared.frame):
        return LeftOut(name=frame.name, reason="black", message=f"The frame {frame.path} is black all over; remove it.")
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
