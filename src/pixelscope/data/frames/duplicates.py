"""Near-duplicates: perceptual hashes, clusters of similar frames, and splits that keep clusters together."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError, plural
from pixelscope.imaging.content_area import brightest_channel

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

DISTANCE = 8
"""Maximum Hamming distance of near-duplicates, chosen by inspecting 1,370 colon frames of HyperKvasir.

Of 40 pairs at distance 8, 38 show one view of one video; of 40 at distance 10, about half do. Up to 8, 4 pairs of frames join
two classes, and the largest cluster is one video of 34 frames. Up to 12, chains of dissimilar frames put 233 into one cluster,
and up to 14, 732.
"""

SEQUENCE_FACTOR = 2
"""Factor on the distance for frames that follow each other by name.

At 16, one pair in 20,000 of unrelated hashes is that near. A pair must therefore also follow each other by name.
"""

_BLACK = 20
_SIDE = 32
_SLOWEST = np.argsort(np.hypot(*np.mgrid[:_SIDE, :_SIDE]).ravel(), kind="stable")[1:65]
"""Coefficients of the cosine transform that give the bits, by frequency, without the constant."""
_LAST_NUMBER = re.compile(r"(.*?)([0-9]{1,15})([^0-9]*)", re.DOTALL)
_CHUNK_PAIRS = 4_000_000
"""Pairs compared at once; their products take 16 MB."""


def perceptual_hash(frame: NDArray[np.uint8]) -> int:
    """Return a 64-bit perceptual hash of a frame: pHash (Zauner 2010), adapted to endoscopy.

    Black corners and blacked-out insets are the strongest shapes in most frames. Black is therefore replaced by the mean of
    the rest, and a round window fades grey values towards the corners. Of the cosine transform at 32 x 32, the 64 lowest
    frequencies without the constant give one bit each: 1 if the coefficient is above their median. Small shifts, brightness,
    size and compression change few bits; mirrored and rotated frames have other hashes.

    Args:
        frame: uint8, shape (H, W, 3), RGB.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    black = cv2.dilate((brightest_channel(frame) < _BLACK).view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    middle = grey[~black].mean() if not black.all() else 0.0
    shown = np.where(black, 0, grey - middle).astype(np.float32) * _window(*grey.shape)
    waves = cv2.dct(cv2.resize(shown, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
    slow = waves.ravel()[_SLOWEST]
    median = np.sort(slow)[31:33].mean()
    return int.from_bytes(np.packbits(slow > median).tobytes(), "big")


def clusters(hashes: Hashes, distance: int = DISTANCE, names: Sequence[str] = ()) -> Positions:
    """Return the cluster of each frame: the connected components of pairs within `distance`, and of neighbours in a sequence.

    Neighbours are frames whose names differ in their last number only, with no other in between (`video/0012.jpg`,
    `video/0015.jpg`). They belong together up to `SEQUENCE_FACTOR` times the distance.

    Args:
        hashes: uint64, shape (N,).
        distance: maximum Hamming distance of a pair.
        names: names of the N frames; if empty, only hashes are compared.

    Returns:
        int64, shape (N,), numbered from 0 in the order in which clusters first appear.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    labels = np.arange(len(unique))
    for first, second in _near(unique, distance):
        labels = _joined(labels, labels[first], labels[second])
    found = labels[inverse.reshape(-1)]
    first, second = _neighbours(names)
    near = _bits(hashes[first] ^ hashes[second]).sum(1, dtype=np.int64) <= SEQUENCE_FACTOR * distance
    return _in_order(_joined(np.arange(len(unique)), found[first[near]], found[second[near]])[found])


def _joined(labels: NDArray[np.integer], first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return labels in which those of `first` and `second` are the same, pair by pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(labels),) * 2)
    return connected_components(edges, directed=False)[1][labels]


def _neighbours(names: Sequence[str]) -> tuple[Positions, Positions]:
    """Return the positions of frames that follow each other by the last number in their names."""
    sequences: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for position, name in enumerate(names):
        found = _LAST_NUMBER.fullmatch(name.rpartition(".")[0] or name)
        if found is not None:
            sequences[found[1], found[3]].append((int(found[2]), position))
    ordered = [[position for _, position in sorted(one)] for one in sequences.values()]
    pairs = [pair for one in ordered for pair in pairwise(one)]
    found_pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return found_pairs[:, 0], found_pairs[:, 1]


@lru_cache
def _window(height: int, width: int) -> NDArray[np.float32]:
    """Return weights (height, width): 1 up to three quarters of the way from the centre to the sides, 0 in the corners."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
    return np.clip((1.05 - np.hypot(y[:, None], x)) / 0.3, 0, 1).astype(np.float32)


def _near(hashes: Hashes, distance: int) -> Iterator[tuple[Positions, Positions]]:
    """Yield the positions of all pairs of different hashes within `distance`, in chunks."""
    signs = _bits(hashes).astype(np.float32) * 2 - 1
    rows = max(1, _CHUNK_PAIRS // max(1, len(hashes)))
    for start in range(0, len(hashes), rows):
        # Signs agree in 64 - d bits and differ in d: their product is 64 - 2 d, exact in float32.
        products = signs[start : start + rows] @ signs[start:].T
        first, second = np.nonzero(products >= 64 - 2 * distance)
        later = second > first
        if later.any():
            yield first[later] + start, second[later] + start


def _bits(hashes: Hashes) -> NDArray[np.uint8]:
    """Return the bits, shape (N, 64)."""
    return np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)


def _in_order(labels: NDArray[np.integer]) -> Positions:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


_PARTS = ("training", "validation", "test")


def split_by_cluster(
    clusters: Positions, labels: Positions, fractions: tuple[float, float], seed: int
) -> tuple[Positions, Positions, Positions]:
    """Split frames into training, validation and test so that no cluster is in two parts.

    Clusters are assigned class by class. A cluster with several classes counts for its most frequent one. They go from the
    largest to the smallest, in random order among equal sizes, to the part that lacks most frames. The largest cluster of a
    class always goes to training. Rounding remainders of one class are carried to the next. If a part with a fraction above 0
    stays empty, it gets the smallest cluster of a class with several clusters in training, or else of a part with several.

    Args:
        clusters: int64, shape (N,), the cluster of each frame.
        labels: int64, shape (N,), the class of each frame.
        fractions: fractions of the frames in validation and test, from 0; their sum is below 1.
        seed: seed of the order among clusters of equal size.

    Returns:
        Positions of the frames of the three parts, int64, ascending.

    Raises:
        InputError: there are too few clusters for all parts, or the fractions are invalid.
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
            f"Validation and test cannot be {fractions[0]} and {fractions[1]} of the frames; give two fractions of at least 0 "
            "with a sum below 1."
        )
    return np.array([1 - sum(fractions), *fractions])


def _main_class(clusters: Positions, labels: Positions) -> Positions:
    """Return the most frequent class of each cluster, the first of equals."""
    counts = np.zeros((clusters.max(initial=-1) + 1, labels.max(initial=0) + 1), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return counts.argmax(axis=1)


def _deal(
    members: Sequence[int], sizes: Positions, shares: NDArray[np.float64], left_over: NDArray[np.float64], part_of: Positions
) -> NDArray[np.float64]:
    """Set the part of each cluster of a class, the largest first; return what each part still lacks, at most one frame."""
    # A part with share 0 never lacks a frame; the other parts together lack all frames that remain.
    lacking = shares * sizes[list(members)].sum() + left_over
    for i, cluster in enumerate(members):
        part = 0 if i == 0 else int(lacking.argmax())
        part_of[cluster] = part
        lacking[part] -= sizes[cluster]
    return np.clip(lacking, -1, 1)


def _fill_empty(part_of: Positions, home: Positions, order: Positions, shares: NDArray[np.float64]) -> None:
    """Give each empty part with a fraction above 0 the smallest cluster that training, or else another part, can spare."""
    for part in range(1, len(_PARTS)):
        if shares[part] == 0 or (part_of[order] == part).any():
            continue
        spare = next(chain(_spare(part_of, home, order), _doubled(part_of, order)), None)
        if spare is None:
            raise InputError(
                f"There are too few frames for a {_PARTS[part]} part: they form {plural(len(order), 'cluster')} of "
                "near-duplicates; give more."
            )
        part_of[spare] = part


def _spare(part_of: Positions, home: Positions, order: Positions) -> Iterator[int]:
    """Yield the clusters in training whose class has another one there, the smallest first."""
    training = order[part_of[order] == 0]
    for cluster in training[::-1].tolist():
        if (home[training] == home[cluster]).sum() > 1:
            yield cluster


def _doubled(part_of: Positions, order: Positions) -> Iterator[int]:
    """Yield the clusters outside training whose part has another one, the smallest first."""
    held_out = order[part_of[order] > 0]
    for cluster in held_out[::-1].tolist():
        if (part_of[held_out] == part_of[cluster]).sum() > 1:
            yield cluster
