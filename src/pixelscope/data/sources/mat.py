"""MATLAB files of versions 4 to 7: their arrays of numbers and of characters.

Written here, not taken from SciPy, because a damaged file can end SciPy's reader, and the process with it, by a memory error.
Everything that a file says of itself is checked before it is used: no length is taken that its bytes do not have.

The format is "MAT-File Format", MathWorks, R2024b. Cells, structures, objects, sparse and complex arrays are passed over.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError

Array = NDArray[np.generic]

_HEAD, _TAG = 128, 8
"""Bytes of the header of a file of version 5, and of what stands before each of its elements."""
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of numbers, as they are stored."""
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Encodings of characters by the type that they are stored as."""
_CHARACTERS, _DOUBLE = 4, 6
"""Classes of arrays of characters and of double; in files of version 4 all numbers are of class double."""
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Types of numbers by the class of an array; they may be stored as a smaller one."""
_COMPLEX = 0x0800
_OLD_NUMBERS = ("f8", "f4", "i4", "i2", "u2", "u1")
"""Types of numbers in files of version 4, by the tens of the code that each array starts with."""
_OLD_CODES = 2_000
"""Codes are below; their thousands are 0 for the byte order of PCs, 1 for the other."""


def read_mat(path: Path) -> dict[str, Array]:
    """Return the arrays of numbers and of characters by name; characters are joined along the last axis.

    Args:
        path: a MATLAB file of version 4 to 7.

    Raises:
        InputError: the file is of version 7.3, which is HDF5.
        OSError, ValueError, LookupError, zlib.error: it cannot be read, or is no MATLAB file, or damaged.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if len(head) < 4:
            raise ValueError("it is no MATLAB file")
        if 0 in head[:4]:  # where version 5 has text
            file.seek(0)
            return dict(_arrays_of_version_4(file, _length(file)))
        order = {b"IM": "<", b"MI": ">"}.get(head[126:])
        if order is None:
            raise ValueError("it is no MATLAB file")
        if struct.unpack(order + "H", head[124:126])[0] >> 8 == 2:
            raise InputError(f"{path} is a MATLAB 7.3 file; save it with -v7, or as .npz.")
        found = (_array(element, order) for element in _matrices(file, _length(file), order))
        return dict(one for one in found if one is not None)


def _length(file: BinaryIO) -> int:
    """Return how many bytes follow."""
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here


def _matrices(file: BinaryIO, left: int, order: str) -> Iterator[memoryview]:
    """Yield the content of each array, decompressed."""
    while left > 0:
        kind, size = struct.unpack(order + "II", _exactly(file, _TAG))
        if size > left - _TAG:
            raise ValueError("it ends early")
        content = _exactly(file, size)
        left -= _TAG + size
        if kind == _COMPRESSED:
            kind, content = _decompressed(content, order)
        if kind == _MATRIX:
            yield memoryview(content)


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise ValueError("it ends early")
    return content


def _decompressed(content: bytes, order: str) -> tuple[int, bytes]:
    """Return type and content of the element in a compressed one."""
    stream = zlib.decompressobj()
    tag = stream.decompress(content, _TAG)
    if len(tag) != _TAG:
        raise ValueError("it ends early")
    kind, size = struct.unpack(order + "II", tag)
    inside = stream.decompress(stream.unconsumed_tail, size) if size else b""
    if len(inside) != size:
        raise ValueError("it ends early")
    return kind, inside


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each element in an array."""
    while content:
        kind, size = struct.unpack(order + "II", _first(content, _TAG))
        start, padded = _TAG, -(-size // 8) * 8
        if kind >> 16:  # a small element: two bytes of type, two of size, four of content
            start, padded, kind, size = 4, 4, kind & 0xFFFF, kind >> 16
        if size > padded or size > len(content) - start:
            raise ValueError("it ends early")
        yield kind, content[start : start + size]
        content = content[start + padded :]


def _first(content: memoryview, count: int) -> memoryview:
    if len(content) < count:
        raise ValueError("it ends early")
    return content[:count]


def _array(content: memoryview, order: str) -> tuple[str, Array] | None:
    """Return name and values of an array; None for what is not read, and for MATLAB's own, which have no name."""
    elements = _elements(content, order)
    head = [values for _, values in islice(elements, 3)]
    if len(head) < 3:
        raise ValueError("an array has no head")
    (flags,) = struct.unpack(order + "I", _first(head[0], 4))
    name = bytes(head[2]).decode("latin-1")
    if not name or flags & _COMPLEX or (flags & 0xFF) not in (_CHARACTERS, *_NUMERIC):
        return None
    shape = tuple(np.frombuffer(head[1], order + "i4").tolist())
    kind, values = next(elements, (2, memoryview(b"")))
    if kind not in (_TEXTS if flags & 0xFF == _CHARACTERS else _NUMBERS):
        raise ValueError(f"{name} is stored in an unknown type")
    if flags & 0xFF == _CHARACTERS:
        return name, _joined(_characters(bytes(values), _TEXTS[kind], order), shape)
    return name, _in_class(_shaped(np.frombuffer(values, order + _NUMBERS[kind]), shape), flags & 0xFF)


def _in_class(stored: Array, kind: int) -> Array:
    """Return numbers in the type of their class: MATLAB stores those of a double as bytes, if they are whole and fit.

    Floating-point numbers that are stored as 16 bits or fewer become float32, which has them all and takes half the memory.
    """
    wanted = np.dtype(_NUMERIC[kind])
    if wanted.kind == "f" and stored.dtype.kind != "f" and stored.dtype.itemsize <= 2:
        wanted = np.dtype("f4")
    return stored.astype(wanted, copy=False)


def _characters(values: bytes, encoding: str, order: str) -> Array:
    endian = {"<": "-le", ">": "-be"}[order] if encoding != "utf-8" else ""
    return np.array(list(values.decode(encoding + endian)), "U1")


def _shaped(values: Array, shape: tuple[int, ...]) -> Array:
    """Return a copy in the machine's byte order, in MATLAB's order of axes: the first varies fastest."""
    if not shape or min(shape) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"an array of the shape {shape} has {values.size} values")
    return values.astype(values.dtype.newbyteorder("=")).reshape(shape, order="F")


def _joined(characters: Array, shape: tuple[int, ...]) -> Array:
    """Return strings of the characters along the last axis."""
    rows = _shaped(characters, shape)
    texts = ["".join(row) for row in rows.reshape(-1, shape[-1])] if rows.size else [""] * math.prod(shape[:-1])
    return np.array(texts, np.str_).reshape(shape[:-1])


def _arrays_of_version_4(file: BinaryIO, left: int) -> Iterator[tuple[str, Array]]:
    while left > 0:
        head = _exactly(file, 20)
        order = "<" if struct.unpack("<I", head[:4])[0] < _OLD_CODES else ">"
        code, rows, columns, imaginary, length = struct.unpack(order + "Iiiii", head)
        if code >= _OLD_CODES or code // 10 % 10 >= len(_OLD_NUMBERS) or min(rows, columns, length) < 0:
            raise ValueError("it is no MATLAB file")
        stored = np.dtype(order + _OLD_NUMBERS[code // 10 % 10])
        size = rows * columns * stored.itemsize * (1 + bool(imaginary))
        if length + size > left - len(head):
            raise ValueError("it ends early")
        name = _exactly(file, length).split(b"\0")[0].decode("latin-1")
        values = np.frombuffer(_exactly(file, size), stored)
        left -= len(head) + length + size
        if code % 10 == 0 and not imaginary:
            yield name, _in_class(_shaped(values, (rows, columns)), _DOUBLE)
        elif code % 10 == 1 and not imaginary:
            yield name, _joined(np.array([chr(int(value)) for value in values], "U1"), (rows, columns))
