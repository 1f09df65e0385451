"""The numbers and sample images of a training as TensorBoard event files, next to stats.jsonl."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "tensorboard"
"""Folder of the event files in a run folder."""
COLUMNS = 10
"""Images per row of a grid."""


class TensorBoardEvents:
    """Writes event files into the folder `tensorboard` of a run; the position of everything is the number of images seen."""

    def __init__(self, run: Path, valid_until: int | None = None) -> None:
        """Open the event files of a run.

        valid_until: of a resumed run, the images seen at its checkpoint; TensorBoard then hides what came after.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what tensorboard imports
            from torch.utils.tensorboard import SummaryWriter

            purge = None if valid_until is None else valid_until + 1
            self._writer = SummaryWriter(str(run / FOLDER), purge_step=purge)

    def log(self, kind: str, numbers: Mapping[str, Any], images: int) -> None:
        """Add a line of stats.jsonl as scalars; a list becomes one per element, a line of the kind `warning` becomes text."""
        for name, value in numbers.items():
            if kind == "warning":
                self._writer.add_text(f"warning/{name}", str(value), images)
            else:
                for tag, number in (
                    [(name, value)] if np.isscalar(value) else [(f"{name}/{i}", one) for i, one in enumerate(value)]
                ):
                    self._writer.add_scalar(tag, number, images)
        self._writer.flush()

    def samples(self, found: Mapping[str, NDArray[np.uint8]], images: int) -> None:
        """Add a grid per name, of sample images (K, H, W, 3)."""
        for name, stack in found.items():
            self._writer.add_image(f"samples/{name}", grid(stack), images, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending and close the files."""
        self._writer.close()


def grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (K, H, W, 3) as one (rows x H, columns x W, 3), at most `COLUMNS` per row; empty places are white."""
    count, height, width, channels = images.shape
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    padded = np.full((rows * columns, height, width, channels), 255, np.uint8)
    padded[:count] = images
    return (
        padded.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    )
