"""Stops a run whose losses or gradients are not finite, before anything bad is saved."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelscope.errors import TrainingStopped

WATCHED = ("loss/", "gradient/")


class FiniteGuard:
    """Remembers, on the device, the first step at which each watched number was not finite.

    Looking costs a synchronisation on a GPU, so the loop watches every step and looks when it logs.
    """

    def __init__(self, remedy: str) -> None:
        """Watch nothing yet; `remedy` says what to do about a number that is not finite."""
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
