"""Exponential moving average of a network's weights, its decay counted in images."""

import copy

import torch
from torch import nn


class MovingAverage:
    """A copy of a network whose weights follow it smoothly.

    half_life: images after which a weight counts half. Early in a training the half-life is held to a twentieth of the
    images seen, so that the average does not carry the initial weights along (Karras et al. 2024, section 3).
    own_buffers: whether it keeps its buffers, such as batch norm's running statistics, for its owner to set, or copies the
    network's, which belong to other weights.
    """

    def __init__(self, network: nn.Module, half_life: int, own_buffers: bool = False) -> None:
        self.half_life, self.own_buffers = half_life, own_buffers
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, images: int, seen: int) -> None:
        """Move towards `network` after a step of `images` images, `seen` images after the start."""
        half_life = min(self.half_life, max(seen, images) / 20)
        weight = 1 - 0.5 ** (images / half_life)
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, weight)
        if self.own_buffers:
            return
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
