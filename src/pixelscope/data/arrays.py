"""Images and labels as arrays: .mat, .npz, .npy."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.data.damage import UNREADABLE
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize

IMAGE_NAMES = frozenset(("images", "image", "imgs", "img", "x", "xs", "xt", "data", "fea", "features", "pixels", "patterns"))
LABEL_NAMES = frozenset(("labels", "label", "y", "ys", "yt", "gnd", "target", "targets"))

Array = NDArray[np.generic]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Part:
    """The images, and perhaps the labels, of one part of a file."""

    images_name: str
    labels_name: str | None


def load_arrays(path: Path, size: int | None = 32) -> ImageSet:
    """Read images, and labels where there are any, from named arrays.

    Arrays are known by their names, in any case, with or without `train` or `test` in them: images, x, data, fea,
    patterns and the like; labels, y, gnd, targets and the like. Images may be (N, H, W), (N, H, W, C), (N, C, H, W),
    (N, H * W) row by row, or as MATLAB has them (H, W, N), (H, W, C, N), (H * W, N); values uint8, or numbers in
    0..1, -1..1, 0..255 or 0..65535. Labels may be numbers, names, or one column a class. Labels 1 to 10 are digits:
    10 means 0, except in an array named gnd, where 1 means 0. Arrays of both `train` and `test` give the split.

    Args:
        path: a .mat (up to version 7) or .npz file; an .npy file of images, with its labels beside it in NAME_labels.npy,
            labels.npy or y.npy; or a folder of .npy files.
        size: side in pixels to which images are resized; None keeps their own.

    Raises:
        InputError: no images are found, more than one array could be the images, or shapes or values make no sense.
    """
    arrays = read_arrays(path)
    parts = find_parts(path, arrays)
    read = [_read_part(path, arrays, part) for part in parts.values()]
    labels, classes, notes = _labels(path, parts, [label for _, label in read])
    images = torch.from_numpy(to_bytes(_joined(path, [batch for batch, _ in read]), path))
    count, first = len(images), len(read[0][0])
    return ImageSet(
        images=images if size is None else resize(images, size),
        provenance=Provenance(f"arrays:{path}", f"Arrays of {path.name}", notes=notes),
        labels=labels,
        classes=classes,
        names=[f"{i:05d}" for i in range(count)],
        test=torch.arange(count) >= first if len(parts) == 2 else None,
    )


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a file or folder by name, without those of MATLAB's own; nothing is unpickled."""
    if not path.is_dir() and path.suffix.lower() not in _READERS:
        raise InputError(f"{path} is not .mat, .npz or .npy; give arrays in one of these formats.")
    try:
        if path.is_dir():
            return {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        return _READERS[path.suffix.lower()](path)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}); save the arrays again, as numbers.") from None


def find_parts(path: Path, arrays: Arrays) -> dict[str, Part]:
    """Return the images and labels found, by part: `train` and `test`, or one of them, or all under the name ``.

    Raises InputError, which lists every array, where there are no images or more than one array could be them.
    """
    images, labels = _by_part(arrays, IMAGE_NAMES, 2), _by_part(arrays, LABEL_NAMES, 1)
    if not images:
        images, labels = _unnamed(arrays)
    several = [names for found in (images, labels) for names in found.values() if len(names) > 1]
    if several:
        which = " and ".join(several[0])
        raise InputError(f"{path} has several arrays that could be the same thing, {which}; {_listing(arrays)}")
    if not images:
        raise InputError(f"{path} has no array that looks like images; {_listing(arrays)}")
    if "" in images and len(images) > 1:
        raise InputError(f"{path} has images with and without `train` or `test` in their name; {_listing(arrays)}")
    if labels and labels.keys() != images.keys():
        raise InputError(f"{path} has images and labels of different parts; {_listing(arrays)}")
    order = sorted(images, key=("", "train", "test").index)
    return {part: Part(images[part][0], labels[part][0] if labels else None) for part in order}


def to_bytes(images: Array, path: Path) -> NDArray[np.uint8]:
    """Scale images to 0..255 by the range of their values: uint8 as it is, else 0..1, -1..1, 0..255 or 0..65535."""
    if images.dtype == np.uint8 and images.max() > 1:
        return images  # pyright: ignore[reportReturnType]
    lowest, highest = float(images.min()), float(images.max())
    if not np.isfinite(lowest + highest):
        raise InputError(f"The images of {path} have values that are not finite; replace them.")
    offset, scale = _offset_and_scale(path, lowest, highest, whole=images.dtype.kind in "iu")
    return ((images.astype(np.float32) - offset) * scale).round().astype(np.uint8)


def _offset_and_scale(path: Path, lowest: float, highest: float, whole: bool) -> tuple[float, float]:
    if -1 <= lowest < 0 and highest <= 1:
        return -1, 127.5
    if lowest >= 0 and highest <= 1:
        return 0, 255
    if lowest >= 0 and highest <= 255:
        return 0, 1
    if lowest >= 0 and highest <= 65535 and whole:
        return 0, 1 / 257
    raise InputError(f"The images of {path} have values from {lowest:g} to {highest:g}; scale them to 0..1, -1..1 or 0..255.")


def to_batch(images: Array, count: int | None, name: str) -> Array:
    """Return images in the order (N, C, H, W), whichever order they have.

    Args:
        images: see `load_arrays`.
        count: how many there are, where labels tell; else the first axis that makes sense is N.
        name: of the array, for the message.
    """
    orders = _flat_orders if images.ndim == 2 else _orders
    for axes, shape in orders(images.shape):
        batch = images.transpose(axes).reshape(shape)
        if count is None or len(batch) == count:
            return batch
    labels = "" if count is None else f" with {count} labels"
    raise InputError(f"The array {name} of shape {images.shape}{labels} cannot be read as images; reshape it to (N, H, W, C).")


def _orders(shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the ways to read a shape as images: how to transpose it, and the shape (N, C, H, W) that this gives."""
    if len(shape) == 3:
        first, last = ((0, 1, 2), (shape[0], 1, *shape[1:])), ((2, 0, 1), (shape[2], 1, *shape[:2]))
        return [last, first] if shape[0] == shape[1] != shape[2] else [first, last]
    if len(shape) != 4:
        return []
    layouts = ((3, (0, 3, 1, 2)), (1, (0, 1, 2, 3)), (2, (3, 2, 0, 1)))
    return [(axes, tuple(shape[axis] for axis in axes)) for channel, axes in layouts if shape[channel] in (1, 3)]


def _flat_orders(shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    ways = (((0, 1), shape), ((1, 0), shape[::-1]))
    return [(axes, (n, 1, side, side)) for axes, (n, pixels) in ways if (side := _side(pixels))]


def _side(pixels: int) -> int:
    side = round(pixels**0.5)
    return side if side > 1 and side * side == pixels else 0


def _read_part(path: Path, arrays: Arrays, part: Part) -> tuple[Array, Array | None]:
    images = arrays[part.images_name]
    if not images.size:
        raise InputError(f"The array {part.images_name} of {path} is empty; give images.")
    labels = None if part.labels_name is None else _flat_labels(arrays[part.labels_name], images.shape, part.labels_name)
    return to_batch(images, None if labels is None else len(labels), part.images_name), labels


def _joined(path: Path, parts: list[Array]) -> Array:
    shapes = [part.shape[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise InputError(
            f"{path} has training images of shape {shapes[0]} and test images of shape {shapes[1]}; bring both to one shape."
        )
    return np.concatenate(parts)


def _flat_labels(labels: Array, images: tuple[int, ...], name: str) -> Array:
    """Return one label an image; one column (or row) a class becomes the class's number."""
    if labels.ndim == 1 or 1 in labels.shape:
        return labels.ravel()
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        ends = (images[0], images[-1])
        if labels.shape[0] == ends[0]:
            return labels.argmax(axis=1)
        if labels.shape[1] in ends:
            return labels.argmax(axis=0)
        if labels.shape[0] == ends[1]:
            return labels.argmax(axis=1)
    raise InputError(f"The array {name} of shape {labels.shape} is not one label an image; give (N,).")


def _labels(
    path: Path, parts: dict[str, Part], found: list[Array | None]
) -> tuple[torch.Tensor | None, tuple[str, ...], tuple[str, ...]]:
    """Return each image's class, the classes' names, and what was assumed."""
    given = [labels for labels in found if labels is not None]
    if not given:
        return None, (), ()
    labels = np.concatenate(given)
    if labels.dtype.kind in "fiub":
        numbers = labels.astype(np.int64)
        if not np.array_equal(numbers, labels):
            raise InputError(f"The labels of {path} are not whole numbers; give one class number an image.")
        labels, notes = _as_digits(numbers, next(iter(parts.values())).labels_name or "")
    else:
        labels, notes = np.char.strip(labels.astype(str)), ()
    values, positions = np.unique(labels, return_inverse=True)
    return torch.from_numpy(positions.reshape(-1).astype(np.int64)), tuple(str(value) for value in values), notes


def _as_digits(labels: NDArray[np.int64], name: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn labels 1 to 10 into digits; two conventions are in use, told apart by the array's name."""
    if (labels.min(), labels.max()) != (1, 10):
        return labels, ()
    if "gnd" in name.lower():
        return labels - 1, ("Labels 1 to 10 are taken for the digits 0 to 9.",)
    return labels % 10, ("Labels 1 to 10 are taken for digits, 10 for 0.",)


def _by_part(arrays: Arrays, names: frozenset[str], least: int) -> dict[str, list[str]]:
    """Return the arrays of such names and at least so many dimensions, by the part that their names say."""
    found: dict[str, list[str]] = {}
    for name, array in arrays.items():
        part = next((part for part in ("train", "test") if part in name.lower()), "")
        if re.sub(r"train|test|[_\-. ]", "", name.lower()) in names and array.ndim >= least:
            found.setdefault(part, []).append(name)
    return found


def _unnamed(arrays: Arrays) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what can only be the images and the labels, where names don't tell."""
    images = [name for name, array in arrays.items() if array.ndim >= 3 and array.dtype.kind in "biuf"]
    labels = [name for name, array in arrays.items() if array.size == max(array.shape, default=0) > 1]
    return ({"": images} if images else {}), ({"": labels} if labels else {})


def _listing(arrays: Arrays) -> str:
    shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
    return f"it has {shapes or 'no arrays'}: name them images and labels, perhaps with _train and _test."


def _read_mat(path: Path) -> Arrays:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
    except NotImplementedError:
        raise InputError(f"{path} is a MATLAB 7.3 file; save it with -v7, or as .npz.") from None
    except MatReadError as error:
        raise ValueError(error) from None
    values = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    return {name: value for name, value in values.items() if value.dtype.kind in "biufSU"}


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_npy(path: Path) -> Arrays:
    beside = (path.with_name(name) for name in (f"{path.stem}_labels.npy", "labels.npy", "y.npy"))
    labels = next((file for file in beside if file.is_file() and file != path), None)
    files = {"images": path} if labels is None else {"images": path, "labels": labels}
    return {name: np.load(file, allow_pickle=False) for name, file in files.items()}


_READERS: dict[str, Callable[[Path], Arrays]] = {".mat": _read_mat, ".npz": _read_npz, ".npy": _read_npy}
