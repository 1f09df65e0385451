"""Orders of the axes of image arrays: which fit a shape, and images brought to (N, C, H, W).

A layout names the axes in order, separated by dashes: N counts images, H and W are rows and columns, C is the colour. Letters
without a dash share one axis, the first of them varying slowest: `N-HW` is one row of pixels per image. Without a layout the
first axis counts images.
"""

import math
import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError

Array = NDArray[np.generic]
Shape = tuple[int, ...]

USPS = "usps"
"""Layout of Roweis' usps_all.mat: pixels column by column, then the digits of one class, then the classes 1, 2, ..., 9, 0."""

USPS_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)
_USPS_SIDE = 16
_FLAT = ("N-HW", "HW-N", "N-CHW", "N-HWC", "CHW-N", "HWC-N")
_CUBES = ("N-H-W", "H-W-N", "H-W-C")
_COLOUR = ("N-H-W-C", "N-C-H-W", "H-W-C-N")


def possible_layouts(shape: Shape) -> list[str]:
    """Return all layouts in which an array of this shape has images of one or three channels."""
    named = {2: _FLAT, 3: _CUBES, 4: _COLOUR}.get(len(shape), ())
    usps = [USPS] if len(shape) == 3 and (shape[0], shape[2]) == (_USPS_SIDE**2, len(USPS_CLASSES)) else []
    return [layout for layout in named if _fits(shape, layout)] + usps


def check_layout(layout: str, shape: Shape, name: str) -> None:
    """Raise InputError if `layout` is not a layout, or does not fit the shape."""
    letters = layout.replace("-", "")
    groups = layout.split("-")
    sound = re.fullmatch("[NHWC-]+", layout) and len(set(letters)) == len(letters) and {"H", "W"} <= set(letters)
    if layout != USPS and not (sound and all(groups)):
        raise InputError(
            f"{layout!r} is not an order of axes; write for example N-H-W-C (images, rows, columns, colours), H-W-N, or N-HW "
            "for one row of pixels per image."
        )
    if layout not in possible_layouts(shape) and not (layout != USPS and _fits(shape, layout)):
        possible = " or ".join(f"@{one}" for one in possible_layouts(shape)[:2])
        example = f", for example {possible}" if possible else ""
        raise InputError(f"The array {name} of shape {shape} cannot be read as {layout}; write the order of its axes{example}.")


def choose_layout(shapes: Sequence[Shape], counts: Sequence[Collection[int]], name: str, path: str) -> str:
    """Return the layout of arrays whose first axis counts images.

    Args:
        shapes: of each part's array.
        counts: by part, the numbers of images that its labels allow; empty if it has no labels.
        name: of the first array, for messages.
        path: of the file, for messages.

    Raises:
        InputError: no such layout fits, two fit, or only another one has square images.
    """
    fitting = [layout for layout in possible_layouts(shapes[0]) if _fits_all(shapes, counts, layout)]
    first = [layout for layout in fitting if layout.startswith("N")]
    others_square = any(_is_square(shapes[0], layout) for layout in fitting)
    if len(first) == 1 and (_is_square(shapes[0], first[0]) or not others_square):
        return first[0]
    if fitting:
        raise InputError(_ambiguous(shapes[0], fitting, name, path))
    labels = f" with {' or '.join(map(str, sorted(counts[0])))} labels" if counts[0] else ""
    raise InputError(f"The array {name} of shape {shapes[0]}{labels} cannot be read as images; reshape it to (N, H, W, C).")


def count_images(shape: Shape, layout: str) -> int:
    """Return the number of images in an array of this shape."""
    if layout == USPS:
        return shape[1] * shape[2]
    return _lengths(shape, layout).get("N", 1)


def image_shape(shape: Shape, layout: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images in an array of this shape."""
    if layout == USPS:
        return 1, _USPS_SIDE, _USPS_SIDE
    lengths = _lengths(shape, layout)
    return lengths.get("C", 1), lengths["H"], lengths["W"]


def arrange(images: Array, layout: str) -> Array:
    """Return images as (N, C, H, W); images of USPS are sorted by class, in the order of `USPS_CLASSES`."""
    if layout == USPS:
        by_class = images.transpose(2, 1, 0).reshape(-1, 1, _USPS_SIDE, _USPS_SIDE)
        return by_class.swapaxes(2, 3)
    lengths = _lengths(images.shape, layout)
    whole = images.reshape(tuple(lengths.values()))
    order = [letter for letter in "NCHW" if letter in lengths]
    batch = whole.transpose([list(lengths).index(letter) for letter in order])
    return batch.reshape(count_images(images.shape, layout), *image_shape(images.shape, layout))


def usps_labels(shape: Shape) -> NDArray[np.int64]:
    """Return the digit of each image of an array in the layout of USPS."""
    return np.repeat(np.array(USPS_CLASSES, np.int64), shape[1])


def _lengths(shape: Shape, layout: str) -> dict[str, int]:
    """Return the length of each letter of a layout, in its order."""
    return {letter: n for group, length in zip(layout.split("-"), shape, strict=True) for letter, n in _parted(group, length)}


def _parted(group: str, length: int) -> list[tuple[str, int]]:
    """Return the letters that share one axis, with the length of each; images on one axis are square."""
    if len(group) == 1:
        return [(group, length)]
    side = math.isqrt(length // 3 if "C" in group else length)
    return [(letter, 3 if letter == "C" else side) for letter in group]


def _fits(shape: Shape, layout: str) -> bool:
    groups = layout.split("-")
    if len(groups) != len(shape) or any("N" in group and len(group) > 1 for group in groups):
        return False
    if any(math.prod(n for _, n in _parted(group, length)) != length for group, length in zip(groups, shape, strict=True)):
        return False
    lengths = _lengths(shape, layout)
    alone = "N" not in lengths
    return lengths.get("C", 1) in ((3,) if alone else (1, 3)) and min(lengths["H"], lengths["W"]) > 1


def _fits_all(shapes: Sequence[Shape], counts: Sequence[Collection[int]], layout: str) -> bool:
    pairs = zip(shapes, counts, strict=True)
    return all(
        layout in possible_layouts(shape) and (not allowed or count_images(shape, layout) in allowed)
        for shape, allowed in pairs
    )


def _is_square(shape: Shape, layout: str) -> bool:
    _, height, width = image_shape(shape, layout)
    return height == width


def _ambiguous(shape: Shape, layouts: Sequence[str], name: str, path: str) -> str:
    readings = " or ".join(f"{_described(shape, layout)} ({layout})" for layout in layouts)
    examples = " or ".join(f"arrays:{path}@{layout}" for layout in layouts[:2])
    return f"The array {name} of shape {shape} could be {readings}; write the order of its axes after the path, {examples}."


def _described(shape: Shape, layout: str) -> str:
    channels, height, width = image_shape(shape, layout)
    count = count_images(shape, layout)
    kind = "colour" if channels == 3 else "grey"
    return f"{count:,} {kind} image{'' if count == 1 else 's'} of {height} x {width}"
