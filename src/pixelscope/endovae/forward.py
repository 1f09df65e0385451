"""Frames through encoder and decoder in batches, and latent vectors to decode."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import from_unit, to_images
from pixelscope.endovae.losses import Posterior
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.errors import InputError
from pixelscope.runs.folder import read_arrays, save_arrays

BATCH = 64
"""Frames or latent vectors per forward pass."""


Floats = NDArray[np.float32]

AXES_FILE = "latent-axes.npz"
AXES = 64
"""Maximum number of axes of a spatial code."""


@dataclass(frozen=True)
class LatentAxes:
    """Directions in latent space along which frames are generated; one unit is one standard deviation.

    Of a global code, its dimensions under the prior N(0, I). A spatial code has thousands of dimensions, none of which shows
    alone: its axes are the principal components of the training frames' codes.
    """

    origin: Floats
    """(latent,)."""
    directions: Floats
    """(K, latent), orthogonal, largest variance first."""

    def __len__(self) -> int:
        return len(self.directions)

    @classmethod
    def of_prior(cls, latent: int) -> Self:
        """Return the dimensions of z ~ N(0, I)."""
        return cls(np.zeros(latent, np.float32), np.eye(latent, dtype=np.float32))

    @classmethod
    def fit(cls, codes: Tensor) -> Self:
        """Return the principal components of codes (N, latent)."""
        found = PrincipalComponents.fit(codes, AXES)
        spread = ((codes - found.mean) @ found.directions.T).std(0)
        return cls(found.mean.numpy(), (found.directions * spread[:, None]).numpy())

    def vectors(self, coordinates: Floats) -> Floats:
        """Return the latent vectors (N, latent) at coordinates (N, K)."""
        return (self.origin + coordinates @ self.directions).astype(np.float32)

    def coordinates(self, vectors: Floats) -> Floats:
        """Return the coordinates (N, K) of latent vectors (N, latent)."""
        squares = np.square(self.directions).sum(1, dtype=np.float32)
        return ((vectors - self.origin) @ self.directions.T / squares).astype(np.float32)


def save_axes(checkpoint: Checkpoint, axes: LatentAxes) -> None:
    """Store the axes of a spatial code in the run; those of a global code are its dimensions, and need no file."""
    sha256 = np.frombuffer(checkpoint.sha256.encode(), np.uint8)
    save_arrays(_axes_file(checkpoint), origin=axes.origin, directions=axes.directions, sha256=sha256)


def read_axes(checkpoint: Checkpoint) -> LatentAxes:
    """Return the axes of a checkpoint.

    Raises:
        InputError: the code is spatial, and the run has no axes, or those of other weights.
    """
    if checkpoint.config.model.kind == "global":
        return LatentAxes.of_prior(checkpoint.config.code_values)
    path = _axes_file(checkpoint)
    found = read_arrays(path, {"origin": 1, "directions": 2, "sha256": 1})
    if found is None or found["sha256"].tobytes() != checkpoint.sha256.encode():
        raise InputError(
            f"{checkpoint.folder.path} has no axes of its spatial code for the checkpoint {checkpoint.name}; run `pixelscope "
            f"endovae evaluate {checkpoint.folder.path} --checkpoint {checkpoint.name}`, which measures them."
        )
    latent = checkpoint.config.code_values
    if found["origin"].shape != (latent,) or found["directions"].shape[1:] != (latent,):
        raise InputError(f"{path} is damaged; evaluate the run again.")
    return LatentAxes(*(found[name].astype(np.float32) for name in ("origin", "directions")))


def _axes_file(checkpoint: Checkpoint) -> Path:
    return checkpoint.folder.checkpoints / AXES_FILE


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
