"""Training, validation and test parts of whole clusters of near-duplicates."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError

Positions = NDArray[np.int64]

_PARTS = ("training", "validation", "test")


def split_by_cluster(
    clusters: Positions, labels: Positions, fractions: tuple[float, float], seed: int
) -> tuple[Positions, Positions, Positions]:
    """Divide frames into training, validation and test so that no cluster lies in two parts.

    Class by class (a cluster of several classes counts as the one that most of its frames have), clusters are dealt
    from the largest to the smallest, those of one size in a random order, each to the part that lacks most frames. So
    the largest clusters are trained on, and the small ones fill the shares. A class's largest cluster always goes to
    training: a class of one cluster is in no other part. What rounding leaves over in one class is made good in the
    next. A part wanted that stays empty gets the smallest cluster of a class that has others in training, or else of a
    part that has others.

    Args:
        clusters: int64, shape (N,): each frame's cluster.
        labels: int64, shape (N,): each frame's class.
        fractions: shares of the frames in validation and in test, from 0; under 1 together.
        seed: of the order of clusters of one size.

    Returns:
        The positions of the frames of the three parts, int64, ascending.

    Raises:
        InputError: there are too few clusters for all parts, or the fractions make no sense.
    """
    shares = _shares(fractions)
    part_of = np.zeros(clusters.max(initial=-1) + 1, np.int64)
    home = _main_class(clusters, labels)
    sizes = np.bincount(clusters)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    left_over = np.zeros(len(_PARTS))
    for label in np.unique(labels):
        members = [cluster for cluster in order.tolist() if sizes[cluster] and home[cluster] == label]
        left_over = _deal(members, sizes, shares, left_over, part_of)
    _fill_empty(part_of, home, order[sizes[order] > 0], shares)
    parts = part_of[clusters]
    training, validation, test = (np.flatnonzero(parts == part) for part in range(len(_PARTS)))
    return training, validation, test


def _shares(fractions: tuple[float, float]) -> NDArray[np.float64]:
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise InputError(
            f"Validation and test cannot be {fractions[0]} and {fractions[1]} of the frames; give two fractions from 0, "
            "under 1 together."
        )
    return np.array([1 - sum(fractions), *fractions])


def _main_class(clusters: Positions, labels: Positions) -> Positions:
    """Return the class of most frames of each cluster, the first where two are equal."""
    counts = np.zeros((clusters.max(initial=-1) + 1, labels.max(initial=0) + 1), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return counts.argmax(axis=1)


def _deal(
    members: Sequence[int], sizes: Positions, shares: NDArray[np.float64], left_over: NDArray[np.float64], part_of: Positions
) -> NDArray[np.float64]:
    """Set the part of each of a class's clusters, the largest first; return what each part still lacks, a frame at most."""
    # A part of no share never lacks a frame, while those of the others together lack all that are left to deal.
    lacking = shares * sizes[list(members)].sum() + left_over
    for i, cluster in enumerate(members):
        part = 0 if i == 0 else int(lacking.argmax())
        part_of[cluster] = part
        lacking[part] -= sizes[cluster]
    return np.clip(lacking, -1, 1)


def _fill_empty(part_of: Positions, home: Positions, order: Positions, shares: NDArray[np.float64]) -> None:
    """Give each part that is wanted and empty the smallest cluster that training or, failing that, another part can spare."""
    for part in range(1, len(_PARTS)):
        if shares[part] == 0 or (part_of[order] == part).any():
            continue
        spare = next(chain(_spare(part_of, home, order), _doubled(part_of, order)), None)
        if spare is None:
            raise InputError(
                f"There are too few frames for a {_PARTS[part]} part: {len(order)} that are no near-duplicates of one another; "
                "give more of them."
            )
        part_of[spare] = part


def _spare(part_of: Positions, home: Positions, order: Positions) -> Iterator[int]:
    """Give the clusters in training whose class has another one there, the smallest first."""
    training = order[part_of[order] == 0]
    for cluster in training[::-1].tolist():
        if (home[training] == home[cluster]).sum() > 1:
            yield cluster


def _doubled(part_of: Positions, order: Positions) -> Iterator[int]:
    """Give the clusters outside training whose part has another one, the smallest first."""
    held_out = order[part_of[order] > 0]
    for cluster in held_out[::-1].tolist():
        if (part_of[held_out] == part_of[cluster]).sum() > 1:
            yield cluster
