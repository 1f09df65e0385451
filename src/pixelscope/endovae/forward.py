"""Frames through encoder and decoder, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import as_channels_first, from_unit, to_unit
from pixelscope.endovae.networks import Decoder
from pixelscope.endovae.posterior import Posterior

BATCH = 64
"""Frames a pass."""


@dataclass(frozen=True)
class Reconstructed:
    """What the networks make of some frames, all float32."""

    images: Tensor
    """The frames, (N, 3, S, S) in [0, 1]."""
    reconstructions: Tensor
    """Of the same shape and range."""
    posterior: Posterior


@torch.no_grad()
def reconstruct_batches(
    checkpoint: Checkpoint, frames: np.ndarray, draw: torch.Generator | None = None
) -> Iterator[Reconstructed]:
    """Reconstruct uint8 frames (N, S, S, 3), in memory or on disk, a batch at a time.

    From the posterior's mode; with `draw`, from a sample of it.
    """
    for start in range(0, len(frames), BATCH):
        images = to_unit(as_channels_first(frames[start : start + BATCH]))
        posterior = Posterior.from_parameters(checkpoint.encoder(images))
        z = posterior.mode if draw is None else posterior.sample(torch.randn(posterior.mean.shape, generator=draw))
        yield Reconstructed(images, checkpoint.decoder(z), posterior)


def reconstruct_frames(checkpoint: Checkpoint, frames: np.ndarray, draw: torch.Generator | None = None) -> Reconstructed:
    """Reconstruct all of `frames` as `reconstruct_batches` does; they and their reconstructions are held in memory."""
    parts = list(reconstruct_batches(checkpoint, frames, draw))
    return Reconstructed(
        torch.cat([part.images for part in parts]),
        torch.cat([part.reconstructions for part in parts]),
        Posterior(
            torch.cat([part.posterior.mean for part in parts]), torch.cat([part.posterior.log_variance for part in parts])
        ),
    )


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
