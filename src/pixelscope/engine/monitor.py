"""The numbers of training steps: packed into one tensor, averaged, checked to be finite, written as TensorBoard event files."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.engine.distributed import average
from pixelscope.errors import TrainingStopped

Layout = tuple[tuple[str, torch.Size], ...]
"""Names and shapes of numbers, in order."""

WATCHED = ("loss/", "gradient/")
"""Beginnings of the names of numbers that must be finite."""
EVENTS = "tensorboard"
"""Folder of the event files in a run folder."""
GRID_COLUMNS = 10
"""Images per row of a grid."""


@dataclass(frozen=True)
class StepNumbers:
    """The named numbers of one step in one tensor, so that each operation on them takes one launch, not one per name."""

    layout: Layout
    values: Tensor
    """float32, flat, on the training device, in the order of `layout`."""

    @classmethod
    def pack(cls, numbers: Mapping[str, Tensor]) -> "StepNumbers":
        """Pack named tensors of any shapes."""
        flat = [value.detach().float().flatten() for value in numbers.values()]
        return cls(tuple((name, value.shape) for name, value in numbers.items()), torch.cat(flat))

    def unpack(self) -> dict[str, Tensor]:
        """Return the named tensors, views of `values`."""
        parts = self.values.split([shape.numel() for _, shape in self.layout])
        return {name: part.view(shape) for (name, shape), part in zip(self.layout, parts, strict=True)}


class Meter:
    """Running means of step numbers, kept on the device to avoid synchronization."""

    def __init__(self) -> None:
        self._sums: dict[Layout, Tensor] = {}
        self._steps: dict[Layout, int] = {}

    def add(self, numbers: StepNumbers) -> None:
        """Add one step's numbers; a step may lack some names."""
        layout = numbers.layout
        # Copied, because a captured step writes its numbers to the same memory each time.
        self._sums[layout] = self._sums[layout] + numbers.values if layout in self._sums else numbers.values.clone()
        self._steps[layout] = self._steps.get(layout, 0) + 1

    def read(self) -> dict[str, float | list[float]]:
        """Return the means over steps and ranks, numbers or lists of them, and reset."""
        means = dict(sorted(self._means()))
        flat = average(torch.cat([mean.flatten() for mean in means.values()])).tolist() if means else []
        result: dict[str, float | list[float]] = {}
        for name, mean in means.items():
            values, flat = flat[: mean.numel()], flat[mean.numel() :]
            result[name] = values if mean.ndim else values[0]
        self._sums, self._steps = {}, {}
        return result

    def _means(self) -> Iterator[tuple[str, Tensor]]:
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for layout, values in self._sums.items():
            for name, value in StepNumbers(layout, values).unpack().items():
                sums[name] = sums[name] + value if name in sums else value
                counts[name] = counts.get(name, 0) + self._steps[layout]
        return ((name, value / counts[name]) for name, value in sums.items())


class FiniteGuard:
    """Records, on the device, the first step at which each watched number was not finite.

    Checking synchronizes a GPU, so the loop records every step and checks when it logs.
    """

    def __init__(self, remedy: str) -> None:
        """remedy: advice at the end of the error message."""
        self.remedy = remedy
        self._first: dict[Layout, Tensor] = {}

    def watch(self, numbers: StepNumbers, step: int) -> None:
        """Note which of `numbers` are not finite at `step`."""
        bad = torch.where(torch.isfinite(numbers.values), torch.inf, float(step))
        first = self._first.get(numbers.layout)
        self._first[numbers.layout] = bad if first is None else torch.minimum(first, bad)

    def check(self) -> None:
        """Raise TrainingStopped, naming the network and the first step, if a watched number was not finite."""
        found = [
            (min(islice(steps, shape.numel()), default=float("inf")), name)
            for layout, first in self._first.items()
            for steps in [iter(first.tolist())]
            for name, shape in layout
        ]
        self._first = {}
        step, name = min((one for one in found if one[1].startswith(WATCHED)), default=(float("inf"), ""))
        if step < float("inf"):
            what, network = name.split("/", 1)
            raise TrainingStopped(
                f"The {what} of the {network.replace('_', ' ')} is not finite at step {int(step)}; the last good "
                f"checkpoint is kept; {self.remedy}."
            )


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
            self._writer = SummaryWriter(str(run / EVENTS), purge_step=purge)

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
            self._writer.add_image(f"samples/{name}", image_grid(stack), images, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending and close the files."""
        self._writer.close()


def image_grid(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (K, H, W, 3) as one (rows x H, columns x W, 3), at most `GRID_COLUMNS` per row; empty places are white."""
    count, height, width, channels = images.shape
    columns = min(count, GRID_COLUMNS)
    rows = -(-count // columns)
    padded = np.full((rows * columns, height, width, channels), 255, np.uint8)
    padded[:count] = images
    return (
        padded.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    )
