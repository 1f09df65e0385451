"""Distance in a latent space."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mahalanobis(points: ArrayLike, mean: ArrayLike, precision: ArrayLike) -> NDArray[np.float64]:
    """Return sqrt((x - mean)^T precision (x - mean)) of each of `points` (N, D); precision: (D, D), an inverse covariance."""
    centred = np.asarray(points, np.float64) - np.asarray(mean, np.float64)
    return np.sqrt(np.einsum("ni,ij,nj->n", centred, np.asarray(precision, np.float64), centred).clip(0))


TIE_TOLERANCE = 1e-4
"""Scores nearer than this share of the calibration scores' standard deviation count as equal: two runtimes differ by less."""


def tie_tolerance(known: ArrayLike) -> float:
    """Return how far apart two scores count as equal, beside calibration scores (N,)."""
    return TIE_TOLERANCE * float(np.std(np.asarray(known, np.float64)))


def conformal_p(known: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-value of each of `values` (M,): (1 + calibration scores as high) / (1 + all of them).

    Among healthy frames like the calibration's, a share of at most p has a value of p or less (Vovk et al. 2005).
    known: calibration scores (N,), ascending, one at least. A value that is NaN, of a frame without score, has none: NaN.
    """
    scores, given = np.asarray(known, np.float64), np.asarray(values, np.float64)
    as_high = len(scores) - np.searchsorted(scores, given - tie_tolerance(scores), side="left")
    return np.where(np.isnan(given), np.nan, (1 + as_high) / (1 + len(scores)))
