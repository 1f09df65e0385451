"""The report's schedule: halve the learning rate on a plateau, stop after a longer one, both blind until the take-off."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixelscope.endovae.config import ScheduleConfig


class PlateauSchedule:
    """Follows the validation loss from epoch to epoch; all that it remembers is in `memory`.

    The network decodes the mean image at first, with a divergence near 0, for some hundred steps; counters that ran then would
    end the training before it begins. They start once the divergence has reached `take_off` nats.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        counters = ("evaluations", "took_off", "waited_to_decay", "waited_to_stop", "decays")
        self.memory: Mapping[str, Tensor] = {
            **{name: torch.zeros((), dtype=torch.float64) for name in counters},
            "best": torch.full((), torch.inf, dtype=torch.float64),
        }

    @property
    def took_off(self) -> bool:
        """Return whether the latent vectors have begun to say something."""
        return bool(self.memory["took_off"])

    @property
    def factor(self) -> float:
        """Return what the learning rate is multiplied by now, before the floor."""
        return self.config.factor ** int(self.memory["decays"])

    @property
    def ended(self) -> bool:
        """Return whether the validation loss has not fallen for too long."""
        return bool(self.memory["waited_to_stop"] >= self.config.stop_after)

    def observe(self, validation_loss: float, divergence: float, learning_rate: float) -> None:
        """Take note of an epoch's validation loss and divergence in nats; `learning_rate` is the one it was trained with."""
        memory = self.memory
        memory["evaluations"].add_(1)
        if divergence >= self.config.take_off:
            memory["took_off"].fill_(1)
        if validation_loss < memory["best"]:
            memory["best"].fill_(validation_loss)
            memory["waited_to_decay"].zero_()
            memory["waited_to_stop"].zero_()
        elif self.took_off:
            memory["waited_to_decay"].add_(1)
            memory["waited_to_stop"].add_(1)
        if memory["waited_to_decay"] >= self.config.patience and learning_rate > self.config.floor:
            memory["decays"].add_(1)
            memory["waited_to_decay"].zero_()
