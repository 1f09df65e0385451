"""The learning-rate schedule and early stopping of the reference study, driven by the validation loss."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelscope.endovae.config import ScheduleConfig


class PlateauSchedule:
    """Lowers the learning rate on a plateau of the validation loss and ends the training on a longer one.

    For the first few hundred steps, the network decodes the mean image and its KL divergence is near 0. The counters start only
    when the KL divergence has reached `start_kl` nats, because otherwise the training would end too early. `state` contains the
    whole state.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        counters = ("evaluations", "started", "wait_lr", "wait_stop", "lr_drops")
        self.state: Mapping[str, Tensor] = {
            **{name: torch.zeros((), dtype=torch.float64) for name in counters},
            "best": torch.full((), torch.inf, dtype=torch.float64),
        }

    @property
    def started(self) -> bool:
        """Return whether the KL divergence has reached `start_kl`."""
        return bool(self.state["started"])

    @property
    def factor(self) -> float:
        """Return the current factor on the learning rate, before its minimum is applied."""
        return self.config.factor ** int(self.state["lr_drops"])

    @property
    def should_stop(self) -> bool:
        """Return whether the training should stop."""
        return bool(self.state["wait_stop"] >= self.config.early_stopping_patience)

    def update(self, validation_loss: float, divergence: float, learning_rate: float) -> None:
        """Update the counters after an epoch.

        Args:
            validation_loss: of the epoch, in nats per image.
            divergence: KL divergence of the validation frames in nats.
            learning_rate: of the epoch.
        """
        state = self.state
        state["evaluations"].add_(1)
        if divergence >= self.config.start_kl:
            state["started"].fill_(1)
        if validation_loss < state["best"]:
            state["best"].fill_(validation_loss)
            state["wait_lr"].zero_()
            state["wait_stop"].zero_()
        elif self.started:
            state["wait_lr"].add_(1)
            state["wait_stop"].add_(1)
        if state["wait_lr"] >= self.config.patience and learning_rate > self.config.min_learning_rate:
            state["lr_drops"].add_(1)
            state["wait_lr"].zero_()
