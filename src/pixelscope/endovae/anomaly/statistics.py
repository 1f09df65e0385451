"""Mahalanobis distances and conformal p-values, in NumPy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelscope.errors import InputError

RIDGE = 1e-6
"""Added to the diagonal of a covariance, as a fraction of its mean: an unused dimension has no variance."""
TIE_TOLERANCE = 1e-4
"""Fraction of the calibration's standard deviation below which two scores are ties; two runtimes differ by less."""


@dataclass(frozen=True)
class GaussianReference:
    """A Gaussian fitted to reference vectors."""

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse of the covariance."""

    @classmethod
    def fit(cls, rows: ArrayLike) -> "GaussianReference":
        """Fit vectors (N, D).

        Raises:
            InputError: there are fewer than two, which have no covariance.
        """
        values = np.asarray(rows, np.float64)
        if len(values) < 2:
            raise InputError(f"A reference distribution needs at least 2 frames, and there are {len(values)}; give more.")
        covariance = np.atleast_2d(np.cov(values.T))
        ridge = RIDGE * max(float(np.trace(covariance)) / len(covariance), RIDGE)
        precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        return cls(tuple(values.mean(0).tolist()), tuple(map(tuple, precision.tolist())))

    def distance(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Return the Mahalanobis distance sqrt((x - mean)^T precision (x - mean)) of vectors (N, D), shape (N,)."""
        centred = np.asarray(rows, np.float64) - np.asarray(self.mean, np.float64)
        return np.sqrt(np.einsum("ni,ij,nj->n", centred, np.asarray(self.precision, np.float64), centred).clip(0))


def tie_tolerance(known: ArrayLike) -> float:
    """Return the difference below which two scores are ties, given calibration scores (N,)."""
    return TIE_TOLERANCE * float(np.std(np.asarray(known, np.float64)))


def conformal_p(known: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Return conformal p-values: (1 + number of calibration scores as high) / (1 + number of calibration scores).

    Among healthy frames like those of the calibration, at most a fraction p has a value of p or less (Vovk et al. 2005).

    Args:
        known: calibration scores (N,), ascending, at least one.
        values: scores (M,); the p-value of NaN is NaN.
    """
    scores, given = np.asarray(known, np.float64), np.asarray(values, np.float64)
    as_high = len(scores) - np.searchsorted(scores, given - tie_tolerance(scores), side="left")
    return np.where(np.isnan(given), np.nan, (1 + as_high) / (1 + len(scores)))


def frames_needed(rate: float) -> int:
    """Return the minimum number of calibration frames for a false-positive rate: with fewer, no p-value is that small."""
    return int(np.ceil(1 / rate - 1e-9)) - 1


def few_frames_warning(count: int, rate: float) -> tuple[str, ...]:
    """Return a warning if `count` calibration frames are too few for a false-positive rate; nothing is flagged then."""
    if count >= frames_needed(rate):
        return ()
    warning = (
        f"Warning: a false-positive rate of {rate:g} needs at least {frames_needed(rate)} calibration frames, and there are "
        f"{count}, so that nothing is flagged; give more healthy frames, or `score --false-positive-rate` "
        f"{1 / (1 + count):.3g} or more."
    )
    return (warning,)
