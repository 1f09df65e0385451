"""Exponential moving average of a network's weights, its decay counted in images."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Exponential moving average of a network's weights.

    half_life: images after which a weight's contribution has halved; capped at a twentieth of the images seen, so that the
    initial weights are forgotten early (Karras et al. 2024, section 3).

    Batch norm's running statistics are its own, computed in `updating_batch_norm`: those of the network belong to other
    weights and would shift the outputs of the averaged ones.
    """

    def __init__(self, network: nn.Module, half_life: int) -> None:
        self.half_life = half_life
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, images: int, seen: int) -> None:
        """Move towards `network` after a step of `images` images, `seen` images after the start."""
        half_life = min(self.half_life, max(seen, images) / 20)
        kept = 0.5 ** (images / half_life)
        # All parameters in one call: one by one, a GPU waits for the processor.
        get_ema_multi_avg_fn(kept)(list(self.network.parameters()), list(network.parameters()), None)

    @contextmanager
    def updating_batch_norm(self) -> Iterator[nn.Module]:
        """Yield the averaged network, its batch norm normalising each batch by itself and keeping the statistics for use."""
        layers = [module for module in self.network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for layer in layers:
            layer.train()
        try:
            with torch.no_grad():
                yield self.network
        finally:
            for layer in layers:
                layer.eval()
