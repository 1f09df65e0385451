"""What the networks of a run make of frames, as the arrays that scores are computed from."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.forward import BATCH, Reconstructed, reconstruct_batches
from pixelscope.endovae.metrics import Dissimilarity


def error_map_batches(checkpoint: Checkpoint, frames: NDArray[np.uint8]) -> Iterator[tuple[slice, ErrorMaps]]:
    """Give the maps of uint8 frames (N, S, S, 3), in memory or on disk, a batch at a time, with its rows."""
    for number, batch in enumerate(reconstruct_batches(checkpoint, frames)):
        start = number * BATCH
        yield slice(start, start + len(batch.images)), error_maps(batch)


@torch.no_grad()
def error_maps(batch: Reconstructed) -> ErrorMaps:
    """Return the maps of one batch, from reconstructions of the posterior's mode."""
    return ErrorMaps(
        error=(batch.images - batch.reconstructions).square().mean(1).numpy(),
        dissimilarity=Dissimilarity(batch.images.shape[-1])(batch.images, batch.reconstructions).numpy(),
        kl=batch.posterior.kl().numpy(),
        mean=batch.posterior.mean.numpy(),
    )
