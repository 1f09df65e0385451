"""Interface between the training loop and a system: networks, optimizers and the training step."""

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
    """A system in training. Owns networks, optimizers and moving averages; `step` trains on one batch.

    The loop saves and restores exactly what `networks`, `optimizers`, `averages` and `schedule_state` hold.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, EMA]
    schedule_state: Mapping[str, Tensor] = MappingProxyType({})
    """State of a schedule, kept from evaluation to evaluation; each tensor is changed in place."""
    display_names: Mapping[str, str] = MappingProxyType({})
    """Short names of the numbers shown during training, in display order."""
    if_not_finite: str = "train again with a lower --optimizer.learning-rate or with --optimizer.clip-norm 5"
    """Advice in the error for a non-finite loss or gradient; names settings that the task has."""

    @abstractmethod
    def step(self, batch: Batch, context: StepContext) -> Mapping[str, Tensor]:
        """Train on one batch and return named tensors for the log, detached, without a device synchronization.

        A non-finite value under a name that begins with `loss/` or `gradient/` stops the run.
        """

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure on held-out images, using only labels that training may use; returns named numbers."""

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the number that selects the best checkpoint (higher is better), or None for no best checkpoint."""
        return None

    def on_evaluation(self, evaluation: Mapping[str, float]) -> None:
        """Update a schedule after an evaluation; its state belongs in `schedule_state`."""

    def stop_reason(self) -> str | None:
        """Return why training stops before its configured length, or None to continue."""
        return None

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Return (cause, message) for each warning that a line of stats.jsonl justifies."""
        return []
