"""Latent vectors to look at: random ones, a way between two frames, one dimension at a time."""

import torch
from torch import Tensor

from pixelscope.endovae.batches import from_unit
from pixelscope.endovae.networks import Decoder

BATCH = 64
"""Latent vectors a pass."""


def random_latents(count: int, latent: int, draw: torch.Generator) -> Tensor:
    """Return `count` draws of z ~ N(0, I), shape (count, latent)."""
    return torch.randn((count, latent), generator=draw)


def interpolate(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Return `steps` latent vectors on the straight way from `first` to `second` (latent,), both included, (steps, latent)."""
    return torch.lerp(first, second, torch.linspace(0, 1, steps).unsqueeze(1))


def traverse(origin: Tensor, dimension: int, values: Tensor) -> Tensor:
    """Return `origin` (latent,) with one dimension set to each of `values` (K,) in turn, shape (K, latent)."""
    moved = origin.repeat(len(values), 1)
    moved[:, dimension] = values
    return moved


@torch.no_grad()
def decode(decoder: Decoder, z: Tensor) -> Tensor:
    """Return uint8 images (N, S, S, 3) of latent vectors (N, latent)."""
    images = torch.cat([from_unit(decoder(part)) for part in z.split(BATCH)])
    return images.permute(0, 2, 3, 1).contiguous()
