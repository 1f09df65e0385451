"""Frames through encoder and decoder, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.checkpoints import Checkpoint
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
        posterior = Posterior.of(checkpoint.encoder(images))
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
