"""Exponential moving average of a network's weights, its decay counted in images."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Exponential moving average of a network's weights.

    half_life: images after which a weight's contribution has halved; capped at a twentieth of the images seen, so that the
    initial weights are forgotten early (Karras et al. 2024, section 3).

    Batch norm's running statistics are recomputed in `updating_batch_norm`, because the network's statistics belong to other
    weights and would shift the outputs of the averaged ones.
    """

    def __init__(self, network: nn.Module, half_life: int) -> None:
        self.half_life = half_life
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def kept(self, images: int, seen: int) -> float:
        """Return the decay of a step of `images` images, `seen` images after the start."""
        half_life = min(self.half_life, max(seen, images) / 20)
        return 0.5 ** (images / half_life)

    @torch.no_grad()
    def update(self, network: nn.Module, kept: float | Tensor) -> None:
        """Move towards `network` with the decay `kept`: a float, or in a captured step a float32 scalar on the device."""
        # All parameters in one call, because one call each would leave a GPU waiting for the CPU.
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = list(network.parameters())
        if not isinstance(kept, Tensor):
            get_ema_multi_avg_fn(kept)(averaged, current, None)
            return
        # lerp would synchronize to read a weight that is a tensor, which a captured step must not do.
        difference = torch._foreach_sub(current, averaged)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(difference, 1 - kept)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(averaged, difference)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def updating_batch_norm(self) -> Iterator[nn.Module]:
        """Yield the averaged network with batch norm in training mode, which updates its running statistics."""
        layers = [module for module in self.network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for layer in layers:
            layer.train()
        try:
            with torch.no_grad():
                yield self.network
        finally:
            for layer in layers:
                layer.eval()
