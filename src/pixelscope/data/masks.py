"""Masks: images of which each pixel is outside (black) or inside (any one other value).

They are not read as pictures are: no range of values is stretched, and nothing is laid over white.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.decode import bombs_refused, load_stored
from pixelscope.errors import InputError

Values = NDArray[Any]
Flags = NDArray[np.bool_]

_BETWEEN = 0.01
"""Share of a mask's pixels that may lie between its two values: JPEG leaves ripples along edges, resizing leaves steps."""

_FEW = 16
"""Different values, at most, of a mask that nobody compressed or resized: a low one is then a label, not a ripple."""

_LOSSY = ("JPEG", "MPO")
"""Formats that cannot hold labels."""

_LAST_LABEL = 32
"""The greatest integer, at most, of a mask whose values can be nothing but labels."""


def read_mask(path: Path) -> Flags:
    """Read a mask from an image file, upright.

    What is inside is told by colour where there are black and other visible pixels: by more than half of the greatest value.
    Where all visible colours are black, or none is, it is told by what is visible, or in a palette by the index (0 is outside).

    Args:
        path: an image of any mode and depth.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the file cannot be read, or the mask has more than two values.
    """
    with bombs_refused():
        return decode_mask(path)


def decode_mask(path: Path) -> Flags:
    """Read a mask as `read_mask` does, on a thread of a program that is within `bombs_refused`."""
    stored, turn = load_stored(path)
    lossy = isinstance(stored, Image.Image) and stored.format in _LOSSY
    flags = inside(_values(stored, path), str(path), lossy)
    if turn is None:
        return flags
    return np.asarray(Image.fromarray(flags.astype(np.uint8)).transpose(turn)) > 0


def inside(values: Values, name: str, lossy: bool = False) -> Flags:
    """Return where a mask of two values has the greater one.

    Args:
        values: integers or floats of any range, any shape, 0 outside.
        name: what a message calls the mask.
        lossy: whether a format held it that changes values a little.

    Raises:
        InputError: there are more than two values, but for a few between them.
    """
    top = values.max(initial=0)
    low, high = top / 8, top - top / 8
    between = np.count_nonzero((values > low) & (values < high))
    used = np.unique(values)
    if between > _BETWEEN * values.size or (not lossy and _has_labels(used)):
        named = ", ".join(f"{value:g}" for value in used) if len(used) <= _FEW else f"{len(used):,}, up to {top:g}"
        raise InputError(
            f"The mask {name} has more than two values ({named}); give one that is black outside and white inside."
        )
    return values > top / 2


def frame_mask(path: Path, shape: tuple[int, int]) -> Flags:
    """Return where a mask marks a lesion of its frame; the caller is within `bombs_refused`.

    Args:
        path: the mask's file.
        shape: height and width of the frame.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the mask cannot be read, has another size than its frame, or more than two values.
    """
    marked = decode_mask(path)
    if marked.shape != shape:
        raise InputError(
            f"The mask {path} is {marked.shape[1]} x {marked.shape[0]} and its frame {shape[1]} x {shape[0]}; give a mask of "
            "the frame's size."
        )
    return marked


def _has_labels(used: Values) -> bool:
    """Say whether the different values of a mask are the labels of several classes."""
    top = used.max(initial=0)
    others = used[(used > 0) & (used < top)]
    if not len(others) or len(used) > _FEW:
        return False
    if used.dtype.kind != "f" and top <= _LAST_LABEL:
        return True
    # Ripples lie beside both values, labels beside black alone.
    return bool(others.min() <= top / 32) and not bool((others >= top - top / 8).any())


def _values(stored: Image.Image | Values, path: Path) -> Values:
    """Return the values (H, W) of a mask, 0 outside."""
    if not isinstance(stored, Image.Image):
        has_alpha = stored.ndim == 3 and stored.shape[2] == 4
        return _visible(*((stored[..., :3], stored[..., 3]) if has_alpha else (stored, None)), path)
    transparent = "A" in stored.mode.upper() or "transparency" in stored.info
    alpha = np.asarray(stored.convert("RGBA"))[..., 3] if transparent else None
    colours = np.asarray(stored.convert("L" if stored.mode in ("1", "L", "LA", "La") else "RGB"))
    if stored.mode == "P" and alpha is None and not _both_kinds(colours.max(axis=2)):
        return np.asarray(stored)
    return _visible(colours, alpha, path)


def _visible(colours: Values, alpha: Values | None, path: Path) -> Values:
    """Return the values of colours (H, W) or (H, W, 3), or what is visible where those are all black or all not.

    Raises InputError where nothing tells inside from outside: there are several colours, and none of them is black.
    """
    values = colours.max(axis=2) if colours.ndim == 3 else colours
    visible = np.ones(values.shape, bool) if alpha is None else alpha > np.iinfo(alpha.dtype).max // 2
    if not visible.any() or _both_kinds(values[visible]):
        return np.where(visible, values, 0)
    if not visible.all():
        return visible.astype(np.uint8)
    spread = np.ptp(colours.reshape(-1, *colours.shape[2:]).astype(np.float64), axis=0).max()
    if spread > values.max() / 2:
        raise InputError(
            f"The mask {path} has several colours and none is black; give one that is black outside, white inside."
        )
    return values


def _both_kinds(values: Values) -> bool:
    return bool(values.any()) and not bool(values.all())
