"""Measures of a set of generated frames against a set of real ones, on their features; imports no torch.

All functions take features (N, D), one row per frame, of any scale. Features that cannot be measured raise InputError.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelscope.errors import InputError

Values = NDArray[np.float64]

PRECISION_NEIGHBOURS = 3
"""k of precision and recall (Kynkaanniemi et al. 2019, section 3)."""
DENSITY_NEIGHBOURS = 5
"""k of density and coverage (Naeem et al. 2020, section 4)."""
MIN_FRAMES = DENSITY_NEIGHBOURS + 1
"""Fewest frames of a set: each needs its k nearest others."""
SUBSETS, SUBSET = 100, 1000
"""Number of subsets that give the spread of the kernel distance, and their maximum size."""
_ROWS = 1024
"""Rows of a matrix of distances or kernel values that are held at a time."""


class KernelDistance(NamedTuple):
    """The kernel distance of two sets, with its spread."""

    value: float
    """Of all frames."""
    std: float
    """Standard deviation over random subsets of half of the smaller set, at most `SUBSET` frames."""


class Manifolds(NamedTuple):
    """Overlap of two sets. Precision, recall and coverage are fractions of frames; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(real: ArrayLike, generated: ArrayLike) -> float:
    """Return the Frechet distance of the two Gaussians with the sets' means and covariances (Heusel et al. 2017, equation 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). With centred features X = Q R divided by the square root of N - 1, C = R'R, and
    the trace of the square root is the sum of the singular values of R1 R2'. This holds for covariances without full rank too,
    and needs no square root of a matrix.

    It is biased upwards, the more so the fewer frames there are for the dimensions (Binkowski et al. 2018, section 4): compare
    values of equal counts only.

    Returns:
        At least 0; in squares of the features' unit.
    """
    one, other = checked(real), checked(generated)
    first, second = _root(one), _root(other)
    shift = np.square(one.mean(0) - other.mean(0)).sum()
    spread = np.square(first).sum() + np.square(second).sum()
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return max(0.0, float(shift + spread - 2 * shared))


def _root(features: Values) -> Values:
    """Return R (min(N, D), D) with R'R equal to the covariance."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"), np.float64)


def kernel_distance(real: ArrayLike, generated: ArrayLike, seed: int = 0) -> KernelDistance:
    """Return the squared maximum mean discrepancy under k(x, y) = (x'y / D + 1)^3, unbiased (Binkowski et al. 2018, section 4).

    Called KID on features of Inception. It is unbiased for any count, so it can be slightly negative for two sets of one
    distribution.

    seed: of the subsets.
    """
    one, other = checked(real), checked(generated)
    draw, size = np.random.default_rng(seed), min(len(one) // 2, len(other) // 2, SUBSET)
    found = [
        _discrepancy(*(some[draw.choice(len(some), size, replace=False)] for some in (one, other))) for _ in range(SUBSETS)
    ]
    return KernelDistance(_discrepancy(one, other), float(np.std(found)))


def _discrepancy(one: Values, other: Values) -> float:
    """Return the unbiased estimate (Gretton et al. 2012, lemma 6): pairs of a frame with itself are left out."""
    m, n = len(one), len(other)
    within = [(_kernel_sum(some, some) - _kernel(some, some).sum()) for some in (one, other)]
    return float(within[0] / (m * (m - 1)) + within[1] / (n * (n - 1)) - 2 * _kernel_sum(one, other) / (m * n))


def _kernel(one: Values, other: Values) -> Values:
    """Return the kernel of paired rows, (N,)."""
    return ((one * other).sum(1) / one.shape[1] + 1) ** 3


def _kernel_sum(one: Values, other: Values) -> float:
    """Return the sum of the kernel over all pairs."""
    return float(sum(((one[rows] @ other.T / one.shape[1] + 1) ** 3).sum() for rows in _blocks(len(one))))


def manifolds(real: ArrayLike, generated: ArrayLike) -> Manifolds:
    """Return precision, recall, density and coverage.

    Precision, recall: Kynkaanniemi et al. 2019, equations 1 to 3; density, coverage: Naeem et al. 2020, equations 4 and 6.

    Around each frame of a set lies a ball that reaches to its k-th nearest other frame of the set. Precision is the fraction of
    generated frames in any ball of real ones; recall is that of real frames in any ball of generated ones. Density is the mean
    number of real balls that hold a generated frame, divided by k; coverage is the fraction of real balls that hold one.
    """
    one, other = checked(real), checked(generated)
    k = DENSITY_NEIGHBOURS
    near, far = (neighbour_distances(one, k)[:, i - 1] for i in (PRECISION_NEIGHBOURS, k))
    reach = neighbour_distances(other, PRECISION_NEIGHBOURS)[:, -1]
    precise, recalled, within = (np.zeros(len(some)) for some in (other, one, other))
    covered = np.zeros(len(one))
    for rows in _blocks(len(other)):
        distances = _distances(other[rows], one)
        precise[rows] = (distances <= near).any(1)
        within[rows] = (distances <= far).sum(1)
        recalled = np.maximum(recalled, (distances <= reach[rows, None]).any(0))
        covered = np.maximum(covered, (distances <= far).any(0))
    return Manifolds(*(float(some.mean()) for some in (precise, recalled, within / k, covered)))


def neighbour_distances(features: ArrayLike, k: int) -> Values:
    """Return each frame's distances to its k nearest other frames of the set, (N, k), the nearest first."""
    some = checked(features)
    found = np.empty((len(some), k))
    for rows in _blocks(len(some)):
        distances = _distances(some[rows], some)
        distances[np.arange(len(distances)), np.arange(len(some))[rows]] = np.inf
        found[rows] = np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1)
    return found


class Nearest(NamedTuple):
    """The nearest frame of another set, per frame."""

    distance: Values
    """(N,), at least 0."""
    position: NDArray[np.int64]
    """(N,), in the other set."""


def nearest(features: ArrayLike, others: ArrayLike) -> Nearest:
    """Return the nearest of `others` (M, D) for each row of `features` (N, D)."""
    some, known = checked(features), checked(others)
    distance, position = np.empty(len(some)), np.empty(len(some), np.int64)
    for rows in _blocks(len(some)):
        distances = _distances(some[rows], known)
        position[rows] = distances.argmin(1)
        distance[rows] = distances.min(1)
    return Nearest(distance, position)


def fraction_nearer(distances: ArrayLike, references: ArrayLike) -> float:
    """Return the fraction of pairs in which the first distance is the smaller one; ties count half.

    With the distances of generated and of held-out frames to their nearest training frames it is 0.5 for a generator that is
    as far from its training frames as held-out ones are, and 1 for copies (Meehan et al. 2020, section 3; a Mann-Whitney U).
    """
    first, second = np.asarray(distances, np.float64), np.sort(np.asarray(references, np.float64))
    below, above = (np.searchsorted(second, first, side) for side in ("left", "right"))
    return float(1 - (below + above).mean() / (2 * len(second)))


def checked(features: ArrayLike) -> Values:
    """Return features as float64 (N, D).

    Raises:
        InputError: there are fewer than `MIN_FRAMES` rows, or a value is not finite.
    """
    values = np.asarray(features, np.float64)
    if len(values) < MIN_FRAMES:
        raise InputError(
            f"{len(values)} frames are too few to measure; give at least {MIN_FRAMES}, so that each has enough neighbours."
        )
    if not np.isfinite(values).all():
        rows = int((~np.isfinite(values).all(1)).sum())
        raise InputError(f"The features of {rows:,} of {len(values):,} frames are not finite; train the model again.")
    return values


def _distances(one: Values, other: Values) -> Values:
    """Return Euclidean distances (N, M), exact: 0 for equal rows."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(one, other), np.float64)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
