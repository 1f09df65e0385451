"""Folds of a frame store for cross-validation: whole clusters of near-duplicates, every frame tested once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.data.frames.store import FrameStore
from pixelscope.errors import InputError
from pixelscope.rng import derive

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Frames of one fold, by position in the store, int64, ascending; no cluster is in two of them."""

    train: Positions
    """Healthy frames that detectors are fitted to."""
    selection: Positions
    """Healthy and abnormal frames that select a detector."""
    calibration: Positions
    """Healthy frames that set the threshold, and choose nothing."""
    test: Positions
    """Healthy and abnormal frames."""


def make_folds(store: FrameStore, used: NDArray[np.bool_], count: int, distance: int, seed: int) -> list[Fold]:
    """Divide the frames of a store.

    In each fold one part is tested. Of the next one, half of the healthy frames calibrate; the other half and the abnormal
    frames select. The healthy frames of all other parts are trained on.

    Args:
        store: has healthy and abnormal frames.
        used: bool (N,), the frames to divide.
        count: number of folds, at least 3.
        distance: maximum Hamming distance of near-duplicates.
        seed: of all random choices.

    Raises:
        InputError: there is one kind of frames only, or there are too few clusters.
    """
    normal, abnormal = (np.flatnonzero((store.abnormal == kind) & used) for kind in (False, True))
    healthy = _parts(store, normal, "healthy", count, distance, seed)
    others = _parts(store, abnormal, "abnormal", count, distance, seed)
    found = []
    for k in range(count):
        following = (k + 1) % count
        calibration, selection = halves(store, healthy[following], distance, seed)
        found.append(
            Fold(
                train=_joined([part for j, part in enumerate(healthy) if j not in (k, following)]),
                selection=_joined([selection, others[following]]),
                calibration=calibration,
                test=_joined([healthy[k], others[k]]),
            )
        )
    return found


def halves(
    store: FrameStore, positions: Positions, distance: int, seed: int, fraction: float = 0.5
) -> tuple[Positions, Positions]:
    """Return `fraction` of the healthy frames `positions`, in whole clusters, and the others.

    Raises:
        InputError: all of them are near-duplicates of each other.
    """
    groups = store.clusters(positions, distance)
    if len(np.unique(groups)) < 2:
        raise InputError(
            f"There are {len(positions)} healthy frames here, all near-duplicates of each other, which cannot be divided; "
            "give more frames, or lower --folds."
        )
    rest, _, first = split_by_cluster(groups, np.zeros(len(groups), np.int64), (0.0, fraction), seed)
    return np.sort(positions[first]), np.sort(positions[rest])


def _parts(store: FrameStore, positions: Positions, kind: str, count: int, distance: int, seed: int) -> list[Positions]:
    """Deal the clusters of each class, the largest first, to the part that has the fewest frames of the class."""
    if not len(positions):
        raise InputError(f"{store.path} has no {kind} frames; give a folder or store that has classes of both kinds.")
    groups = store.clusters(positions, distance)
    members = [positions[groups == group] for group in range(groups.max() + 1)]
    if len(members) < count:
        raise InputError(
            f"{count} folds need at least {count} {kind} frames without near-duplicates, and there are {len(members)}; give "
            "more, or lower --folds."
        )
    rng = np.random.default_rng(derive(seed, "folds", kind))
    filled = np.zeros((len(store.classes), count), np.int64)
    parts: list[list[Positions]] = [[] for _ in range(count)]
    for group in sorted(members, key=lambda some: (-len(some), rng.random())):
        label = int(np.bincount(store.labels[group]).argmax())
        part = int(np.lexsort((filled.sum(0), filled[label]))[0])
        filled[label, part] += len(group)
        parts[part].append(group)
    return [_joined(part) for part in parts]


def _joined(parts: list[Positions]) -> Positions:
    return np.sort(np.concatenate(parts))
