"""Linear baselines of EndoVAE: principal components of the same latent size, and the mean image."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

MAX_IMAGES = 2500
"""Maximum number of images fitted, drawn at random from larger sets; the cost grows with the square."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The k directions of largest variance of training images."""

    mean: Tensor
    """The mean image, (values,)."""
    directions: Tensor
    """(k, values), orthonormal, largest variance first."""

    @classmethod
    def fit(cls, images: Tensor, count: int, seed: int = 0) -> Self:
        """Fit components by the Gram matrix of the images, which is smaller than their covariance.

        Args:
            images: (N, ...), any shape, in [0, 1].
            count: number of components; the result has fewer if the images do not span as many.
            seed: of the images drawn from more than `MAX_IMAGES`.
        """
        rows = images.flatten(1).float()
        if len(rows) > MAX_IMAGES:
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:MAX_IMAGES]]
        mean = rows.mean(0)
        centred = rows - mean
        products = torch.stack([part.double() @ part.double().T for part in centred.split(4096, dim=1)]).sum(0)
        variances, mixtures = (values.flip(-1) for values in torch.linalg.eigh(products))
        kept = min(count, int((variances > variances[0] * 1e-10).sum()))
        scaled = mixtures[:, :kept] / variances[:kept].sqrt()
        return cls(mean, scaled.T.float() @ centred)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return images (N, ...) projected onto the components, of the same shape, clamped to [0, 1]."""
        rows = images.flatten(1).float() - self.mean
        projected = self.mean + (rows @ self.directions.T) @ self.directions
        return projected.clamp(0, 1).view_as(images)

    def baselines(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return `reconstruct(images)`, and the mean image repeated to the shape of `images`."""
        return self.reconstruct(images), self.mean.view(1, *images.shape[1:]).expand_as(images)
