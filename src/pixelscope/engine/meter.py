"""Averages of what a task reports between two lines of the log."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelscope.engine.distributed import average


class Meter:
    """Means of named tensors since the last reading, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's values; a name need not come with every step."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float | list[float]]:
        """Return the means over steps and ranks, numbers or lists of them, and start anew."""
        names = sorted(self._sums)
        means = [(self._sums[name] / self._counts[name]).flatten() for name in names]
        flat = average(torch.cat(means)).tolist() if means else []
        result: dict[str, float | list[float]] = {}
        for name, mean in zip(names, means, strict=True):
            values, flat = flat[: len(mean)], flat[len(mean) :]
            result[name] = values if self._sums[name].ndim else values[0]
        self._sums, self._counts = {}, {}
        return result
