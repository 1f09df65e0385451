"""What the loop asks of a system: one object that owns its networks and knows its training step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from pixelscope.engine.average import MovingAverage
from pixelscope.engine.randomness import generator

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a step begins, and the random draws that belong to it."""

    images: int
    """Images of the first domain seen before this step, over all ranks."""
    step: int
    """Number of this step, from 0."""
    batch_size: int
    """Images of this step, over all ranks."""
    seed: int
    rank: int = 0
    ranks: int = 1
    device: torch.device = torch.device("cpu")
    detailed: bool = False
    """Whether this step is logged: costly diagnostics are computed on such steps only."""

    def draw(self, purpose: str) -> torch.Generator:
        """Return the generator of this rank's draws for `purpose`, on the training device."""
        return generator(self.device, self.seed, purpose, self.step, self.rank)

    def draw_together(self, purpose: str) -> torch.Generator:
        """Return a CPU generator that is the same on every rank, for values that `part` then divides."""
        return generator("cpu", self.seed, purpose, self.step)

    def after(self) -> "Moment":
        """Return the moment of the step after this one."""
        return replace(self, images=self.images + self.batch_size, step=self.step + 1)

    def part(self, values: Tensor) -> Tensor:
        """Return this rank's share of values drawn for the whole batch, shape (batch_size, ...)."""
        share = self.batch_size // self.ranks
        return values[self.rank * share : (self.rank + 1) * share]


class Task(ABC, Generic[Batch]):
    """One system in training: maps a batch to a step, owns networks, optimizers and moving averages.

    The loop saves and restores exactly what `networks`, `optimizers`, `averages` and `memory` hold.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, MovingAverage]
    memory: Mapping[str, Tensor] = MappingProxyType({})
    """Numbers that a schedule remembers from evaluation to evaluation, each changed in place."""
    labels: Mapping[str, str] = MappingProxyType({})
    """Short names of the numbers that a person sees while it runs, in the order in which they are shown."""
    if_not_finite: str = "train again with a lower --optimizer.learning-rate or with --optimizer.clip-norm 5"
    """What to do about a loss or gradient that is not finite, by the settings that the task has."""

    @abstractmethod
    def step(self, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        """Train on one batch; returns named tensors for the log, detached, without waiting for the device.

        Names that begin with `loss/` and `gradient/` are watched: a value that is not finite stops the run.
        """

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure on held-out images with labels that training may know; returns named numbers."""

    def choice(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the number by which the best checkpoint is kept, higher is better; None where there is none."""
        return None

    def observe(self, evaluation: Mapping[str, float]) -> None:
        """Take note of an evaluation, where a schedule follows it; what is noted belongs into `memory`."""

    def ended(self) -> str | None:
        """Return a sentence that says why training ends before its configured length, None where it goes on."""
        return None

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Return (cause, sentence) for each sign of trouble in a line of stats."""
        return []
