"""The recipe of MNIST-M: a crop of a photo, inverted under a digit's mask (Ganin et al. 2016)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pixelscope.data.decode import read_image
from pixelscope.errors import InputError

Bytes = NDArray[np.uint8]
Masks = NDArray[np.bool_]


def digit_masks(digits: Bytes, margin: int = 0) -> Masks:
    """Return where digits (N, H, W) are above 0, with `margin` more pixels of background on every side.

    The mask is binary: a grey value, as antialiasing or resizing leaves it, would draw a dark outline around the digit.
    """
    sides = (margin, margin)
    return np.pad(digits > 0, ((0, 0), sides, sides))


def invert_under(crops: Bytes, masks: Masks) -> Bytes:
    """Return |crop - 255 * mask|, broadcast: 255 - crop under the mask, and the crop itself elsewhere."""
    return np.where(masks, 255 - crops, crops)


def blend_over_photos(
    masks: Masks, members: NDArray[np.int64], photos: Sequence[Path], random: np.random.Generator, out: Bytes
) -> None:
    """Fill `out[members]` with crops at random places of random photos, inverted under `masks[members]`.

    Each photo is read once, and one at a time is held in memory.

    Args:
        masks: bool, shape (N, S, S).
        members: positions to fill.
        photos: image files, each at least S x S pixels.
        random: draws the photos and the places in them, both uniformly.
        out: uint8, shape (N, S, S, 3), written in place.

    Raises:
        InputError: a photo is unreadable, or smaller than S x S.
    """
    chosen = (random.random(len(members)) * len(photos)).astype(np.int64)
    places = random.random((len(members), 2))
    for index, photo in enumerate(photos):
        mine = np.flatnonzero(chosen == index)
        positions = members[mine]
        crops = cut(read_photo(photo, masks.shape[1]), places[mine], masks.shape[1])
        out[positions] = invert_under(crops, masks[positions][..., None])


def cut(photo: Bytes, places: NDArray[np.float64], size: int) -> Bytes:
    """Cut square crops from one photo.

    Args:
        photo: uint8, shape (H, W, 3).
        places: shape (K, 2), each crop's corner from 0 (top, left) to just under 1 (as far down, right as fits).
        size: side of a crop in pixels.

    Returns:
        uint8, shape (K, size, size, 3).
    """
    room = np.array(photo.shape[:2]) - size + 1
    rows, columns = (places * room).astype(np.int64).T
    windows = sliding_window_view(photo, (size, size), axis=(0, 1))
    return windows[rows, columns].transpose(0, 2, 3, 1)


def read_photo(path: Path, smallest: int) -> Bytes:
    """Read a photo as RGB, shape (H, W, 3); raises InputError where it is unreadable or has a side under `smallest`."""
    photo = read_image(path)
    if min(photo.shape[:2]) < smallest:
        raise InputError(
            f"The photo {path} is {photo.shape[1]} x {photo.shape[0]} pixels, too small for crops of {smallest} x {smallest}; "
            "remove it or make it larger."
        )
    return np.broadcast_to(photo, (*photo.shape[:2], 3))
