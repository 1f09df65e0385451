"""Parts of whole clusters: nothing leaks, nothing is lost, shares are met."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.errors import InputError

Positions = NDArray[np.int64]

fractions = st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.45]), st.sampled_from([0.0, 0.1, 0.2, 0.45]))


@st.composite
def clustered(draw: st.DrawFn) -> tuple[Positions, Positions]:
    """Draw clusters and labels: most clusters of one class, some of several."""
    clusters = np.array(draw(st.lists(st.integers(0, 12), min_size=1, max_size=30)))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    own, strays = random.integers(0, 3, 13), random.random(len(clusters)) < 0.2
    return clusters, (own[clusters] + strays) % 3


def singles(*counts: int) -> tuple[Positions, Positions]:
    """Return frames that are clusters of their own, so many a class."""
    return np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts)


def _spare_clusters(clusters: Positions, labels: Positions) -> int:
    """Return how many clusters are left when each class keeps one: a split is refused where they are too few."""
    homes = [int(np.bincount(labels[clusters == cluster]).argmax()) for cluster in np.unique(clusters)]
    return len(homes) - len(set(homes))


@given(clustered(), fractions, st.integers(0, 5))
def test_parts_are_disjoint_whole_and_complete(
    data: tuple[Positions, Positions], shares: tuple[float, float], seed: int
) -> None:
    clusters, labels = data
    try:
        parts = split_by_cluster(clusters, labels, shares, seed)
    except InputError:
        assert _spare_clusters(clusters, labels) < sum(share > 0 for share in shares)
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(clusters)))
    of_part = [set(clusters[part].tolist()) for part in parts]
    assert len(set().union(*of_part)) == sum(map(len, of_part))
    for part, share in zip(parts, (1, *shares), strict=True):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        assert (len(part) > 0) == (share > 0)


@given(clustered(), fractions)
def test_a_seed_gives_one_split(data: tuple[Positions, Positions], shares: tuple[float, float]) -> None:
    clusters, labels = data
    try:
        first, again = (split_by_cluster(clusters, labels, shares, 3) for _ in range(2))
    except InputError:
        assert _spare_clusters(clusters, labels) < sum(share > 0 for share in shares)
        return
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@given(clustered(), fractions, st.integers(0, 5))
def test_each_class_keeps_its_largest_cluster_in_training(
    data: tuple[Positions, Positions], shares: tuple[float, float], seed: int
) -> None:
    clusters, labels = data
    clusters = clusters + 13 * labels  # of one class each
    try:
        training, _, _ = split_by_cluster(clusters, labels, shares, seed)
    except InputError:
        assert _spare_clusters(clusters, labels) < sum(share > 0 for share in shares)
        return
    for label in set(labels.tolist()):
        assert np.bincount(clusters[training][labels[training] == label]).max() == np.bincount(clusters[labels == label]).max()


@given(st.lists(st.integers(30, 200), min_size=1, max_size=4), st.integers(0, 5))
def test_single_frames_meet_the_shares_of_every_class(counts: list[int], seed: int) -> None:
    clusters, labels = singles(*counts)
    _, validation, test = split_by_cluster(clusters, labels, (0.15, 0.1), seed)
    for label, count in enumerate(counts):
        assert abs((labels[validation] == label).sum() - 0.15 * count) <= 2
        assert abs((labels[test] == label).sum() - 0.1 * count) <= 2
    assert abs(len(validation) - 0.15 * sum(counts)) <= 2
    assert abs(len(test) - 0.1 * sum(counts)) <= 2


def test_rounding_in_one_class_is_made_good_in_the_next() -> None:
    parts = split_by_cluster(*singles(*[5] * 20), (0.15, 0.1), 0)
    assert [len(part) for part in parts] == [75, 15, 10]


def test_a_giant_cluster_of_one_class_leaves_the_shares_of_another() -> None:
    clusters = np.array([0] * 100 + list(range(1, 51)))
    labels = np.array([0] * 100 + [1] * 50)
    training, validation, test = split_by_cluster(clusters, labels, (0.2, 0.2), 0)
    assert abs((labels[training] == 1).sum() - 30) <= 2
    assert abs(len(validation) - 10) <= 1
    assert abs(len(test) - 10) <= 1


@given(st.lists(st.integers(1, 6), min_size=30, max_size=50), st.integers(0, 5))
def test_clusters_meet_the_shares_within_a_cluster(sizes: list[int], seed: int) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    parts = split_by_cluster(clusters, np.zeros_like(clusters), (0.2, 0.2), seed)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - share * len(clusters)) <= 6


def test_the_largest_clusters_are_trained_on() -> None:
    clusters = np.repeat(np.arange(43), [20, 10, 10, *[1] * 40])
    training, _, _ = split_by_cluster(clusters, np.zeros_like(clusters), (0.2, 0.2), 0)
    assert {0, 1, 2} <= set(clusters[training].tolist())


def test_another_seed_gives_another_split() -> None:
    first, other = (split_by_cluster(*singles(60), (0.2, 0.2), seed) for seed in (0, 1))
    assert first[1].tolist() != other[1].tolist()


def test_single_frames_are_drawn_from_everywhere() -> None:
    drawn = np.concatenate([split_by_cluster(*singles(60), (0.2, 0.2), seed)[1] for seed in range(20)])
    assert len(set(drawn.tolist())) > 50


def test_a_class_of_one_cluster_stays_in_training() -> None:
    clusters = np.array([*range(20), *[20] * 10])
    labels = np.array([0] * 20 + [1] * 10)
    for shares in ((0.2, 0.2), (0.45, 0.45)):
        training, _, _ = split_by_cluster(clusters, labels, shares, 0)
        assert set(range(20, 30)) <= set(training.tolist())


def test_a_mixed_cluster_counts_as_the_class_of_most_of_its_frames() -> None:
    # Class 1 has the frame of the mixed cluster and one of its own, which is thus its largest cluster.
    clusters, labels = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 0, 1])
    training, validation, test = split_by_cluster(clusters, labels, (0.2, 0.0), 0)
    assert training.tolist() == [0, 1, 2, 4]
    assert validation.tolist() == [3]
    assert test.tolist() == []


def test_a_part_that_would_stay_empty_gets_the_smallest_cluster() -> None:
    clusters = np.repeat(np.arange(3), [50, 40, 30])
    parts = split_by_cluster(clusters, np.zeros_like(clusters), (0.1, 0.1), 0)
    assert [len(part) for part in parts] == [50, 30, 40]


@pytest.mark.parametrize(
    ("clusters", "labels", "shares"),
    [
        ([0], [0], (0.2, 0.0)),
        ([0, 0, 0], [0, 0, 0], (0.2, 0.0)),
        ([0, 1], [0, 0], (0.2, 0.2)),
        ([0, 1, 2], [0, 1, 2], (0.2, 0.0)),
    ],
)
def test_too_few_frames_are_refused(clusters: list[int], labels: list[int], shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="too few frames for a (validation|test) part"):
        split_by_cluster(np.array(clusters), np.array(labels), shares, 0)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.2), (0.0, 1.0)])
def test_fractions_that_make_no_sense_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="a sum below 1"):
        split_by_cluster(*singles(10), shares, 0)
