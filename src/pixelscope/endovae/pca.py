"""Linear yardsticks of a model: principal components of the same latent size, and the mean image."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

MOST = 2500
"""Images fitted at most, a random part of larger sets: the cost grows with their square."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The k directions in which training images vary most."""

    mean: Tensor
    """(values,), the mean image."""
    directions: Tensor
    """(k, values), orthonormal, largest variance first."""

    @classmethod
    def fit(cls, images: Tensor, count: int, seed: int = 0) -> Self:
        """Fit `count` components (fewer where there are fewer images) to images (N, ...), any shape, in [0, 1].

        Found from the products of the images with one another: images are far fewer than their values.
        """
        rows = images.flatten(1).float()
        if len(rows) > MOST:
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:MOST]]
        mean = rows.mean(0)
        centred = rows - mean
        products = torch.stack([part.double() @ part.double().T for part in centred.split(4096, dim=1)]).sum(0)
        variances, mixtures = (values.flip(-1) for values in torch.linalg.eigh(products))
        kept = min(count, int((variances > variances[0] * 1e-10).sum()))
        scaled = mixtures[:, :kept] / variances[:kept].sqrt()
        return cls(mean, scaled.T.float() @ centred)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images (N, ...) projected on the components, same shape, clamped to [0, 1]."""
        rows = images.flatten(1).float() - self.mean
        projected = self.mean + (rows @ self.directions.T) @ self.directions
        return projected.clamp(0, 1).view_as(images)

    def mean_image(self, images: Tensor) -> Tensor:
        """Return the mean image, repeated to the shape of `images`."""
        return self.mean.view(1, *images.shape[1:]).expand_as(images)
