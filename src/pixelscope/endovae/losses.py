"""The reconstruction losses of EndoVAE, and the Gaussian posterior with its KL divergence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["channel-mean", "sum"]


def cross_entropy_loss(logits: Tensor, images: Tensor, reduction: Reduction, valid_mask: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy per image, shape (N,).

    The reference study's "cross-entropy summed over pixels" is ambiguous. `sum` adds all values of all channels.
    `channel-mean` averages the three channels and sums the pixels, which makes the KL divergence weigh three times as much;
    the sizes in the study's log fit this one.

    Args:
        logits: (N, 3, H, W), before the sigmoid.
        images: (N, 3, H, W) in [0, 1].
        reduction: how the values of an image are reduced.
        valid_mask: (N, 1, H, W), 0 where a pixel is ignored.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits.float(), images, reduction="none")
    if valid_mask is not None:
        cross_entropy = cross_entropy * valid_mask
    total = cross_entropy.sum((1, 2, 3))
    return total if reduction == "sum" else total / logits.shape[1]


@dataclass(frozen=True)
class Posterior:
    """N(mean, exp(log_variance)) per image; both float32, shape (N, latent)."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> Self:
        """Build it from the encoder's output, shape (N, 2, latent)."""
        mean, log_variance = parameters.float().unbind(1)
        return cls(mean, log_variance)

    @property
    def mode(self) -> Tensor:
        """Return the most likely latent vectors, (N, latent): the mean of a Gaussian."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + noise * standard deviation, (N, latent), for standard normal `noise` of the same shape."""
        return self.mean + noise * (0.5 * self.log_variance).exp()

    def kl(self) -> Tensor:
        """Return the KL divergence from N(0, I) in nats per image and dimension, (N, latent).

        -0.5 * (1 + log var - mean^2 - var), the KL term of the reference study before its sum.
        """
        return -0.5 * (1 + self.log_variance - self.mean.square() - self.log_variance.exp())

    def measured_kl(self) -> Tensor:
        """Return `kl`, float32, computed in float64: near N(0, I) its terms cancel, and float32 leaves rounding alone."""
        return Posterior(self.mean.double(), self.log_variance.double()).kl().float()


def pixel_loss(output: Tensor, images: Tensor, power: int, valid_mask: Tensor | None = None) -> Tensor:
    """Return the mean of |output - images|^power per image, shape (N,); see `mean_per_image`.

    Args:
        output: (N, 3, H, W).
        images: (N, 3, H, W) in [0, 1].
        power: 1 for the mean absolute error, 2 for the mean squared error.
        valid_mask: (N, 1, H, W), 0 where a pixel is ignored.
    """
    return mean_per_image((output.float() - images).abs().pow(power).mean(1), valid_mask)


def perceptual_loss(drawn: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
    """Return the mean distance of feature maps per image, shape (N,).

    The features of a position are scaled to length 1; their squared distance is averaged over positions and layers (Zhang et
    al. 2018, equation 1, without learned weights).

    Args:
        drawn: maps (N, C, h, w) of reconstructions, one per layer.
        features: those of the images.
    """
    pairs = zip(drawn, features, strict=True)
    distances = [(F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1) for a, b in pairs]
    return torch.stack([distance.mean((1, 2)) for distance in distances]).mean(0)


def discriminator_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator, a scalar (Lim and Ye 2017; Esser et al. 2021).

    Args:
        real: its outputs on images, of any shape, large for real ones.
        drawn: its outputs on reconstructions.
    """
    return (F.relu(1 - real.float()).mean() + F.relu(1 + drawn.float()).mean()) / 2


def mean_per_image(values: Tensor, valid_mask: Tensor | None = None) -> Tensor:
    """Return the mean of `values` (N, H, W) over the valid pixels, shape (N,); 0 for an image without any.

    valid_mask: (N, 1, H, W), 0 where a pixel is ignored.
    """
    if valid_mask is None:
        return values.mean((1, 2))
    valid = valid_mask[:, 0]
    return (values * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
