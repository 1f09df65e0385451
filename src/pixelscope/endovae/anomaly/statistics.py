"""Mahalanobis distances and conformal p-values, in NumPy alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelscope.errors import InputError

RIDGE = 1e-6
"""Added to the diagonal of a covariance, as a fraction of its mean: an unused dimension has no variance."""
TIE_TOLERANCE = 1e-4
"""Fraction of the calibration's standard deviation below which two scores are ties; two runtimes differ by less."""

MIN_CLUSTERS = 5
"""Minimum number of clusters for an interval: resamples of fewer differ too little, and those of one not at all."""


@dataclass(frozen=True)
class GaussianReference:
    """A Gaussian fitted to reference vectors, or one per position of a spatial code (Defard et al., ICPR 2021)."""

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse of the covariance, (D, D); of P positions with D values each, the inverses below each other, (P D, D)."""

    @classmethod
    def fit(cls, rows: ArrayLike, positions: int = 1) -> "GaussianReference":
        """Fit vectors (N, P D).

        Args:
            rows: the vectors; the values of one position are next to each other.
            positions: P; values of different positions are taken as independent.

        Raises:
            InputError: there are fewer than two, which have no covariance.
        """
        values = np.asarray(rows, np.float64)
        if len(values) < 2:
            raise InputError(f"A reference distribution needs at least 2 frames, and there are {len(values)}; give more.")
        centred = (values - values.mean(0)).reshape(len(values), positions, -1)
        covariance = np.einsum("npi,npj->pij", centred, centred, optimize=True) / (len(values) - 1)
        size = covariance.shape[-1]
        ridge = RIDGE * np.maximum(np.trace(covariance, axis1=1, axis2=2) / size, RIDGE)
        precision = np.linalg.inv(covariance + ridge[:, None, None] * np.eye(size))
        return cls(tuple(values.mean(0).tolist()), tuple(map(tuple, precision.reshape(-1, size).tolist())))

    def distance(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Return the Mahalanobis distance sqrt((x - mean)^T precision (x - mean)) of vectors (N, P D), shape (N,).

        Of several positions, the root of the mean of their squares.
        """
        precision = np.asarray(self.precision, np.float64)
        precision = precision.reshape(-1, precision.shape[1], precision.shape[1])
        given = np.asarray(rows, np.float64)
        centred = (given - np.asarray(self.mean, np.float64)).reshape(len(given), *precision.shape[:2])
        squares = np.einsum("npi,pij,npj->np", centred, precision, centred, optimize=True)
        return np.sqrt(squares.mean(1).clip(0))


def tie_tolerance(known: ArrayLike) -> float:
    """Return the difference below which two scores are ties, given calibration scores (N,)."""
    return TIE_TOLERANCE * float(np.std(np.asarray(known, np.float64)))


def conformal_p(known: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Return conformal p-values: (1 + number of calibration scores as high) / (1 + number of calibration scores).

    Among healthy frames like those of the calibration, at most a fraction p has a value of p or less (Vovk et al. 2005).

    Args:
        known: calibration scores (N,), ascending, at least one.
        values: scores (M,); the p-value of one that is not finite is NaN.
    """
    scores, given = np.asarray(known, np.float64), np.asarray(values, np.float64)
    as_high = len(scores) - np.searchsorted(scores, given - tie_tolerance(scores), side="left")
    return np.where(np.isfinite(given), (1 + as_high) / (1 + len(scores)), np.nan)


def frames_needed(rate: float) -> int:
    """Return the minimum number of calibration frames for a false-positive rate: with fewer, no p-value is that small."""
    return int(np.ceil(1 / rate - 1e-9)) - 1


def smallest_rate(count: int) -> str:
    """Return the smallest false-positive rate for a number of calibration frames, rounded up, so that it is enough."""
    exact = 1 / (1 + count)
    digit = 10.0 ** (np.floor(np.log10(exact)) - 2)
    return f"{np.ceil(exact / digit - 1e-9) * digit:.3g}"


def few_frames_warning(count: int, rate: float, where: str = "") -> tuple[str, ...]:
    """Return a warning if `count` calibration frames are too few for a false-positive rate; nothing is flagged then.

    where: which frames these are, after the count, for example ` in a fold`.
    """
    if count >= frames_needed(rate):
        return ()
    warning = (
        f"Warning: a false-positive rate of {rate:g} needs at least {frames_needed(rate)} calibration frames, and there are "
        f"{count}{where}, so that nothing is flagged; give more healthy frames, or `score --false-positive-rate` "
        f"{smallest_rate(count)} or more."
    )
    return (warning,)


def few_clusters_warning(clusters: Mapping[str, int], where: str = "") -> tuple[str, ...]:
    """Return a warning if a group of frames has fewer clusters of near-duplicates than an interval needs.

    Args:
        clusters: number of clusters by group.
        where: which frames these are, for example ` on the view centre`.
    """
    few = [f"{name} ({count})" for name, count in clusters.items() if count < MIN_CLUSTERS]
    if not few:
        return ()
    warning = (
        f"Warning: intervals{where} are too narrow for groups with fewer than {MIN_CLUSTERS} clusters of near-duplicates: "
        f"{', '.join(few)}; give frames of more videos."
    )
    return (warning,)
