"""Images and labels as arrays in .mat, .npz and .npy files.

Properties that are ambiguous need a setting after the path; see `ArraySettings`. Three published files are recognised by
the names and shapes of their arrays; see `KNOWN_FORMATS`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.formats.decode import is_flat
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.axes import USPS, Array, Shape, arrange, check_layout, choose_layout, count_images, usps_labels
from pixelscope.data.sources.mat import read_mat
from pixelscope.errors import InputError, note
from pixelscope.files import UNREADABLE
from pixelscope.imaging.convert import BYTES_FROM, Range, known_range, range_note, range_text, to_eight_bits
from pixelscope.imaging.resize import resize

IMAGE_NAMES = frozenset(("images", "image", "imgs", "img", "x", "xs", "xt", "data", "fea", "features", "pixels", "patterns"))
LABEL_NAMES = frozenset(("labels", "label", "y", "ys", "yt", "gnd", "target", "targets"))

_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Usual ranges of stored values; others are noted."""

_BLOCK = 1024
"""Images scaled at a time."""

Arrays = dict[str, Array]


PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Words in the names of arrays, and the part of the split that each means."""


DIGIT_ZERO = {"10": 10, "1": 1, "none": None}
"""Values of the setting `digit-0`, and the label of digit 0; None if labels are not digits."""


@dataclass(frozen=True)
class ArraySettings:
    """Settings after the path and an @, as in `a.mat@axes=H-W-N,range=0:16`."""

    images: str | None = None
    """Name of the array of images."""
    labels: str | None = None
    """Name of the array of labels."""
    axes: str | None = None
    """Order of the axes of the images."""
    range: Range | None = None
    """Values that become black and white, in arrays of any type."""
    digit_zero: str | None = None
    """Meaning of labels 1 to 10: `10` if label 10 is digit 0, `1` if label 1 is, `none` if they are not digits."""

    @classmethod
    def parse(cls, text: str | None) -> "ArraySettings":
        """Parse some of `images=NAME,labels=NAME,axes=ORDER,range=LOW:HIGH,digit-0=LABEL`; ORDER alone means `axes=ORDER`.

        Raises:
            InputError: a setting is unknown, empty or given twice; or `labels` is given without `images`.
        """
        if text is None:
            return cls()
        first, *rest = text.split(",")
        entries = [entry.partition("=") for entry in (first if "=" in first else f"axes={first}", *rest)]
        given = {name: value for name, _, value in entries}
        known = given.keys() <= {"images", "labels", "axes", "range", "digit-0"} and len(given) == len(entries)
        complete = all(given.values()) or text == ""
        if not (known and complete) or ("labels" in given) > ("images" in given):
            raise InputError(
                f"@{text} is not understood; write @ORDER, or some of "
                "@images=NAME,labels=NAME,axes=ORDER,range=LOW:HIGH,digit-0=LABEL."
            )
        digit_zero = given.get("digit-0")
        if digit_zero not in (None, *DIGIT_ZERO):
            raise InputError(
                f"digit-0={digit_zero} is not the label of digit 0; write digit-0={' or digit-0='.join(DIGIT_ZERO)}."
            )
        return cls(given.get("images"), given.get("labels"), given.get("axes"), _parse_range(given.get("range")), digit_zero)


@dataclass(frozen=True)
class KnownFormat:
    """A published file, recognised by its names of arrays and the shape of its images."""

    names: frozenset[str]
    """All arrays of the file."""
    shape: tuple[int | None, ...]
    """Of the images; None is the number of images."""
    axes: str
    digit_zero: str | None = None


KNOWN_FORMATS = {
    "SVHN, cropped digits": KnownFormat(frozenset(("X", "y")), (32, 32, 3, None), "H-W-C-N", "10"),
    "USPS of Cai": KnownFormat(frozenset(("fea", "gnd")), (None, 256), "N-HW", "1"),
    "USPS of Roweis": KnownFormat(frozenset(("data",)), (256, 1100, 10), "usps"),
}
"""Published .mat files: SVHN `train_32x32.mat` (Netzer et al. 2011; label 10 is digit 0), Deng Cai's `USPS.mat` (label 1 is
digit 0), and Sam Roweis' `usps_all.mat` (1,100 images of each digit)."""


@dataclass(frozen=True)
class Part:
    """The names of the arrays of one part of the split."""

    images_name: str
    labels_name: str | None


@dataclass(frozen=True)
class ReadPart:
    """Images and labels of one part of the split."""

    images: Array
    """(N, C, H, W)."""
    labels: Array | None
    """(N,)."""


def load_arrays(path: Path, size: int | None = 32, settings: str | None = None, value_range: Range | None = None) -> ImageSet:
    """Read images, and labels if there are any, from named arrays.

    Unless settings name them, arrays are found by their names in any case, with or without `train`, `val` or `test`: images, x,
    data, fea, patterns and others in `IMAGE_NAMES`; labels, y, gnd, targets and others in `LABEL_NAMES`. Arrays of `test` are
    the test split; those of `train` and `val` are training images.

    Unless settings name the order of the axes, images are (N, H, W), (N, H, W, C), (N, C, H, W) or (N, H * W).

    Values are uint8; or in 0..1, -1..1 or 0..255 (floats that reach 128); or integers of 10, 12 or 16 bits, with a note. The
    setting `range=LOW:HIGH` is needed for all others. All parts have one range.

    Labels are numbers, names, or one-hot (0 and 1, or -1 and 1). Labels that run from 1 to 10 need the setting `digit-0`: 10 if
    label 10 is digit 0 (as in SVHN), 1 if label 1 is (as in Cai's USPS), `none` if they are not digits.

    `KNOWN_FORMATS` need no settings.

    Args:
        path: a .mat (up to version 7) or .npz file; an .npy file of images, with its labels in NAME_labels.npy, labels.npy or
            y.npy next to it; or a folder of .npy files.
        size: side in pixels to which images are resized; None keeps their own.
        settings: see `ArraySettings.parse`. None uses the conventions above.
        value_range: values that become black and white in arrays deeper than 8 bits; `range` of the settings takes precedence.

    Raises:
        InputError: images are not found; their axes, range or labels are ambiguous; labels are not one class per image; values
            are not finite; or the parts have values of different ranges.
    """
    arrays = read_arrays(path)
    chosen, format_notes = recognise(arrays, ArraySettings.parse(settings))
    parts = find_parts(path, arrays, chosen)
    read = _read_parts(path, arrays, parts, chosen.axes)
    labels, classes, label_notes = _labels(path, [part.labels for part in read], chosen.digit_zero)
    if chosen.range is None and value_range is None:
        _check_one_range(path, {part.images_name: one.images for part, one in zip(parts.values(), read, strict=True)})
    joined = _joined(path, [part.images for part in read])
    given = chosen.range or (None if _is_bytes(joined) else value_range)
    low_high = given or find_range(joined, path)
    scaled = to_bytes(joined, path, low_high)
    is_test = [name == "test" for name, part in zip(parts, read, strict=True) for _ in part.images]
    notes = (*format_notes, *label_notes, *_part_notes(parts, read), *_unread_notes(arrays, parts), *_flat_notes(scaled))
    deep = None if given is None and low_high in _USUAL else low_high
    return ImageSet(
        images=scaled if size is None else resize(scaled, size),
        provenance=Provenance(
            f"arrays:{path}" + (f"@{settings}" if settings else ""),
            f"Arrays of {path.name}",
            notes=(*notes, *([] if deep is None else [range_note(deep)])),
            value_range=deep,
        ),
        labels=labels,
        classes=classes,
        names=[f"{i:05d}" for i in range(len(scaled))],
        test=np.array(is_test) if len(set(is_test)) == 2 else None,
    )


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a file or folder by name, without MATLAB's own entries; nothing is unpickled."""
    if not path.is_dir() and path.suffix.lower() not in _READERS:
        raise InputError(f"{path} is not .mat, .npz or .npy; give arrays in one of these formats.")
    try:
        if path.is_dir():
            return {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        return _READERS[path.suffix.lower()](path)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}); save the arrays again, as numbers.") from None


def recognise(arrays: Arrays, given: ArraySettings) -> tuple[ArraySettings, tuple[str, ...]]:
    """Return the settings, completed by those of a known format if the arrays have one, and a note that names it."""
    for name, known in KNOWN_FORMATS.items():
        shapes = [array.shape for key, array in arrays.items() if array.ndim == len(known.shape) and key in known.names]
        if arrays.keys() == known.names and any(_has_shape(shape, known.shape) for shape in shapes):
            ten = known.digit_zero if _runs_to_ten(arrays) else None
            completed = replace(given, axes=given.axes or known.axes, digit_zero=given.digit_zero or ten)
            return completed, (f"Recognised as {name}.",) if completed != given else ()
    return given, ()


def find_parts(path: Path, arrays: Arrays, settings: ArraySettings = ArraySettings()) -> dict[str, Part]:
    """Return the names of images and labels by part: some of `train`, `val` and `test`, or all under the name ``.

    Raises:
        InputError: a named array is missing; none is named like images, or several are.
    """
    if settings.images is not None:
        missing = [name for name in (settings.images, settings.labels) if name is not None and name not in arrays]
        if missing:
            raise InputError(f"{path} has no array {missing[0]}; {_listing(path, arrays)}")
        return {"": Part(settings.images, settings.labels)}
    images, labels = _by_part(arrays, IMAGE_NAMES, 2), _by_part(arrays, LABEL_NAMES, 1)
    several = [names for found in (images, labels) for names in found.values() if len(names) > 1]
    if several:
        raise InputError(f"{path} has several arrays of that kind, {' and '.join(several[0])}; {_listing(path, arrays)}")
    if not images:
        raise InputError(f"{path} has no array that is named like images; {_listing(path, arrays)}")
    if "" in images and len(images) > 1:
        raise InputError(f"{path} has images with and without `train` or `test` in their name; {_listing(path, arrays)}")
    if labels and labels.keys() != images.keys():
        raise InputError(f"{path} has images and labels of different parts; {_listing(path, arrays)}")
    order = sorted(images, key=("", "train", "val", "test").index)
    return {part: Part(images[part][0], labels[part][0] if labels else None) for part in order}


def find_range(images: Array, path: Path) -> Range:
    """Return the values that become black and white: see `load_arrays`.

    Raises InputError if a value is not finite, or no usual range contains all values.
    """
    lowest, highest = _least_and_greatest(images, path)
    whole = images.dtype.kind != "f"
    if whole and lowest >= 0 and highest <= 1:
        return 0.0, 1.0
    if not whole and lowest >= 0 and BYTES_FROM <= highest <= 255:
        return 0.0, 255.0
    found = known_range(lowest, highest, whole)
    if found is None:
        raise InputError(
            f"The images of {path} have values from {lowest:g} to {highest:g}, which are not in 0..1, -1..1, 0..255 or "
            f"0..65535; write the values of black and white after the path: arrays:{path}@range=LOW:HIGH."
        )
    return found


def to_bytes(images: Array, path: Path, value_range: Range | None = None) -> NDArray[np.uint8]:
    """Scale images to 0..255 by `value_range`, by default their usual range.

    Raises InputError if a value is not finite, or no usual range contains all values.
    """
    _least_and_greatest(images, path)
    low_high = value_range or find_range(images, path)
    if images.dtype == np.uint8 and low_high == (0.0, 255.0):
        return images  # pyright: ignore[reportReturnType]
    scaled = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _BLOCK):
        scaled[start : start + _BLOCK] = to_eight_bits(images[start : start + _BLOCK], low_high)
    return scaled


def _parse_range(text: str | None) -> Range | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise InputError(f"range={text} is not a range; write range=LOW:HIGH, with LOW below HIGH, for example range=0:4095.")
    return low, high


def _has_shape(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    return all(length in (None, actual) for actual, length in zip(shape, wanted, strict=True))


def _runs_to_ten(arrays: Arrays) -> bool:
    """Return whether an array's values run from 1 to 10."""
    return any((array.min(), array.max()) == (1, 10) for array in arrays.values() if array.dtype.kind in "iuf" and array.size)


def _least_and_greatest(images: Array, path: Path) -> Range:
    lowest, highest = float(images.min()), float(images.max())
    if not math.isfinite(lowest + highest):
        raise InputError(f"The images of {path} have values that are not finite; replace them.")
    return lowest, highest


def _is_bytes(images: Array) -> bool:
    return images.dtype == np.uint8 or images.dtype == np.bool_


def _read_parts(path: Path, arrays: Arrays, parts: dict[str, Part], layout: str | None) -> list[ReadPart]:
    """Return all parts, read in one layout."""
    images = [arrays[part.images_name] for part in parts.values()]
    names = [part.images_name for part in parts.values()]
    for array, name in zip(images, names, strict=True):
        if not array.size:
            raise InputError(f"The array {name} of {path} is empty; give images.")
        if array.dtype.kind not in "biuf":
            raise InputError(f"The array {name} of {path} has values of the type {array.dtype}; give integers or floats.")
        if layout is not None:
            check_layout(layout, array.shape, name)
    labels = [_label_readings(arrays, part) for part in parts.values()]
    found = layout or choose_layout([array.shape for array in images], labels, names[0], str(path))
    return [
        ReadPart(arrange(array, found), _labels_of(array.shape, readings, found, name))
        for array, readings, name in zip(images, labels, names, strict=True)
    ]


def _labels_of(shape: tuple[int, ...], readings: dict[int, Array], layout: str, name: str) -> Array | None:
    if layout == USPS and not readings:
        return usps_labels(shape)
    count = count_images(shape, layout)
    if readings and count not in readings:
        given = " or ".join(map(str, readings))
        raise InputError(
            f"The array {name} of shape {shape} has {count} images as {layout}, but {given} labels; write another order."
        )
    return readings.get(count)


def _joined(path: Path, parts: list[Array]) -> Array:
    shapes = [part.shape[1:] for part in parts]
    if len(set(shapes)) > 1:
        raise InputError(
            f"{path} has training images of shape {shapes[0]} and test images of shape {shapes[-1]}; resize all to one shape."
        )
    return np.concatenate(parts)


def _check_one_range(path: Path, parts: Arrays) -> None:
    """Raise InputError if the parts have different ranges, so that the same value would be another grey in each."""
    found = {name: (find_range(array, path), _storage(array)) for name, array in parts.items()}
    (first, (its_range, storage)), *others = found.items()
    for name, (low_high, stored) in others:
        beyond_1 = (0.0, 1.0) in (low_high, its_range) and max(low_high[1], its_range[1]) > 1
        if low_high != its_range and (stored != storage or beyond_1):
            raise InputError(
                f"{path} has different value ranges: {range_text(its_range)} in {first} ({parts[first].dtype}), "
                f"{range_text(low_high)} in {name} ({parts[name].dtype}); give one for all, as arrays:{path}@range=LOW:HIGH."
            )


def _storage(array: Array) -> str:
    return "floats" if array.dtype.kind == "f" else "bytes" if array.dtype.itemsize == 1 else "integers"


def _flat_notes(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return a note on images (N, C, H, W) of a single colour."""
    flat = [f"{position:05d}" for position, image in enumerate(images) if is_flat(image.transpose(1, 2, 0))]
    text = f"A single flat colour: {{count}} of {len(images):,} images: {{names}}."
    return note(text, flat)


def _label_readings(arrays: Arrays, part: Part) -> dict[int, Array]:
    """Return the labels of a part by their number of images; one-hot labels may be read by rows and by columns."""
    if part.labels_name is None:
        return {}
    labels, name = arrays[part.labels_name], part.labels_name
    flat = labels.reshape([n for n in labels.shape if n != 1] or [1])
    if flat.ndim == 1:
        return {len(flat): flat}
    if flat.ndim > 2 or flat.dtype.kind not in "biuf":
        raise InputError(f"The array {name} of shape {labels.shape} is not one label per image; give labels of shape (N,).")
    return _one_hot_readings(flat, arrays[part.images_name].shape, name)


def _one_hot_readings(labels: Array, images: tuple[int, ...], name: str) -> dict[int, Array]:
    """Return the classes of one-hot labels, one row per image or one column per image, by the number of images."""
    readings = [one for one in (labels, labels.T) if len(one) in images]
    if not readings:
        raise InputError(f"The array {name} of shape {labels.shape} is not one label per image; give labels of shape (N,).")
    found: dict[int, Array] = {}
    for one in (one for one in readings if _first_not_one_hot(one) is None):
        classes = one.argmax(axis=1)
        if not np.array_equal(found.setdefault(len(one), classes), classes):
            raise InputError(
                f"The array {name} of shape {labels.shape} is one-hot by rows and by columns; give class numbers of shape (N,)."
            )
    if not found:
        row = _first_not_one_hot(readings[0])
        text = np.array2string(readings[0][row], threshold=20, max_line_width=10_000)
        raise InputError(
            f"Row {row} of the array {name} of shape {labels.shape} is {text}, which is not one-hot (one 1, the rest 0); give "
            "one class number per image, (N,)."
        )
    return found


def _first_not_one_hot(rows: Array) -> int | None:
    """Return the first row that is not a single 1 among 0, or among -1; None if there is none."""
    low = -1 if (rows == -1).sum() > (rows == 0).sum() else 0
    one_hot = ((rows == 1).sum(axis=1) == 1) & ((rows == low).sum(axis=1) == rows.shape[1] - 1)
    return None if one_hot.all() else int(np.flatnonzero(~one_hot)[0])


def _part_notes(parts: dict[str, Part], read: list[ReadPart]) -> tuple[str, ...]:
    counts = {name: len(part.images) for name, part in zip(parts, read, strict=True)}
    if "val" not in parts:
        return ()
    return (f"The {counts['val']:,} images of {parts['val'].images_name} are training images, as with `val` in a folder.",)


def _unread_notes(arrays: Arrays, parts: dict[str, Part]) -> tuple[str, ...]:
    read = {name for part in parts.values() for name in (part.images_name, part.labels_name)}
    unread = [f"{name} {array.shape}" for name, array in sorted(arrays.items()) if name not in read]
    return (f"Not read: {', '.join(unread)}.",) if unread else ()


def _labels(
    path: Path, found: list[Array | None], digit_zero: str | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...], tuple[str, ...]]:
    """Return the class of each image, the names of the classes, and notes."""
    given = [labels for labels in found if labels is not None]
    if not given:
        return None, (), ()
    labels = np.concatenate(given)
    if labels.dtype.kind in "fiub":
        if not np.isfinite(labels).all() or not np.array_equal(numbers := labels.astype(np.int64), labels):
            raise InputError(f"The labels of {path} are not whole numbers; give one class number per image.")
        labels, notes = _as_digits(numbers, digit_zero, path)
    elif labels.dtype.kind in "US":
        labels, notes = np.char.strip(labels.astype(str)), ()
    else:
        raise InputError(f"The labels of {path} are of the type {labels.dtype}; give one class number or name per image.")
    values, positions = np.unique(labels, return_inverse=True)
    return positions.reshape(-1).astype(np.int64), tuple(str(value) for value in values), notes


def _as_digits(labels: NDArray[np.int64], digit_zero: str | None, path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as digits, by the setting `digit-0`, and a note on it; labels that do not run from 1 to 10 need none."""
    lowest, highest = labels.min(), labels.max()
    if digit_zero is None and (lowest, highest) == (1, 10):
        raise InputError(
            f"The labels of {path} run from 1 to 10; write arrays:{path}@digit-0=10 if label 10 is digit 0, @digit-0=1 if "
            "label 1 is digit 0, or @digit-0=none if they are not digits."
        )
    zero = DIGIT_ZERO[digit_zero or "none"]
    if zero is None:
        return labels, ()
    if lowest < 1 or highest > 10:
        raise InputError(f"The labels of {path} run from {lowest} to {highest}, not from 1 to 10; leave out digit-0.")
    digits = labels % 10 if zero == 10 else labels - 1
    return digits, (f"Labels 1 to 10 are read as digits: {zero} is 0.",)


def _by_part(arrays: Arrays, names: frozenset[str], least: int) -> dict[str, list[str]]:
    """Return the arrays with one of `names` and at least `least` dimensions, by the part in their names."""
    found: dict[str, list[str]] = {}
    for name, array in arrays.items():
        part = _part_of(name, names)
        if part is not None and array.ndim >= least:
            found.setdefault(part, []).append(name)
    return found


def _part_of(name: str, names: frozenset[str]) -> str | None:
    """Return the part in a name, `` if there is none; None if the rest of the name is not one of `names`."""
    plain = re.sub(r"[_\-. ]", "", name.lower())
    if plain in names:
        return ""
    rests = [(plain.removeprefix(word), part) for word, part in PARTS.items() if plain.startswith(word)]
    rests += [(plain.removesuffix(word), part) for word, part in PARTS.items() if plain.endswith(word)]
    return next((part for rest, part in rests if rest in names), None)


def _listing(path: Path, arrays: Arrays) -> str:
    shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
    return f"it has {shapes or 'no arrays'}; write arrays:{path}@images=NAME,labels=NAME."


def _read_npz(path: Path) -> Arrays:
    # Opened here, because np.load leaves a file open that turns out damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_npy(path: Path) -> Arrays:
    candidates = (path.with_name(name) for name in (f"{path.stem}_labels.npy", "labels.npy", "y.npy"))
    labels = next((file for file in candidates if file.is_file() and file != path), None)
    files = {"images": path} if labels is None else {"images": path, "labels": labels}
    return {name: np.load(file, allow_pickle=False) for name, file in files.items()}


_READERS: dict[str, Callable[[Path], Arrays]] = {".mat": read_mat, ".npz": _read_npz, ".npy": _read_npy}
