"""Frames through encoder and decoder in batches, and latent vectors to decode."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import from_unit, to_images
from pixelscope.endovae.losses import Posterior

BATCH = 64
"""Frames or latent vectors per forward pass."""


@dataclass(frozen=True)
class Reconstructed:
    """Frames with their reconstructions and posterior, all float32."""

    images: Tensor
    """(N, 3, S, S) in [0, 1]."""
    reconstructions: Tensor
    """The same shape and range."""
    posterior: Posterior


@torch.no_grad()
def encode(checkpoint: Checkpoint, frames: np.ndarray) -> Posterior:
    """Return the posterior of uint8 frames (N, S, S, 3), in batches."""
    parts = [checkpoint.encoder(to_images(frames[start : start + BATCH])) for start in range(0, len(frames), BATCH)]
    return Posterior.from_parameters(torch.cat(parts))


@torch.no_grad()
def reconstruct(checkpoint: Checkpoint, frames: np.ndarray) -> Reconstructed:
    """Reconstruct one batch of uint8 frames (N, S, S, 3) from the posterior's mode."""
    images = to_images(frames)
    posterior = Posterior.from_parameters(checkpoint.encoder(images))
    return Reconstructed(images, checkpoint.decoder(posterior.mode), posterior)


def random_latents(count: int, latent: int, draw: torch.Generator) -> Tensor:
    """Return `count` draws of z ~ N(0, I), shape (count, latent)."""
    return torch.randn((count, latent), generator=draw)


def interpolate(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Return `steps` latent vectors from `first` to `second` (latent,), both included, shape (steps, latent)."""
    return torch.lerp(first, second, torch.linspace(0, 1, steps).unsqueeze(1))


def traverse(origin: Tensor, dimension: int, values: Tensor) -> Tensor:
    """Return copies of `origin` (latent,) with one dimension set to each of `values` (K,), shape (K, latent)."""
    moved = origin.repeat(len(values), 1)
    moved[:, dimension] = values
    return moved


@torch.no_grad()
def decode(decoder: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Decode latent vectors (N, latent) into uint8 images (N, S, S, 3)."""
    images = torch.cat([from_unit(decoder(part)) for part in z.split(BATCH)])
    return images.permute(0, 2, 3, 1).contiguous()
