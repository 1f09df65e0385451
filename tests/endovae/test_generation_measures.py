"""Measures of generated frames against naive loops, closed forms, scipy and scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from pixelscope.endovae.generation import measures
from pixelscope.endovae.generation.measures import (
    fraction_nearer,
    frechet_distance,
    kernel_distance,
    manifolds,
    nearest,
    neighbour_distances,
)
from pixelscope.errors import InputError


def gaussian(count: int, dimensions: int, seed: int, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).normal(size=(count, dimensions))


@pytest.mark.parametrize("dimensions", [3, 40])
def test_a_set_is_as_good_as_itself(dimensions: int) -> None:
    some = gaussian(30, dimensions, 0)
    assert frechet_distance(some, some[::-1]) == pytest.approx(0, abs=1e-9)
    assert abs(kernel_distance(some, gaussian(30, dimensions, 1)).value) < 0.3
    found = manifolds(some, some)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density >= 1


def test_frechet_distance_of_gaussians() -> None:
    """Of N(m, s^2 I) and N(0, I) it is |m|^2 + D (s - 1)^2."""
    one = gaussian(20_000, 4, 0)
    other = gaussian(20_000, 4, 1, spread=3) + np.array([2, 0, 0, 1])
    assert frechet_distance(one, other) == pytest.approx(5 + 4 * 4, rel=0.02)
    shifted = one + np.array([0, 3, 0, 4])
    assert frechet_distance(one, shifted) == pytest.approx(25)


@pytest.mark.parametrize(("count", "dimensions"), [(200, 5), (12, 30)])
def test_frechet_distance_is_the_formula(count: int, dimensions: int) -> None:
    """Also with fewer frames than dimensions, whose covariance has no full rank."""
    mixed = gaussian(dimensions, dimensions, 2)
    one, other = gaussian(count, dimensions, 0), gaussian(count + 7, dimensions, 1) @ mixed
    first, second = np.cov(one.T), np.cov(other.T)
    # The root of the product of two singular matrices does not converge; that of a symmetric one does.
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second) - 2 * shared
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    if count > dimensions:
        assert shared == pytest.approx(np.trace(sqrtm(first @ second)).real, rel=1e-6)


@pytest.mark.parametrize("counts", [(50, 50), (23, 50), (50, 23)])
def test_the_kernel_distance_is_that_of_the_kernel_of_scikit_learn(counts: tuple[int, int]) -> None:
    """Within a set no frame is paired with itself, so that N (N - 1) pairs remain; between sets all are."""
    one, other = gaussian(counts[0], 8, 0), gaussian(counts[1], 8, 1, 1.5) + 0.5
    kernels = [polynomial_kernel(*pair, degree=3, gamma=1 / 8, coef0=1) for pair in ((one, one), (other, other), (one, other))]
    within = [kernel[~np.eye(len(kernel), dtype=bool)].mean() for kernel in kernels[:2]]
    assert kernel_distance(one, other).value == pytest.approx(sum(within) - 2 * kernels[2].mean(), rel=1e-9)


def test_the_kernel_distance_is_unbiased_and_has_a_spread() -> None:
    """Its mean over many pairs of sets of one distribution is 0, so that half of them are negative."""
    found = [kernel_distance(gaussian(12, 3, 2 * i), gaussian(40, 3, 2 * i + 1)) for i in range(60)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(60)
    assert 10 < (values < 0).sum() < 55
    # Subsets of half of a set spread more widely than whole sets.
    assert np.mean([one.std for one in found]) > values.std()


def test_the_spread_of_the_kernel_distance_is_over_subsets_of_half_of_the_smaller_set() -> None:
    one, other, draw = gaussian(40, 3, 0), gaussian(16, 3, 1) + 1, np.random.default_rng(5)
    drawn = [
        kernel_distance(*(some[draw.choice(len(some), 8, replace=False)] for some in (one, other))).value for _ in range(60)
    ]
    assert kernel_distance(one, other).std == pytest.approx(np.std(drawn), rel=0.3)


def test_neighbours_and_manifolds_are_those_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_ROWS", 7)  # several blocks of rows
    real, generated = gaussian(25, 3, 0), gaussian(31, 3, 1, 0.8) + 1.2

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))))

    def radius(some: np.ndarray, k: int) -> list[float]:
        return [sorted(distance(a, b) for j, b in enumerate(some) if j != i)[k - 1] for i, a in enumerate(some)]

    def inside(point: np.ndarray, some: np.ndarray, radii: list[float]) -> int:
        return sum(distance(point, centre) <= reach for centre, reach in zip(some, radii, strict=True))

    three, five = radius(real, 3), radius(real, 5)
    assert neighbour_distances(real, 5)[:, [2, 4]] == pytest.approx(np.array([three, five]).T)
    found = manifolds(real, generated)
    assert found.precision == pytest.approx(np.mean([inside(one, real, three) > 0 for one in generated]))
    assert found.recall == pytest.approx(np.mean([inside(one, generated, radius(generated, 3)) > 0 for one in real]))
    assert found.density == pytest.approx(np.mean([inside(one, real, five) / 5 for one in generated]))
    covered = [any(distance(one, a) <= reach for one in generated) for a, reach in zip(real, five, strict=True)]
    assert found.coverage == pytest.approx(np.mean(covered))
    assert len({0.0, 1.0, *found}) == 6
    closest = nearest(generated, real)
    for one, value, position in zip(generated, closest.distance, closest.position, strict=True):
        known = [distance(one, a) for a in real]
        assert (value, position) == (pytest.approx(min(known)), int(np.argmin(known)))


def test_one_frame_drawn_again_and_again_is_precise_and_covers_nothing() -> None:
    real = gaussian(60, 2, 0)
    found = manifolds(real, np.repeat(real[:1], 40, axis=0))
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 60) and found.coverage < 0.3


def test_sets_that_are_far_apart_share_nothing() -> None:
    assert manifolds(gaussian(20, 3, 0), gaussian(20, 3, 1) + 1000) == (0, 0, 0, 0)


def test_copies_are_nearer_than_held_out_frames() -> None:
    training, held_out, fresh = (gaussian(80, 4, seed) for seed in range(3))
    known = nearest(held_out, training).distance
    assert fraction_nearer(nearest(training[:30] + 1e-6, training).distance, known) == 1
    assert fraction_nearer(nearest(fresh, training).distance, known) == pytest.approx(0.5, abs=0.12)
    assert fraction_nearer(nearest(fresh + 100, training).distance, known) == 0
    assert fraction_nearer([1, 1, 3], [1, 2]) == pytest.approx(np.mean([0.5, 1, 0.5, 1, 0, 0]))


MEASURES: list[Callable[..., object]] = [frechet_distance, kernel_distance, manifolds, nearest]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("swapped", [False, True])
def test_what_cannot_be_measured_is_an_error(measure: Callable[..., object], swapped: bool) -> None:
    good = gaussian(20, 3, 0)
    unknown = good.copy()
    unknown[4, 1] = np.nan
    endless = good.copy()
    endless[2, 2] = np.inf
    for bad, said in ((good[:5], "5 frames"), (unknown, "1 of 20"), (endless, "not finite")):
        with pytest.raises(InputError, match=said):
            measure(*((bad, good) if swapped else (good, bad)))
