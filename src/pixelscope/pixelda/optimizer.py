"""Adam and its schedule, as every network of PixelDA uses them."""

from collections.abc import Sequence

import torch
from torch import nn

from pixelscope.pixelda.config import OptimizerConfig


def adam(networks: Sequence[nn.Module], config: OptimizerConfig) -> torch.optim.Adam:
    """Return Adam over all parameters of `networks`."""
    return torch.optim.Adam(
        [p for network in networks for p in network.parameters()],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: OptimizerConfig, images: int) -> float:
    """Return the learning rate after `images` images: a step down every `decay_every`."""
    return config.learning_rate * config.decay ** (images // config.decay_every)
