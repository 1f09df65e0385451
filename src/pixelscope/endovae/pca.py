"""Linear baselines of EndoVAE: principal components with as many numbers as the code, and the mean image."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_IMAGES = 2500
"""Maximum number of images fitted, drawn at random from larger sets; the cost grows with the square."""
BLOCK_IMAGES = 64
"""Images whose blocks are in memory at a time."""


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


@dataclass(frozen=True)
class BlockComponents:
    """The k directions of largest variance of square blocks of images: the linear baseline of a spatial code."""

    mean: Tensor
    """The mean block, (values,)."""
    directions: Tensor
    """(k, values), orthonormal, largest variance first."""
    stride: int
    """Side of a block in pixels."""
    mean_image: Tensor
    """(1, 3, S, S)."""

    @classmethod
    def fit(cls, images: Tensor, count: int, stride: int) -> Self:
        """Fit components to all blocks of images (N, 3, S, S) in [0, 1]; S is a multiple of `stride`, the side of a block."""
        values = images.shape[1] * stride**2
        total, products, blocks = torch.zeros(values).double(), torch.zeros(values, values).double(), 0
        for part in images.split(BLOCK_IMAGES):
            rows = _blocks(part, stride).double()
            total, products, blocks = total + rows.sum(0), products + rows.T @ rows, blocks + len(rows)
        mean = total / blocks
        directions = torch.linalg.eigh(products / blocks - torch.outer(mean, mean))[1].flip(1)[:, :count].T
        return cls(mean.float(), directions.float().contiguous(), stride, images.mean(0, keepdim=True))

    def baselines(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, S, S) projected onto the components, clamped to [0, 1], and the mean image N times."""
        rows = _blocks(images, self.stride) - self.mean
        projected = self.mean + (rows @ self.directions.T) @ self.directions
        columns = projected.view(len(images), -1, rows.shape[1]).transpose(1, 2)
        drawn = F.fold(columns, images.shape[2:], self.stride, stride=self.stride)
        return drawn.clamp(0, 1), self.mean_image.expand_as(images)


def _blocks(images: Tensor, stride: int) -> Tensor:
    """Return the blocks of images (N, 3, S, S) as rows, (N blocks, 3 stride^2)."""
    return F.unfold(images.float(), stride, stride=stride).transpose(1, 2).flatten(0, 1)
