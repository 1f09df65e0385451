"""Anomaly scores of frames: each is a number of the frame alone and of what was stored beforehand; higher is less healthy.

Nothing here needs torch: what the networks say arrives as arrays, whichever program ran them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.calibration import GaussianReference
from pixelscope.imaging.tissue import tissue_mask

Values = NDArray[np.float64]

SCORES = {
    "whole": "mean squared error of the reconstruction over the whole frame, insets and border included",
    "picture": "mean squared error outside the insets",
    "tissue": "mean squared error on tissue: insets, border and glints left out",
    "structure": "1 - SSIM, averaged over tissue",
    "latent": "Mahalanobis distance of the posterior's mean from those of the training frames",
    "tissue+kl": "sum of the logarithms of error on tissue and KL divergence, standardised on the calibration frames",
    "picture+latent": "sum of the logarithms of error outside insets and latent distance, standardised likewise",
}
"""Every score by name, in words."""

COMPARED = frozenset({"whole"})
"""Scores that are shown and never chosen: what is drawn over a frame tells data sets apart and says nothing of tissue."""
COMBINED_SCORES = {"tissue+kl": ("tissue", "kl"), "picture+latent": ("picture", "latent")}
"""The scores that are sums of two measures."""
TINY = 1e-12
"""Least value whose logarithm is taken, and least deviation divided by."""
LEAST_TISSUE = 0.01
"""Share of a frame that must show tissue for the frame to be scored: a mean over fewer pixels is noise."""
NO_TISSUE = "no tissue is seen (too dark, too bright, of one colour, or covered by insets), so that there is no score"


@dataclass(frozen=True)
class ErrorMaps:
    """What the networks make of N frames of side S; float32 arrays."""

    error: NDArray[np.float32]
    """(N, S, S): squared difference of frame and reconstruction, mean of the three colours in [0, 1]."""
    dissimilarity: NDArray[np.float32]
    """(N, S - 10, S - 10): 1 - SSIM where the whole window lies inside the frame, mean of the colours."""
    kl: NDArray[np.float32]
    """(N, latent): nats of each dimension."""
    mean: NDArray[np.float32]
    """(N, latent): the posterior's mean."""


def raw_scores(
    maps: ErrorMaps, frames: NDArray[np.uint8], insets: NDArray[np.bool_], latent: GaussianReference
) -> dict[str, Values]:
    """Return what the scores are made of, float64 (N,) each; NaN for a frame in which no tissue is seen.

    frames: uint8 (N, S, S, 3), as they were reconstructed; insets: bool (N, S, S).
    """
    tissue = tissue_mask(frames, insets)
    margin = (maps.error.shape[1] - maps.dissimilarity.shape[1]) // 2
    inner = slice(margin, maps.error.shape[1] - margin)
    seen = (tissue.mean((1, 2)) >= LEAST_TISSUE) & tissue[:, inner, inner].any((1, 2))
    measured = {
        "whole": maps.error.mean((1, 2), dtype=np.float64),
        "picture": masked_mean(maps.error, ~insets),
        "tissue": masked_mean(maps.error, tissue),
        "structure": masked_mean(maps.dissimilarity, tissue[:, inner, inner]),
        "latent": latent.distance(maps.mean),
        "kl": maps.kl.sum(1, dtype=np.float64),
    }
    return {name: np.where(seen, values, np.nan) for name, values in measured.items()}


def scores(measured: Mapping[str, Values], spread: Mapping[str, tuple[float, float]]) -> dict[str, Values]:
    """Return every score of `SCORES`, float64 (N,) each; NaN where `measured` is.

    spread: mean and standard deviation of the logarithm of each measure on the calibration frames.
    """
    sums = {
        name: np.add(*(standardised(measured[part], spread[part]) for part in parts), dtype=np.float64)
        for name, parts in COMBINED_SCORES.items()
    }
    return {name: sums[name] if name in sums else measured[name] for name in SCORES}


def why_unscored(maps: ErrorMaps) -> list[str]:
    """Return for each of N frames what to say of it where it has no score."""
    finite = np.asarray(np.isfinite(maps.error).all((1, 2)) & np.isfinite(maps.mean).all(1))
    return [NO_TISSUE if one else "the model gives numbers that are not finite" for one in finite]


def standardised(values: Values, spread: tuple[float, float]) -> Values:
    """Return the logarithm of positive `values`, less its mean and divided by its standard deviation, both given."""
    mean, std = spread
    return (np.log(np.maximum(values, TINY)) - mean) / std


def log_spread(values: Values) -> tuple[float, float]:
    """Return mean and standard deviation of the logarithm of `values`; the deviation is never 0."""
    logarithms = np.log(np.maximum(values, TINY))
    return float(logarithms.mean()), max(float(logarithms.std()), TINY)


def masked_mean(values: NDArray[np.float32], valid_mask: NDArray[np.bool_]) -> Values:
    """Return the mean over each (H, W) of `values` (N, H, W) where `counted`; NaN where nothing is."""
    total, count = (values * valid_mask).sum((1, 2), dtype=np.float64), valid_mask.sum((1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
