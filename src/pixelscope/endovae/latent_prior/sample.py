"""Draws new frames of a checkpoint, batch by batch."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.forward import decode, random_latents, read_axes
from pixelscope.errors import InputError
from pixelscope.rng import generator

AT_ONCE = 256
"""Frames drawn and decoded at a time."""

Kind = Literal["normal", "abnormal"]
UsePrior = Literal["auto", "none"]


def sample_frames(
    checkpoint: Checkpoint,
    count: int,
    seed: int,
    *,
    prior: UsePrior = "auto",
    kind: Kind | None = None,
    guidance: float | None = None,
) -> NDArray[np.uint8]:
    """Draw new frames of a checkpoint.

    Args:
        checkpoint: encoder and decoder.
        count: number of frames, at least 1.
        seed: of the draws; the same seed and count give the same frames.
        prior: `auto` uses the fitted prior in the run folder where there is one; `none` never.
        kind: kind of frames, of a fitted prior with kinds; None draws both as often as in training.
        guidance: weight of the kind, of a fitted prior with kinds.

    Returns:
        uint8 (count, S, S, 3).

    Raises:
        InputError: a kind is asked of a prior without kinds, or the prior cannot be used with this checkpoint.

    Example:
        >>> frames = sample_frames(load_checkpoint(Path("runs/healthy")), count=100, seed=0)
    """
    return np.concatenate(list(iterate_frames(checkpoint, count, seed, prior=prior, kind=kind, guidance=guidance)))


def iterate_frames(
    checkpoint: Checkpoint,
    count: int,
    seed: int,
    *,
    prior: UsePrior = "auto",
    kind: Kind | None = None,
    guidance: float | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield what `sample_frames` returns, up to `AT_ONCE` frames at a time."""
    for z in _batches(checkpoint, count, seed, prior, kind, guidance):
        yield decode(checkpoint.decoder, z).numpy()


def _batches(
    checkpoint: Checkpoint, count: int, seed: int, prior: UsePrior, kind: Kind | None, guidance: float | None
) -> Iterator[Tensor]:
    """Yield latent vectors, (n, latent) each."""
    if kind is not None or guidance is not None:
        raise InputError(
            f"{checkpoint.folder.path} has no prior with kinds of frames; drop the kind and the guidance, or train a run on "
            "both with --split.train-on both and fit one."
        )
    axes = read_axes(checkpoint)
    drawn = random_latents(count, len(axes), generator("cpu", seed, "generated")).numpy()
    for start in range(0, count, AT_ONCE):
        yield torch.from_numpy(axes.vectors(drawn[start : start + AT_ONCE]))
