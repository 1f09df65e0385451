"""What the loop asks of a system: one object that owns its networks and knows its training step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from pixelscope.engine.ema import EMA
from pixelscope.rng import StepContext

Batch = TypeVar("Batch")


class Task(ABC, Generic[Batch]):
    """One system in training: maps a batch to a step, owns networks, optimizers and moving averages.

    The loop saves and restores exactly what `networks`, `optimizers`, `averages` and `schedule_state` hold.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, EMA]
    schedule_state: Mapping[str, Tensor] = MappingProxyType({})
    """Numbers that a schedule remembers from evaluation to evaluation, each changed in place."""
    display_names: Mapping[str, str] = MappingProxyType({})
    """Short names of the numbers that a person sees while it runs, in the order in which they are shown."""
    if_not_finite: str = "train again with a lower --optimizer.learning-rate or with --optimizer.clip-norm 5"
    """What to do about a loss or gradient that is not finite, by the settings that the task has."""

    @abstractmethod
    def step(self, batch: Batch, context: StepContext) -> Mapping[str, Tensor]:
        """Train on one batch; returns named tensors for the log, detached, without waiting for the device.

        Names that begin with `loss/` and `gradient/` are watched: a value that is not finite stops the run.
        """

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure on held-out images with labels that training may know; returns named numbers."""

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the number by which the best checkpoint is kept, higher is better; None where there is none."""
        return None

    def on_evaluation(self, evaluation: Mapping[str, float]) -> None:
        """Take note of an evaluation, where a schedule follows it; what is noted belongs into `schedule_state`."""

    def stop_reason(self) -> str | None:
        """Return a sentence that says why training ends before its configured length, None where it goes on."""
        return None

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Return (cause, sentence) for each sign of trouble in a line of stats."""
        return []
