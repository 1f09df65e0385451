"""Error maps of frames: the outputs of a run's networks as the arrays that scores are computed from."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.forward import Reconstructed, reconstruct_batches
from pixelscope.endovae.metrics import Dissimilarity


def error_map_batches(checkpoint: Checkpoint, frames: NDArray[np.uint8]) -> Iterator[tuple[slice, ErrorMaps]]:
    """Yield the error maps of uint8 frames (N, S, S, 3), in memory or on disk, batch by batch, with the rows of each batch."""
    for batch in reconstruct_batches(checkpoint, frames):
        yield batch.rows, error_maps(batch)


@torch.no_grad()
def error_maps(batch: Reconstructed) -> ErrorMaps:
    """Return the error maps of one batch that was reconstructed from the posterior's mode."""
    return ErrorMaps(
        error=(batch.images - batch.reconstructions).square().mean(1).numpy(),
        dissimilarity=Dissimilarity(batch.images.shape[-1])(batch.images, batch.reconstructions).numpy(),
        kl=batch.posterior.kl().numpy(),
        mean=batch.posterior.mean.numpy(),
    )
