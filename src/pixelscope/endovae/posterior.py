"""The approximate posterior of a latent vector: a Gaussian with independent dimensions."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


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
