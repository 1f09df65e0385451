"""Adam and its schedule, as every network of PixelDA uses them."""

from collections.abc import Sequence

import torch
from torch import nn

from pixelscope.engine.optimize import FACTOR
from pixelscope.pixelda.config import OptimizerConfig


def adam(networks: Sequence[nn.Module], config: OptimizerConfig, factors: Sequence[float] | None = None) -> torch.optim.Adam:
    """Return Adam over all parameters of `networks`.

    factors: on the learning rate of each network; 1 where none are given.
    """
    factor_of = zip(networks, factors or [1.0] * len(networks), strict=True)
    return torch.optim.Adam(
        [{"params": list(network.parameters()), FACTOR: factor} for network, factor in factor_of],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: OptimizerConfig, images: int) -> float:
    """Return the learning rate after `images` images: a step down every `decay_every`."""
    return config.learning_rate * config.decay ** (images // config.decay_every)
