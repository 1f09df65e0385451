"""A Gaussian mixture of global codes; fitting needs scikit-learn, drawing needs NumPy alone."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.latent_prior.config import Kind, PriorConfig
from pixelscope.rng import derive

Floats = NDArray[np.float64]

MIN_STD = 1e-8
"""Minimum standard deviation of a dimension."""
MAX_ITERATIONS = 500
STARTS = 3
"""Random starts of a fit, of which the best is used."""


@dataclass(frozen=True)
class MixturePrior:
    """Gaussians with full covariances (Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4)."""

    kinds: tuple[Kind, ...]
    """Kinds that were fitted apart; empty if all frames were fitted together."""
    weights: Floats
    """(K,), sum 1."""
    means: Floats
    """(K, latent)."""
    factors: Floats
    """Cholesky factors of the covariances, lower triangles, (K, latent, latent)."""
    kind: NDArray[np.int64]
    """Number of each Gaussian's kind, from 1, or 0 without kinds, (K,)."""

    @classmethod
    def fit(
        cls, codes: NDArray[Any], kind: NDArray[np.int64], kinds: Sequence[Kind], config: PriorConfig
    ) -> tuple[Self, float]:
        """Fit a mixture per kind, each with the number of Gaussians of the lowest BIC (Schwarz 1978).

        Each Gaussian holds more frames than a code has numbers: the likelihood of fewer grows without bound as the Gaussian
        shrinks to them, and BIC would choose Gaussians that draw copies of single frames.

        Args:
            codes: (N, latent).
            kind: number of each code's kind, from 1, or 0 without kinds, (N,).
            kinds: names of the kinds.
            config: maximum number of Gaussians, and seed.

        Returns:
            The mixture, and the mean negative log-likelihood of a code in nats, given its kind.
        """
        # Dimensions that the decoder ignores hardly vary, and scikit-learn adds the same small variance to all.
        scale = codes.std(0, dtype=np.float64).clip(MIN_STD)
        found, loss = [], float(np.log(scale).sum())
        for number in np.unique(kind).tolist():
            own = codes[kind == number] / scale
            best = _lowest_bic(own, config, number)
            share = len(own) / len(codes)
            loss -= share * best.score(own)
            factors = scale[:, None] * np.linalg.cholesky(best.covariances_)
            numbers = np.full(len(best.weights_), number)
            found.append((share * best.weights_, scale * best.means_, factors, numbers))
        return cls(tuple(kinds), *(np.concatenate(part) for part in zip(*found, strict=True))), loss

    def draw(self, numbers: range, seed: int, kind: Kind | None, guidance: float) -> NDArray[np.float32]:
        """Return codes (n, latent).

        Args:
            numbers: numbers of the frames; a code is determined by its number and `seed`.
            seed: of the draws.
            kind: one of `kinds`, or None for all as often as in training.
            guidance: must be 1: a mixture has none.
        """
        own = self.weights if kind is None else np.where(self.kind == 1 + self.kinds.index(kind), self.weights, 0)
        edges = np.cumsum(own / own.sum())
        return np.stack([self._one(np.random.default_rng(derive(seed, "generated", number)), edges) for number in numbers])

    def _one(self, draw: np.random.Generator, edges: Floats) -> NDArray[np.float32]:
        # The last edge can be just below 1.
        chosen = min(
            int(np.searchsorted(edges, draw.random(), side="right")), int(np.flatnonzero(np.diff(edges, prepend=0))[-1])
        )
        normal = draw.standard_normal(self.means.shape[1])
        return (self.means[chosen] + self.factors[chosen] @ normal).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to store."""
        return {"weights": self.weights, "means": self.means, "factors": self.factors, "kind": self.kind}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], kinds: Sequence[Kind], latent: int) -> Self | None:
        """Return the mixture of stored arrays; None if names or shapes are wrong, or values do not fit."""
        if set(tensors) != {"weights", "means", "factors", "kind"}:
            return None
        count = len(tensors["kind"]) if tensors["kind"].ndim == 1 else 0
        shapes = {"weights": (count,), "means": (count, latent), "factors": (count, latent, latent), "kind": (count,)}
        if not count or any(tensors[name].shape != shape for name, shape in shapes.items()):
            return None
        numbers, weights = tensors["kind"], tensors["weights"]
        expected = set(range(1, 1 + len(kinds))) or {0}
        if set(numbers.tolist()) != expected or not (np.isfinite(weights).all() and (weights > 0).all()):
            return None
        return cls(tuple(kinds), weights, tensors["means"], tensors["factors"], numbers)


def _lowest_bic(codes: Floats, config: PriorConfig, kind: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    state = derive(config.seed, "mixture", kind) % 2**32
    counts = range(1, 1 + min(config.components, len(codes)))
    with warnings.catch_warnings():
        # A fit that has not converged has a worse BIC, and is then not used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits: list[Any] = [
            GaussianMixture(count, n_init=STARTS, max_iter=MAX_ITERATIONS, random_state=state).fit(codes) for count in counts
        ]
    regular = [fit for fit in fits if fit.weights_.min() * len(codes) > codes.shape[1]]
    return min(regular or fits[:1], key=lambda fit: fit.bic(codes))
