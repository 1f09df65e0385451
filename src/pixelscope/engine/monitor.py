"""Means of logged numbers, and a guard that stops a run when one is not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelscope.engine.distributed import average
from pixelscope.errors import TrainingStopped


class Meter:
    """Running means of named tensors, kept on the device to avoid synchronization."""

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


WATCHED = ("loss/", "gradient/")


class FiniteGuard:
    """Records, on the device, the first step at which each watched number was not finite.

    Checking synchronizes a GPU, so the loop records every step and checks when it logs.
    """

    def __init__(self, remedy: str) -> None:
        """remedy: advice at the end of the error message."""
        self.remedy = remedy
        self._first: dict[str, Tensor] = {}

    def watch(self, numbers: Mapping[str, Tensor], step: int) -> None:
        """Note which of `numbers` (scalars) are not finite at `step`."""
        for name, value in numbers.items():
            if name.startswith(WATCHED):
                bad = torch.where(torch.isfinite(value.detach()), torch.inf, float(step))
                self._first[name] = torch.minimum(self._first[name], bad) if name in self._first else bad

    def check(self) -> None:
        """Raise TrainingStopped, naming the network and the first step, if a watched number was not finite."""
        if not self._first:
            return
        steps = torch.stack(list(self._first.values())).tolist()
        self._first, names = {}, list(self._first)
        step, name = min(zip(steps, names, strict=True))
        if step < float("inf"):
            what, network = name.split("/", 1)
            raise TrainingStopped(
                f"The {what} of the {network.replace('_', ' ')} is not finite at step {int(step)}; the last good "
                f"checkpoint is kept; {self.remedy}."
            )
