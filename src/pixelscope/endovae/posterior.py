"""What the encoder says of an image: a Gaussian over its latent vector, with independent dimensions."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """N(mean, exp(log_variance)) for each of N images; both float32 of shape (N, latent)."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> Self:
        """Read the encoder's output, shape (N, 2, latent)."""
        mean, log_variance = parameters.float().unbind(1)
        return cls(mean, log_variance)

    @property
    def mode(self) -> Tensor:
        """Return the most likely latent vectors, (N, latent); of a Gaussian, the mean."""
        return self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + noise * standard deviation, (N, latent), for standard normal `noise` of the same shape."""
        return self.mean + noise * (0.5 * self.log_variance).exp()

    def kl(self) -> Tensor:
        """Return the divergence from N(0, I) in nats by image and dimension, (N, latent).

        -0.5 * (1 + log var - mean^2 - var), the report's loss before its sum.
        """
        return -0.5 * (1 + self.log_variance - self.mean.square() - self.log_variance.exp())
