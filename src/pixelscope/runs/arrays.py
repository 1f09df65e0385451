"""Reads and writes the sample images of a run: arrays in samples/, drawn in reports."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE, atomic_file


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as one .npz file, atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] - keyword arrays


def read_arrays(path: Path, dimensions: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """Read the arrays named in `dimensions`; None if the file is missing, or an array is empty.

    Raises:
        InputError: the file is damaged, or an array has another number of dimensions.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in dimensions}
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged ({error}); delete it, or evaluate the run again.") from None
    wrong = [key for key, count in dimensions.items() if arrays[key].ndim != count]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} has shape {arrays[wrong[0]].shape}; delete the file, or evaluate again.")
    return arrays if all(len(array) for array in arrays.values()) else None
