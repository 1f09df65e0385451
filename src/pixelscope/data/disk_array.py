"""Arrays on disk whose rows are read on demand, for images that do not fit into memory."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE
from pixelscope.imaging.framing import Framing

Positions = NDArray[np.int64]
Bytes = NDArray[np.uint8]

BLOCK = 4096
"""Rows per block in a pass over all rows: 12 MB of 32 x 32 colour images."""


class DiskArray:
    """uint8 rows of an .npy file, or a selection of them, with the shape and indexing of an array.

    Consecutive rows are read by one call. The file is not memory-mapped: a map counts every touched page as the process's own
    and reads 4 KB at a time. The system's page cache keeps these pages while memory allows.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, positions: Positions | None = None, framing: Framing | None = None) -> None:
        """Read the header of the file.

        Args:
            path: the .npy file.
            positions: int64, the selected rows in their order; None selects all.
            framing: how images are scaled and shifted when read.

        Raises:
            InputError: the file is not an .npy file of bytes, or is truncated.
        """
        try:
            # Memory-mapped only so that NumPy reads the header and compares it with the file's size; no page is read.
            head = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE as error:
            raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); make it again.") from None
        if head.dtype != np.uint8 or not head.ndim or not head.flags.c_contiguous:
            raise InputError(f"{path} has {head.dtype} of shape {head.shape}, not rows of bytes; make it again.")
        self.path, self._start, self._whole = path, int(head.offset), head.shape
        self._positions, self._framing = positions, framing
        self._file: BinaryIO | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all rows."""
        return (len(self), *self._whole[1:])

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return len(self._whole)

    @property
    def nbytes(self) -> int:
        """Return the size of all rows in bytes."""
        return len(self) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Return the size of one row in bytes."""
        return int(np.prod(self._whole[1:], dtype=np.int64))

    def __len__(self) -> int:
        return self._whole[0] if self._positions is None else len(self._positions)

    def __getitem__(self, index: int | slice | Positions) -> Bytes:
        """Read one row, a slice of rows, or the rows at int64 positions into memory."""
        if isinstance(index, int):
            return self._read(self._in_file(np.array([range(len(self))[index]])))[0]
        if isinstance(index, slice):
            return self._read(self._in_file(np.arange(*index.indices(len(self)))))
        return self._read(self._in_file(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def select(self, positions: Positions) -> "DiskArray":
        """Select the rows at int64 `positions`, without reading them."""
        return DiskArray(self.path, self._in_file(positions), self._framing)

    def framed(self, framing: Framing) -> "DiskArray":
        """Return the same images (N, C, S, S), scaled and shifted when read."""
        assert self._framing is None
        return DiskArray(self.path, self._positions, framing)

    def prefetch(self, positions: Positions) -> None:
        """Ask the system to read the rows at `positions` in the background."""
        if hasattr(os, "posix_fadvise"):
            for first, count in _runs(self._in_file(positions)):
                start = self._start + first * self.row_bytes
                os.posix_fadvise(self._opened().fileno(), start, count * self.row_bytes, os.POSIX_FADV_WILLNEED)

    def _in_file(self, positions: Positions) -> Positions:
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(self):
            raise IndexError(f"rows {int(positions.min())} to {int(positions.max())} of {len(self)}")
        return positions if self._positions is None else self._positions[positions]

    def _read(self, rows: Positions) -> Bytes:
        """Read rows of the file."""
        out = np.empty((len(rows), *self._whole[1:]), np.uint8)
        view, size, filled = out.reshape(-1).data, self.row_bytes, 0
        for first, count in _runs(rows):
            self._fill(view[filled * size : (filled + count) * size], self._start + first * size)
            filled += count
        return out if self._framing is None else frame(out, self._framing)

    def _fill(self, part: memoryview, offset: int) -> None:
        while part.nbytes:
            done = os.preadv(self._opened().fileno(), [part], offset)
            if done == 0:
                raise InputError(f"{self.path} has become shorter while it was read; make it again, then --resume the run.")
            part, offset = part[done:], offset + done

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return self._file

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # pyright: ignore[reportOptionalMemberAccess]


class RowWriter:
    """Context manager that writes an .npy file of bytes in pieces; the number of rows is only known at the end.

    Write it into a temporary folder: after an error the file is incomplete.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        """Open `path` for rows of `shape`."""
        self.shape, self.count = shape, 0
        self._file = path.open("wb")
        self._write_header()

    def write(self, rows: Bytes) -> None:
        """Append uint8 rows, shape (N, *shape)."""
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def _write_header(self) -> None:
        # NumPy leaves space in the header for a larger count.
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()
                self._file.flush()
                os.fsync(self._file.fileno())


Pixels = Bytes | DiskArray
"""Images in memory or on disk; both have shape, dtype, length and indexing by int, slice and positions."""


def frame(images: Bytes, framing: Framing) -> Bytes:
    """Return uint8 images (N, C, S, S), scaled and shifted."""
    return np.ascontiguousarray(framing.apply(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))


def evenly_spaced(positions: Positions, count: int) -> Positions:
    """Return up to `count` evenly spaced elements of `positions`."""
    if len(positions) <= count:
        return positions
    return positions[np.arange(count) * len(positions) // count]


def sample_positions(length: int, count: int) -> Positions:
    """Return a random position in each block of n, with the smallest n that gives at most `count`; always the same ones.

    Every n-th position would show one class or camera only where these alternate.
    """
    block = max(1, -(-length // count))
    starts = np.arange(0, length, block)
    return np.minimum(starts + np.random.default_rng(0).integers(block, size=len(starts)), length - 1)


def sampled(images: Pixels, count: int) -> Bytes:
    """Return the images at `sample_positions`, in memory."""
    return images[sample_positions(len(images), count)]


def select(images: Pixels, positions: Positions) -> Pixels:
    """Return the images at `positions`: a copy in memory, or a selection on disk."""
    return images.select(positions) if isinstance(images, DiskArray) else images[positions]


def blocks(images: Pixels, size: int = BLOCK) -> Iterator[Bytes]:
    """Yield all images in order, `size` at a time."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def rows_sha256(path: Path, positions: Positions) -> str:
    """Return the SHA-256 of the rows of an .npy file at int64 `positions`, in their order."""
    digest = hashlib.sha256()
    for block in blocks(DiskArray(path, positions)):
        digest.update(block.data)
    return digest.hexdigest()


def _runs(rows: Positions) -> list[tuple[int, int]]:
    """Return (first, count) for each run of consecutive rows."""
    if not len(rows):
        return []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
    counts = np.diff(np.append(starts, len(rows)))
    return list(zip(rows[starts].tolist(), counts.tolist(), strict=True))
