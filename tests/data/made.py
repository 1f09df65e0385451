"""Tiny sources of images, written by the tests themselves in the formats that users have."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return an array as the idx format has it: magic, dimensions as big-endian 32-bit numbers, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_idx(path: Path, array: NDArray[np.uint8], compressed: bool = False) -> Path:
    content = idx_bytes(array)
    if compressed:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    return path


def write_mnist(folder: Path, train: int = 12, test: int = 4, compressed: bool = False, side: int = 28) -> Path:
    """Write MNIST's four files with random digits; the labels go round the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        images, labels = IDX_FILES[part]
        write_idx(folder / images, noise((count, side, side), seed), compressed)
        write_idx(folder / labels, np.arange(count, dtype=np.uint8) % 10, compressed)
    return folder


def write_photos(folder: Path, colours: dict[str, tuple[int, int, int]], width: int = 48, height: int = 40) -> Path:
    """Write one plain PNG for each name."""
    for name, colour in colours.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), colour).save(file)
    return folder


def write_classes(folder: Path, counts: dict[str, int], side: int = 12) -> Path:
    """Write a folder a class, each with random colour PNGs 0.png, 1.png, ..."""
    for seed, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise((side, side, 3), 100 * seed + i)).save(folder / name / f"{i}.png")
    return folder


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tiff_with_pixels_at_a_float(size: int = 12) -> bytes:
    """Return a TIFF whose entry of where the pixels lie is of type float: Pillow raises a TypeError for it."""
    stream = io.BytesIO()
    Image.fromarray(noise((size, size))).save(stream, "TIFF")
    content = bytearray(stream.getvalue())
    at = struct.unpack("<I", content[4:8])[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack("<H", content[at : at + 2])[0], 12):
        if struct.unpack("<H", content[entry : entry + 2])[0] == 273:
            content[entry + 2 : entry + 4] = struct.pack("<H", 11)
    return bytes(content)
