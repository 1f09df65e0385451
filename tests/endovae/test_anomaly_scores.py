"""Scores, calibration and curves, against other libraries and against their own definitions."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pixelscope import InputError
from pixelscope.data.frames.preprocess import VIEWS
from pixelscope.endovae.anomaly.calibration import Calibration, CameraCount, ViewCalibration, read_calibration
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax, overlay, smoothed
from pixelscope.endovae.anomaly.localization import padded
from pixelscope.endovae.anomaly.scores import SCORES, ErrorMaps, log_spread, masked_mean, raw_scores, scores, why_unscored
from pixelscope.endovae.anomaly.statistics import GaussianReference, few_frames_warning
from pixelscope.endovae.metrics import ClusterBootstrap, auroc, auroc_lead, auroc_with_ci, best_dice
from pixelscope.imaging.insets import tissue_mask

SIDE = 24
few = st.integers(0, 6)
"""Scores so coarse that many are equal."""


def calibration(values: list[float]) -> ViewCalibration:
    return ViewCalibration(
        selected="mse_tissue",
        selection_auroc={},
        selection_counts={"normal": len(values)},
        log_spreads={},
        scores={name: tuple(sorted(values)) for name in SCORES},
    )


def stored(values: list[float]) -> Calibration:
    return Calibration(
        checkpoint="last",
        images=10,
        weights_sha256="0" * 64,
        held_out=True,
        cameras=(CameraCount(width=720, height=576, count=len(values)),),
        latent=GaussianReference(mean=(0.0,), precision=((1.0,),)),
        vmax=1.0,
        views={"full": calibration(values), "centre": calibration(values)},
    )


@given(st.lists(few, min_size=1, max_size=30), st.lists(few, min_size=1, max_size=30))
def test_areas_are_those_of_scikit_learn(normal: list[int], abnormal: list[int]) -> None:
    truth, values = [0] * len(normal) + [1] * len(abnormal), normal + abnormal
    assert auroc(normal, abnormal) == pytest.approx(roc_auc_score(truth, values))
    if len(normal) + len(abnormal) < 12:
        found = auroc_with_ci(normal, abnormal)
        assert found.auroc.value == pytest.approx(roc_auc_score(truth, values))
        assert found.average_precision.value == pytest.approx(average_precision_score(truth, values))


@pytest.mark.parametrize("unknown", [([np.nan, 1.0], [2.0]), ([1.0], [2.0, np.nan])])
def test_a_score_that_is_not_a_number_is_not_ranked(unknown: tuple[list[float], list[float]]) -> None:
    known, bootstrap = ([0.0] * len(unknown[0]), [1.0] * len(unknown[1])), ClusterBootstrap.of_frames(*map(len, unknown))
    for measured in (auroc, auroc_with_ci):
        with pytest.raises(InputError):
            measured(*unknown)
    with pytest.raises(InputError):
        auroc_lead(known, unknown, bootstrap)


def area(normal: np.ndarray, abnormal: np.ndarray) -> float:
    """Return the AUROC of scores without ties between the kinds by its definition; scikit-learn takes fifty times as long."""
    return float((abnormal[:, None] > normal).mean())


def test_the_bootstrap_interval_is_that_of_resampled_frames() -> None:
    rng = np.random.default_rng(3)
    normal, abnormal = rng.normal(0, 1, 60), rng.normal(1, 1, 90)
    found = auroc_with_ci(normal, abnormal)
    drawn = []
    for _ in range(1500):
        one, other = rng.choice(normal, 60), rng.choice(abnormal, 90)
        truth, values = np.repeat([0, 1], [60, 90]), np.concatenate([one, other])
        drawn.append((area(one, other), average_precision_score(truth, values)))
    for interval, column in zip((found.auroc, found.average_precision), np.array(drawn).T, strict=True):
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(column, [0.025, 0.975])), abs=0.012)
    assert auroc_with_ci(normal, abnormal) == found


def test_the_interval_holds_95_percent_of_the_resamples() -> None:
    """Means over seeds of either side: 93% or 97% would lie half of a hundredth elsewhere."""
    rng = np.random.default_rng(3)
    normal, abnormal = rng.normal(0, 1, 60), rng.normal(1, 1, 90)
    found = np.mean(
        [
            [i.low, i.high]
            for seed in range(10)
            for i in [auroc_with_ci(normal, abnormal, ClusterBootstrap.of_frames(60, 90, seed)).auroc]
        ],
        axis=0,
    )
    wins = (abnormal[:, None] > normal).astype(np.float32)
    areas = []
    for _ in range(20):
        ones, others = rng.integers(0, 90, (1000, 90)), rng.integers(0, 60, (1000, 60))
        drawn = [np.apply_along_axis(np.bincount, 1, which, minlength=size) for which, size in ((ones, 90), (others, 60))]
        areas.append(np.einsum("bi,ij,bj->b", *[drawn[0], wins, drawn[1]], optimize=True) / (90 * 60))
    assert found == pytest.approx(np.quantile(np.concatenate(areas), [0.025, 0.975]), abs=0.002)


def test_the_bootstrap_draws_whole_clusters() -> None:
    """Five copies of each frame say no more than one; each is drawn or left out with all others of its cluster."""
    rng = np.random.default_rng(5)
    normal, abnormal = rng.normal(0, 1, 25), rng.normal(1, 1, 30)
    once = auroc_with_ci(normal, abnormal)
    repeated = [np.repeat(some, 5) for some in (normal, abnormal)]
    groups = [np.repeat(np.arange(len(some)) * 7, 5) for some in (normal, abnormal)]
    found = auroc_with_ci(*repeated, ClusterBootstrap.of(*groups))
    for one, other in ((found.auroc, once.auroc), (found.average_precision, once.average_precision)):
        assert list(one.model_dump().values()) == pytest.approx(list(other.model_dump().values()), abs=1e-9)
    frames = auroc_with_ci(*repeated).auroc
    assert frames.high - frames.low < 0.6 * (once.auroc.high - once.auroc.low)


def test_clusters_of_different_sizes_are_resampled_as_clusters() -> None:
    rng = np.random.default_rng(6)
    sizes = {"normal": [1, 9, 2, 6, 1, 1, 12, 3], "abnormal": [4, 1, 8, 2, 2, 10, 1]}
    scores_by = {kind: [rng.normal(rng.normal(kind == "abnormal"), 0.5, n) for n in some] for kind, some in sizes.items()}
    found = auroc_with_ci(
        *(np.concatenate(some) for some in scores_by.values()),
        ClusterBootstrap.of(*(np.repeat(np.arange(len(some)), some) for some in sizes.values())),
    )
    areas = []
    for _ in range(3000):
        one, other = (np.concatenate([some[i] for i in rng.integers(0, len(some), len(some))]) for some in scores_by.values())
        areas.append(area(one, other))
    assert (found.auroc.low, found.auroc.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=0.025)


def test_a_lead_is_compared_on_the_same_draws() -> None:
    rng = np.random.default_rng(7)
    scores_of = [np.concatenate([rng.normal(0, 1, 80), rng.normal(1, 1, 120)])]
    scores_of.append(scores_of[0] + rng.normal(0, 0.05, 200))
    truth = np.repeat([False, True], [80, 120])
    one, other = ((some[:80], some[80:]) for some in scores_of)
    lead = auroc_lead(one, other, ClusterBootstrap.of_frames(80, 120))
    assert lead.value == pytest.approx(roc_auc_score(truth, scores_of[0]) - roc_auc_score(truth, scores_of[1]))
    differences = []
    for _ in range(1500):
        rows = rng.integers(0, 80, 80), rng.integers(80, 200, 120)
        differences.append(np.subtract(*(area(*(some[kind] for kind in rows)) for some in scores_of)))
    assert (lead.low, lead.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=0.002)
    assert lead.high - lead.low < 0.02, "each alone is known to a tenth"
    assert auroc_lead(one, one, ClusterBootstrap.of_frames(80, 120)).high == 0


@given(st.lists(st.tuples(few, st.booleans()), min_size=2, max_size=25))
def test_the_best_dice_is_that_of_the_best_threshold(pixels: list[tuple[int, bool]]) -> None:
    values, truth = np.array([v for v, _ in pixels]), np.array([t for _, t in pixels])
    best = max(float(f1_score(truth, values >= level, zero_division=0)) for level in np.unique(values))
    assert best_dice(values, truth) == pytest.approx(best)


@given(st.lists(few, min_size=1, max_size=40), few)
def test_p_values_count_the_calibration_frames_that_score_as_high(known: list[int], value: int) -> None:
    found = calibration([float(v) for v in known]).p_values("mse_tissue", [value])
    assert found == pytest.approx([(1 + sum(v >= value for v in known)) / (1 + len(known))])


@given(st.lists(few, min_size=19, max_size=60), st.sampled_from([0.05, 0.1, 0.3]))
def test_what_lies_over_the_threshold_has_a_small_p_value(known: list[int], rate: float) -> None:
    made = calibration([float(v) for v in known])
    values = np.concatenate([np.arange(-1, 8) + shift for shift in (0, 1e-6, 1e-2)])
    over = values > made.threshold("mse_tissue", rate)
    assert np.array_equal(over, made.p_values("mse_tissue", values) <= rate + 1e-12)


def test_what_two_runtimes_compute_of_one_frame_has_one_p_value() -> None:
    known = np.sort(np.random.default_rng(0).normal(size=99)).tolist()
    made = calibration(known)
    noise = 2e-5 * np.random.default_rng(1).uniform(-1, 1, 99)
    assert np.array_equal(made.p_values("mse_tissue", np.array(known)), made.p_values("mse_tissue", np.array(known) + noise))


def test_healthy_frames_are_flagged_as_often_as_was_allowed() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        made = calibration(rng.normal(size=99).tolist())
        shares.append((made.p_values("mse_tissue", rng.normal(size=200)) <= 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.006)


def test_a_rate_that_the_calibration_cannot_tell_is_refused() -> None:
    with pytest.raises(InputError, match="at least 19"):
        calibration([float(v) for v in range(10)]).threshold("mse_tissue", 0.05)
    with pytest.raises(InputError, match="'colour'"):
        calibration([1.0]).require("colour")
    assert calibration([1.0]).require("auto") == "mse_tissue"


def test_the_rate_that_a_message_names_can_be_given() -> None:
    for count in range(1, 400):
        made = calibration([float(v) for v in range(count)])
        with pytest.raises(InputError) as refused:
            made.threshold("mse_tissue", 0.5 / (1 + count))
        (warning,) = few_frames_warning(count, 0.5 / (1 + count))
        for text in (str(refused.value), warning):
            (rate,) = re.findall(r"([\d.]+) or more\.$", text)
            assert made.threshold("mse_tissue", float(rate)) >= count - 1
            assert float(rate) == pytest.approx(1 / (1 + count), rel=0.01)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 1.0, 1.5, float("nan")])
def test_a_rate_is_between_0_and_1(rate: float) -> None:
    with pytest.raises(InputError):
        calibration([float(v) for v in range(10)]).threshold("mse_tissue", rate)


def test_the_latent_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + 3
    inverse = np.linalg.inv(np.cov(means.T))
    expected = [mahalanobis(row, means.mean(0), inverse) for row in means[:9]]
    assert GaussianReference.fit(means).distance(means[:9]) == pytest.approx(expected, rel=1e-4)


def test_a_dimension_that_is_never_used_does_not_break_the_distance() -> None:
    means = np.random.default_rng(1).normal(size=(50, 3)) * [1, 1, 0]
    assert np.isfinite(GaussianReference.fit(means).distance(means)).all()


def frames() -> tuple[np.ndarray, np.ndarray]:
    """A frame of even tissue with a black border, a glint, a dark lumen and an inset; and where the inset is."""
    frame = np.full((1, SIDE, SIDE, 3), 120, np.uint8)
    frame[0, :3] = 0
    frame[0, 10:12, 10:12] = 250
    frame[0, 15:18, 4:8] = 10
    insets = np.zeros((1, SIDE, SIDE), bool)
    insets[0, 18:, 18:] = True
    return frame, insets


def maps(rng: np.random.Generator) -> ErrorMaps:
    return ErrorMaps(
        error=rng.random((1, SIDE, SIDE), np.float32),
        dissimilarity=rng.random((1, SIDE - 10, SIDE - 10), np.float32),
        kl=rng.random((1, 3), np.float32),
        mean=rng.random((1, 3), np.float32),
    )


def test_tissue_is_what_is_neither_border_nor_glint_nor_inset() -> None:
    frame, insets = frames()
    tissue = tissue_mask(frame, insets)[0]
    assert not tissue[:4].any() and tissue[4].all()
    assert not tissue[9:13, 10:12].any() and tissue[13, 10:12].all()
    assert not tissue[18:, 18:].any() and tissue[17, 18:].all()
    assert tissue[15:18, 4:8].all(), "dark lumen is tissue"


@pytest.mark.parametrize(
    ("changed", "blind"),
    [
        (
            (slice(18, None), slice(18, None)),
            {"mse_no_overlay", "mse_tissue", "dssim_tissue", "mse_tissue+kl", "mse_no_overlay+mahalanobis", "mahalanobis"},
        ),
        ((slice(0, 3), slice(0, 17)), {"mse_tissue", "dssim_tissue", "mse_tissue+kl", "mahalanobis"}),
        ((slice(10, 12), slice(10, 12)), {"mse_tissue", "dssim_tissue", "mse_tissue+kl", "mahalanobis"}),
    ],
    ids=["inset", "border", "glint"],
)
def test_each_score_is_blind_to_what_it_leaves_out(changed: tuple[slice, slice], blind: set[str]) -> None:
    frame, insets = frames()
    before = maps(np.random.default_rng(0))
    error = before.error.copy()
    error[0][changed] += 1
    inner = np.zeros((SIDE, SIDE), np.float32)
    inner[changed] = 1
    dissimilarity = before.dissimilarity + inner[None, 5:-5, 5:-5]
    after = ErrorMaps(error, dissimilarity, before.kl, before.mean)
    latent = GaussianReference(mean=(0.0,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    spreads = dict.fromkeys(("mse_tissue", "kl", "mse_no_overlay", "mahalanobis"), (0.0, 1.0))
    found = [scores(raw_scores(one, frame, insets, latent), spreads) for one in (before, after)]
    same = {name for name in SCORES if found[0][name] == found[1][name]}
    assert same == blind
    assert found[1]["mse"] > found[0]["mse"]


@pytest.mark.parametrize("side", [96, 48, 24])
def test_the_centre_is_scored_by_what_lies_in_it(side: int) -> None:
    """Against a slow count of the pixels, and of the windows that lie inside; in small frames, of those whose middle does."""
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 180, (2, side, side, 3), dtype=np.uint8)
    insets = rng.random((2, side, side)) < 0.1
    seen = ErrorMaps(
        *(rng.random((2, some, some), np.float32) for some in (side, side - 10)),
        *(rng.random((2, 3), np.float32) for _ in range(2)),
    )
    latent = GaussianReference(mean=(0.5,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    found, full = (raw_scores(seen, frame, insets, latent, view) for view in ("centre", "full"))
    length, left, top = round(0.45 * side), round(0.5 * side), round(0.275 * side)
    inside = [(y, x) for y in range(top, top + length) for x in range(left, left + length)]
    reach = 5 if length >= 22 else 0
    middles = [
        (y, x)
        for y in range(max(5, top + reach), min(side - 5, top + length - reach))
        for x in range(max(5, left + reach), min(side - 5, left + length - reach))
    ]
    tissue = tissue_mask(frame, insets)
    for row in range(2):
        assert found["mse"][row] == pytest.approx(np.mean([seen.error[row][at] for at in inside]))
        outside_insets = [seen.error[row][at] for at in inside if not insets[row][at]]
        assert found["mse_no_overlay"][row] == pytest.approx(np.mean(outside_insets))
        assert found["mse_tissue"][row] == pytest.approx(np.mean([seen.error[row][at] for at in inside if tissue[row][at]]))
        windows = [seen.dissimilarity[row][y - 5, x - 5] for y, x in middles if tissue[row][y, x]]
        assert found["dssim_tissue"][row] == pytest.approx(np.mean(windows))
        assert (found["mahalanobis"][row], found["kl"][row]) == (full["mahalanobis"][row], full["kl"][row])


def test_what_lies_outside_the_centre_changes_no_error_in_it() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 180, (1, 96, 96, 3), dtype=np.uint8)
    latent = GaussianReference(mean=(0.5,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    kl, mean = (rng.random((1, 3), np.float32) for _ in range(2))
    error, dissimilarity = rng.random((1, 96, 96), np.float32), rng.random((1, 86, 86), np.float32)
    before = raw_scores(ErrorMaps(error, dissimilarity, kl, mean), frame, np.zeros((1, 96, 96), bool), latent, "centre")
    changed, other = frame.copy(), error.copy()
    insets = np.zeros((1, 96, 96), bool)
    insets[0, 50:, :40], changed[0, 50:, :40], other[0, 50:, :40] = True, 0, 9
    changed[0, :20], other[0, :20], changed[0, :, 92:] = 0, 9, 0
    after = raw_scores(ErrorMaps(other, dissimilarity, kl, mean), changed, insets, latent, "centre")
    assert {name: values.tolist() for name, values in before.items()} == {name: v.tolist() for name, v in after.items()}


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_the_score_of_a_frame_does_not_depend_on_the_others(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    insets = rng.random((count, SIDE, SIDE)) < 0.1
    several = ErrorMaps(
        *(rng.random((count, side, side), np.float32) for side in (SIDE, SIDE - 10)),
        *(rng.random((count, 3), np.float32) for _ in range(2)),
    )
    latent = GaussianReference(mean=(0.5,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    together = raw_scores(several, frame, insets, latent)
    for row in range(count):
        one = slice(row, row + 1)
        alone = ErrorMaps(several.error[one], several.dissimilarity[one], several.kl[one], several.mean[one])
        for name, values in raw_scores(alone, frame[one], insets[one], latent).items():
            assert values[0] == pytest.approx(together[name][row], rel=1e-6)


def test_where_everything_is_left_out_there_is_no_mean() -> None:
    valid_mask = np.zeros((2, 4, 4), bool)
    valid_mask[1, 0, :2] = True
    found = masked_mean(np.arange(32, dtype=np.float32).reshape(2, 4, 4), valid_mask)
    assert np.isnan(found[0]) and found[1] == 16.5
    assert log_spread(np.full(5, 2.0))[1] > 0


BLANK = {
    "black": np.zeros((SIDE, SIDE, 3)),
    "dark": np.full((SIDE, SIDE, 3), 22),
    "white": np.full((SIDE, SIDE, 3), 255),
    "speck": np.where(np.arange(SIDE**2).reshape(SIDE, SIDE, 1) == 300, 120, 0),
    "rim": np.where(np.pad(np.ones((SIDE - 10, SIDE - 10, 1), bool), ((5, 5), (5, 5), (0, 0))), 255, 120),
    "one colour": np.full((SIDE, SIDE, 3), (120, 90, 80)),
    "one colour in a border": np.pad(np.full((SIDE - 8, SIDE - 8, 3), 120), ((4, 4), (4, 4), (0, 0))),
    "covered": np.full((SIDE, SIDE, 3), 120),
}
"""Frames in which there is nothing to score; the last one is all inset."""


@pytest.mark.parametrize("kind", BLANK)
def test_a_frame_without_tissue_has_no_score_whichever_it_is(kind: str) -> None:
    frame, insets = frames()
    blank = np.broadcast_to(BLANK[kind], (SIDE, SIDE, 3)).astype(np.uint8)
    both = np.stack([frame[0], blank])
    covers = np.stack([insets[0], np.full((SIDE, SIDE), kind == "covered")])
    one = maps(np.random.default_rng(0))
    seen = ErrorMaps(*(np.repeat(getattr(one, name), 2, axis=0) for name in ("error", "dissimilarity", "kl", "mean")))
    latent = GaussianReference(mean=(0.5,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    spreads = dict.fromkeys(("mse_tissue", "kl", "mse_no_overlay", "mahalanobis"), (0.0, 1.0))
    found = scores(raw_scores(seen, both, covers, latent), spreads)
    assert found.keys() == SCORES.keys()
    for name, values in found.items():
        assert np.isfinite(values[0]) and np.isnan(values[1]), name
    p = calibration([0.5, 1.0]).p_values("mse_tissue", found["mse_tissue"])
    assert 0 < p[0] <= 1 and np.isnan(p[1])
    assert "no tissue is seen" in why_unscored(found["mse"][1])


@pytest.mark.parametrize("name", ["error", "dissimilarity", "kl", "mean"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_with_outputs_that_are_not_finite_has_no_score_whichever_they_are(name: str, value: float) -> None:
    frame, insets = frames()
    one = maps(np.random.default_rng(0))
    seen = ErrorMaps(*(np.repeat(getattr(one, name), 2, axis=0) for name in ("error", "dissimilarity", "kl", "mean")))
    getattr(seen, name)[1, 0] = value
    latent = GaussianReference(mean=(0.5,) * 3, precision=tuple(map(tuple, np.eye(3).tolist())))
    spreads = dict.fromkeys(("mse_tissue", "kl", "mse_no_overlay", "mahalanobis"), (0.0, 1.0))
    for view in VIEWS:
        found = scores(raw_scores(seen, np.repeat(frame, 2, axis=0), np.repeat(insets, 2, axis=0), latent, view), spreads)
        assert all(np.isfinite(values[0]) and np.isposinf(values[1]) for values in found.values())
    assert "not finite" in why_unscored(found["mse"][1])
    assert np.isnan(calibration([0.5, 1.0]).p_values("mse_tissue", found["mse_tissue"])[1])


def test_too_few_frames_say_nothing_of_others() -> None:
    with pytest.raises(InputError, match="at least 2 frames"):
        GaussianReference.fit(np.ones((1, 3)))


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = stored([0.5, 0.25])
    made.save(tmp_path / "calibration.json")
    assert read_calibration(tmp_path / "calibration.json") == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: text.replace('"version": 4', '"version": 3'), "version"),
        (lambda text: text.replace('"vmax"', '"vmin"'), "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"centre"', '"center"'), "is damaged"),
        (lambda text: re.sub(r'"dssim_tissue": \[[^\]]*\]', '"dssim_tissue": []', text), "is damaged"),
        (lambda text: re.sub(r'"dssim_tissue": \[[^\]]*\]', '"dssim_tissue": [NaN]', text), "is damaged"),
    ],
)
def test_a_damaged_calibration_is_refused(change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(change(stored([0.5]).model_dump_json(indent=1)), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_calibration(path)


def test_a_run_without_calibration_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pixelscope endovae evaluate"):
        read_calibration(tmp_path / "checkpoints" / "calibration.json")


def test_sums_are_of_standardised_logarithms() -> None:
    rng = np.random.default_rng(0)
    measured = {
        name: rng.random(30) + 0.1 for name in ("mse", "mse_no_overlay", "mse_tissue", "dssim_tissue", "mahalanobis", "kl")
    }
    spreads = {name: log_spread(measured[name]) for name in ("mse_no_overlay", "mahalanobis", "mse_tissue", "kl")}
    found = scores(measured, spreads)
    for name in ("mse_tissue+kl", "mse_no_overlay+mahalanobis"):
        assert found[name].mean() == pytest.approx(0, abs=1e-9)
    logarithms = np.log(measured["mse_no_overlay"]), np.log(measured["mahalanobis"])
    expected = sum((values - values.mean()) / values.std() for values in logarithms)
    assert found["mse_no_overlay+mahalanobis"] == pytest.approx(expected)


def test_maps_without_a_rim_are_padded_with_the_nearest_value() -> None:
    maps = np.arange(2 * 6 * 6, dtype=np.float32).reshape(2, 6, 6)
    np.testing.assert_array_equal(padded(maps, 16), np.pad(maps, ((0, 0), (5, 5), (5, 5)), mode="edge"))


@pytest.mark.parametrize("side", [24, 96])
def test_heat_maps_are_blurred_as_scipy_does(side: int) -> None:
    errors = np.random.default_rng(0).random((2, side, side)).astype(np.float32) ** 4
    expected = [gaussian_filter(one.astype(np.float64), side / 48, mode="reflect", truncate=4) for one in errors]
    np.testing.assert_allclose(smoothed(errors), expected, rtol=1e-5, atol=1e-7)
    insets = np.zeros(errors.shape, bool)
    insets[:, side // 2 :] = True
    shown = np.stack(expected)[~insets]
    assert heatmap_vmax(errors, insets) == pytest.approx(np.quantile(shown, 0.99), rel=1e-4)


def test_a_heat_map_leads_from_the_frame_to_yellow() -> None:
    frame = np.full((2, 4, 3), (200, 40, 60), np.uint8)
    found = overlay(frame, np.array([[0, 1.5, 3, 9]] * 2, np.float32), vmax=3)
    for column, heat in enumerate((0.0, 0.5, 1.0, 1.0)):
        colour = 255 * np.array(colormaps["inferno"](heat)[:3])
        expected = frame[0, 0] * (1 - 0.75 * heat) + colour * 0.75 * heat
        np.testing.assert_allclose(found[:, column], [expected] * 2, atol=2)
