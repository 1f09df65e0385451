"""Packs the numbers of a step into one tensor, averages them for the log, and stops a run if one is not finite."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from pixelscope.engine.distributed import average
from pixelscope.errors import TrainingStopped

Layout = tuple[tuple[str, torch.Size], ...]
"""Names and shapes of numbers, in order."""


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


WATCHED = ("loss/", "gradient/")


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
