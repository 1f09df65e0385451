"""How a run is calibrated, which frames choose and which test, and what an evaluation says of its scores."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from fixtures import tiny
from pixelscope.data.frames.duplicates import clusters
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.baselines import BASELINES, baseline_scores, cross_validated, mean_colours, shortcut_features
from pixelscope.endovae.anomaly.calibrate import DEFAULT, AnomalySplits, calibrate, split_for_anomaly
from pixelscope.endovae.anomaly.calibration import FILE, Calibration, GaussianReference, ViewCalibration, read_calibration
from pixelscope.endovae.anomaly.evaluation import Scored, anomaly_table, evaluate_view, shortcut_test
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax, overlay, smoothed
from pixelscope.endovae.anomaly.measurement import fit_references, measure
from pixelscope.endovae.anomaly.scores import SCORES, raw_scores
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint, read_config
from pixelscope.endovae.data import FrameSubset, Splits, load_splits
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.inference.torch_model import TorchVAE
from pixelscope.endovae.metrics import ClusterBootstrap, auroc_lead, auroc_with_ci
from pixelscope.endovae.results import Evaluation
from pixelscope.endovae.training import train_endovae
from pixelscope.runs.folder import RunFolder


@pytest.fixture(scope="module")
def result(run: Path) -> Evaluation:
    return evaluate_endovae(run)


def opened(run: Path) -> tuple[Splits, Checkpoint]:
    checkpoint = load_checkpoint(run)
    return load_splits(checkpoint.config), checkpoint


def test_no_frame_that_chose_is_tested_on(run: Path) -> None:
    config, (splits, _) = read_config(RunFolder(run)), opened(run)
    parts = split_for_anomaly(splits, config.split)
    assert parts is not None
    assert parts.selection["normal"].positions.tolist() == splits.validation.positions.tolist()
    apart, tested = parts.selection["abnormal"].positions, parts.test["abnormal"].positions
    assert len(apart) == 3 and not set(apart) & set(tested)
    assert sorted([*apart, *tested]) == splits.test["abnormal"].positions.tolist()
    groups = clusters(splits.store.hashes, config.split.duplicate_distance)
    assert not set(groups[apart]) & set(groups[tested])
    assert parts.calibration.positions.tolist() == splits.calibration.positions.tolist() and parts.held_out
    chose = [*splits.train.positions, *splits.validation.positions]
    assert not set(groups[splits.calibration.positions]) & set(groups[chose])
    assert parts.test["normal"].positions.tolist() == splits.test["normal"].positions.tolist()


def test_the_calibration_is_of_frames_that_chose_nothing_and_lies_beside_the_weights(run: Path, result: Evaluation) -> None:
    made = read_calibration(run / "checkpoints" / FILE)
    splits, checkpoint = opened(run)
    frames, insets = splits.calibration.frames, splits.calibration.insets
    maps = TorchVAE(checkpoint.encoder, checkpoint.decoder).analyze(frames)[0]
    assert (made.checkpoint, made.images, made.held_out) == ("best-validation", checkpoint.images, True)
    assert sum(one.count for one in made.cameras) == len(splits.calibration)
    assert result.anomaly is not None and result.anomaly.headline == "centre"
    for view, found in made.views.items():
        measured = raw_scores(maps, frames, insets, made.latent, view)
        assert found.count == len(splits.calibration) == len(found.scores["mse_tissue"])
        assert found.scores["mse_tissue"] == pytest.approx(sorted(measured["mse_tissue"]), rel=1e-4)
        assert found.selected == result.anomaly.views[view].selected
        assert found.count == result.anomaly.views[view].calibration_count


def test_spreads_are_those_of_the_frames_that_select(run: Path, result: Evaluation) -> None:
    made = read_calibration(run / "checkpoints" / FILE)
    splits, checkpoint = opened(run)
    maps = TorchVAE(checkpoint.encoder, checkpoint.decoder).analyze(splits.validation.frames)[0]
    measured = raw_scores(maps, splits.validation.frames, splits.validation.insets, made.latent, "centre")
    logarithms = np.log(measured["mse_tissue"])
    expected = (logarithms.mean(), logarithms.std())
    assert made.views["centre"].log_spreads["mse_tissue"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("view", ["full", "centre"])
def test_the_score_of_the_greatest_auroc_on_the_choosing_frames_is_chosen(result: Evaluation, view: ViewName) -> None:
    assert result.anomaly is not None
    found = result.anomaly.views[view]
    latent = {"mahalanobis", "mse_tissue+kl", "mse_no_overlay+mahalanobis"} if view == "centre" else set()
    choice = {name: value for name, value in found.selection_auroc.items() if name not in {"mse", *latent}}
    assert choice[found.selected] == max(choice.values())
    assert found.selection_auroc.keys() == SCORES.keys()


def test_without_abnormal_frames_the_default_is_taken(run: Path) -> None:
    splits, checkpoint = opened(run)
    references = fit_references(checkpoint, splits.train)
    parts = AnomalySplits({"normal": splits.validation}, splits.calibration, {})
    healthy, selecting = (
        measure(part, checkpoint, references, part.positions) for part in (parts.calibration, splits.validation)
    )
    found = calibrate(checkpoint, references.latent, parts, {"normal": selecting.scores}, healthy)
    assert {view: (one.selected, one.selection_auroc) for view, one in found.views.items()} == {
        view: (score, {}) for view, score in DEFAULT.items()
    }
    assert found.grey == 0
    frames, grey = np.array(splits.store.frames), splits.calibration.positions[:1]
    frames[grey] = frames[grey][..., :1]
    parts = replace(parts, calibration=FrameSubset(replace(splits.store, frames=frames), splits.calibration.positions))
    assert calibrate(checkpoint, references.latent, parts, {"normal": selecting.scores}, healthy).grey == 1


@pytest.mark.parametrize("view", ["full", "centre"])
def test_every_score_and_baseline_is_compared_class_by_class(run: Path, result: Evaluation, view: ViewName) -> None:
    assert result.anomaly is not None
    found = result.anomaly.views[view]
    assert found.scores.keys() == SCORES.keys() and found.baselines.keys() == BASELINES.keys()
    assert set(found.counts) == {"all", "normal-tiny", "abnormal"} and found.counts["abnormal"] == 9
    rows = [row for row in table(run) if row["view"] == view]
    truth = [row["kind"] == "abnormal" for row in rows]
    assert len(rows) == found.counts["all"] + 9
    for name, by in (found.scores | found.baselines).items():
        values = [float(row[name]) for row in rows]
        assert by["all"].auroc.value == pytest.approx(roc_auc_score(truth, values), abs=1e-3), name
        assert by["all"].auroc.low <= by["all"].auroc.value <= by["all"].auroc.high
    assert found.calibration_count < 19 and not found.flagged and not found.cameras, "a rate of 5% cannot be measured"


def test_frames_are_counted_by_class_and_camera_and_drawn_by_cluster(outlined_store: FrameStore) -> None:
    rng, store, kinds = np.random.default_rng(0), outlined_store, {"normal": 0.0, "abnormal": 1.0}

    def scored(kind: str) -> Scored:
        positions = np.flatnonzero(store.abnormal == (kind == "abnormal"))
        scores, baselines = (
            {name: rng.normal(kinds[kind], 1, len(positions)) for name in names} for names in (SCORES, BASELINES)
        )
        for values in scores.values():
            values[::9] = np.nan
            values[4::9] = np.inf
        p = rng.choice([0.05, 0.06], len(positions))
        return Scored(FrameSubset(store, positions), np.arange(len(positions)) // 3, scores, baselines, p)

    by_kind = {kind: scored(kind) for kind in kinds}
    normal, abnormal = (by_kind[kind].select(by_kind[kind].visible) for kind in kinds)
    hidden = (np.asarray(store.centre_lesions[abnormal.part.positions]) > 0).mean((1, 2)) < 0.01
    hidden &= store.has_lesion[abnormal.part.positions]
    abnormal = abnormal.select(~hidden)
    found = evaluate_view("centre", by_kind, known_healthy(19), 8)
    assert found.invisible == hidden.sum() > 0
    mse = {kind: one.scores["mse"] for kind, one in by_kind.items()}
    assert found.unscored == {kind: np.isnan(values).sum() for kind, values in mse.items()}
    assert found.not_finite == {kind: np.isinf(values).sum() for kind, values in mse.items()}
    assert len(found.left_out) == 3
    labels = store.labels[normal.part.positions]
    groups = {"all": labels >= 0} | {name: labels == store.classes.index(name) for name in ("normal-cecum", "normal-pylorus")}
    shares = {name: (normal.p[rows] < 0.055).mean() for name, rows in groups.items()}
    assert found.flagged == pytest.approx(shares | {"abnormal": (abnormal.p < 0.055).mean()})
    cameras = {"normal-cecum, 32 x 32": "normal-cecum", "normal-pylorus, 48 x 48": "normal-pylorus"}
    assert {name: (one.count, one.flagged) for name, one in found.cameras.items()} == {
        name: (groups[group].sum(), pytest.approx(shares[group])) for name, group in cameras.items()
    }
    for group, rows in groups.items():
        draws = ClusterBootstrap.of(normal.clusters[rows], abnormal.clusters)
        for name, by in found.scores.items():
            assert by[group] == auroc_with_ci(normal.scores[name][rows], abnormal.scores[name], draws), (name, group)
        best, one = found.leads[group].baseline, (normal.scores["mse_tissue"][rows], abnormal.scores["mse_tissue"])
        other = normal.baselines[best][rows], abnormal.baselines[best]
        assert found.leads[group].difference == auroc_lead(one, other, draws)
    lines = list(csv.DictReader(anomaly_table({"centre": by_kind}, known_healthy(19)).splitlines()))
    flagged = {True: "1", False: "0"}
    for line, p, visible in zip(lines, np.concatenate([one.p for one in by_kind.values()]), by_visible(by_kind), strict=True):
        assert float(line["p"]) == p and line["flagged"] == (flagged[p < 0.055] if visible else "")
    few = list(csv.DictReader(anomaly_table({"centre": by_kind}, known_healthy(18)).splitlines()))
    assert few == [line | {"flagged": ""} for line in lines], "18 calibration frames flag nothing at 5%, which is not 0"
    for line, value in zip(lines, np.concatenate(list(mse.values())), strict=True):
        assert all(bool(line[name]) == np.isfinite(value) for name in SCORES)
        assert ("no tissue is seen" in line["error"], "not finite" in line["error"]) == (np.isnan(value), np.isinf(value))


@pytest.mark.parametrize("count", [1, 4, 5])
def test_intervals_over_few_clusters_are_warned_of(outlined_store: FrameStore, count: int) -> None:
    rng, store = np.random.default_rng(0), outlined_store

    def scored(kind: str) -> Scored:
        positions = np.flatnonzero((store.abnormal == (kind == "abnormal")) & ~store.hides_lesion("centre"))
        scores, baselines = ({name: rng.normal(0, 1, len(positions)) for name in names} for names in (SCORES, BASELINES))
        clusters = np.arange(len(positions)) % (count if kind == "abnormal" else len(positions))
        return Scored(FrameSubset(store, positions), clusters, scores, baselines, np.full(len(positions), 0.5))

    found = evaluate_view("centre", {kind: scored(kind) for kind in ("normal", "abnormal")}, known_healthy(19), 8)
    if count == 1:
        draws = ClusterBootstrap.of(np.zeros(9), np.zeros(9))
        area = auroc_with_ci(rng.normal(0, 1, 9), rng.normal(0, 1, 9), draws).auroc
        assert area.low == area.value == area.high, "an interval over one cluster has no width"
    few = [warning for warning in found.warnings if "clusters" in warning]
    assert len(few) == (count < 5) and all(f"abnormal ({count})" in warning and "normal-" not in warning for warning in few)


def by_visible(scored: dict[str, Scored]) -> np.ndarray:
    return np.concatenate([one.visible for one in scored.values()])


def known_healthy(count: int) -> Calibration:
    """Return a calibration by `count` frames."""
    view = ViewCalibration(
        selected="mse_tissue",
        selection_auroc={},
        selection_counts={},
        log_spreads={},
        scores={name: tuple(np.arange(1.0, 1 + count).tolist()) for name in SCORES},
    )
    latent = GaussianReference((0.0,), ((1.0,),))
    return Calibration(
        checkpoint="last",
        images=1,
        weights_sha256="",
        held_out=True,
        cameras=(),
        latent=latent,
        vmax=1.0,
        views={"full": view, "centre": view},
    )


def test_the_intervals_of_the_shortcut_test_are_over_clusters(outlined_store: FrameStore) -> None:
    everything, distance = np.arange(len(outlined_store)), 8
    groups, abnormal = outlined_store.clusters(everything, distance), outlined_store.abnormal
    assert len(np.unique(groups)) < 0.7 * len(groups)
    found = shortcut_test("full", FrameSubset(outlined_store, everything), distance, ("all",))
    values = cross_validated(shortcut_features(outlined_store, "full", everything)[0], abnormal, groups)
    assert found is not None and values is not None
    draws = ClusterBootstrap.of(groups[~abnormal], groups[abnormal])
    assert found.shortcuts["all"] == auroc_with_ci(values[~abnormal], values[abnormal], draws).auroc


def table(run: Path) -> list[dict[str, str]]:
    with (run / "anomaly.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("view", ["full", "centre"])
def test_the_lead_is_over_the_best_baseline_and_warned_of_where_it_may_be_none(result: Evaluation, view: ViewName) -> None:
    assert result.anomaly is not None
    found = result.anomaly.views[view]
    for group in ("all", "normal-tiny"):
        areas = {name: by[group].auroc.value for name, by in found.baselines.items()}
        lead = found.leads[group]
        assert areas[lead.baseline] == max(areas.values())
        expected = found.scores[found.selected][group].auroc.value - max(areas.values())
        assert lead.difference.value == pytest.approx(expected)
        assert lead.difference.low <= lead.difference.value <= lead.difference.high
        where = "all healthy frames" if group == "all" else group
        warned = any(f"against {where}" in warning and lead.baseline in warning for warning in found.warnings)
        assert warned == (lead.difference.low <= 0)
    text = result.to_text()
    assert all(warning in text for warning in found.warnings)
    assert "no diagnosis" in text.splitlines()[-1]


def test_the_headline_is_of_the_centre_and_comes_last(result: Evaluation) -> None:
    assert result.anomaly is not None
    text, found = result.to_text(), result.anomaly.views["centre"]
    last = text[text.rindex("On the view") :]
    assert last.startswith("On the view centre") and str(found.scores[found.selected]["normal-tiny"].auroc) in last
    assert list(result.anomaly.ordered) == ["centre", "full"]
    alone = result.only("full")
    assert alone.anomaly is not None and list(alone.anomaly.views) == ["full"]
    assert "View centre" not in alone.to_text() and "View full" in alone.to_text()


def test_the_shortcut_test_is_of_all_frames_by_cluster(run: Path, result: Evaluation) -> None:
    store = opened(run)[0].store
    for view, found in () if result.anomaly is None else result.anomaly.views.items():
        features = shortcut_features(store, view, np.arange(len(store)))
        groups = clusters(store.hashes, tiny.endovae().split.duplicate_distance, store.names)
        assert found.shortcuts is not None and found.shortcuts.frames == len(store)
        for some, measured in zip(features, (found.shortcuts.shortcuts, found.shortcuts.mean_colour), strict=True):
            values = cross_validated(some, store.abnormal, groups)
            assert values is not None
            assert measured["all"].value == pytest.approx(roc_auc_score(store.abnormal, values))


def test_a_run_of_both_kinds_chooses_on_its_own_validation_frames(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(
        frames=str(store.path),
        split={"train_on": "both", "validation_fraction": 0.25, "test_fraction": 0.25},
        training={"epochs": 1},
    )
    run = train_endovae(config, run=tmp_path / "run")
    splits, _ = opened(run)
    parts = split_for_anomaly(splits, config.split)
    assert parts is not None
    chosen = [*parts.selection["normal"].positions, *parts.selection["abnormal"].positions]
    assert not set(chosen) & set(parts.calibration.positions)
    assert sorted(chosen) == splits.validation.positions.tolist()
    assert {kind: len(part) for kind, part in parts.test.items()} == {k: len(p) for k, p in splits.test.items()}
    assert evaluate_endovae(run).anomaly is not None


def test_a_run_of_abnormal_frames_has_no_calibration(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(
        frames=str(store.path), split={"train_on": "abnormal", "validation_fraction": 0.2}, training={"epochs": 1}
    )
    run = train_endovae(config, run=tmp_path / "run")
    assert evaluate_endovae(run).anomaly is None
    assert not (run / "checkpoints" / FILE).exists()


def test_calibration_frames_that_chose_are_said_to_have_chosen(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(frames=str(store.path), split={"validation_fraction": 0.04}, training={"epochs": 1})
    run = train_endovae(config, run=tmp_path / "run")
    assert len(opened(run)[0].calibration) == 0
    found = evaluate_endovae(run).anomaly
    assert found is not None and any("also selected" in warning for warning in found.warnings)
    assert not read_calibration(run / "checkpoints" / FILE).held_out


def test_frames_of_another_camera_are_warned_of_with_both_numbers(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed, count in (("normal-tiny", 50, 8), ("polyps", 60, 6)):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number, frame in enumerate(tiny.frames(count, seed)):
            large = Image.fromarray(frame).resize((40, 40), Image.Resampling.NEAREST)
            large.save(tmp_path / "frames" / name / f"{number}.png")
    found = evaluate_endovae(run, frames=str(tmp_path / "frames")).anomaly
    assert found is not None
    few, healthy, abnormal = found.warnings
    assert "at least 19 calibration frames" in few
    counts = found.views["centre"].counts
    assert f"100% of the {counts['all']} healthy test frames are normal-tiny, 40 x 40, and 0% of the" in healthy
    assert f"100% of the {counts['abnormal']} abnormal test frames are 40 x 40, and 0% of the" in abnormal


def test_a_folder_of_one_class_has_nothing_to_compare(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames" / "normal-tiny").mkdir(parents=True)
    for number, frame in enumerate(tiny.frames(5, 70)):
        Image.fromarray(frame).save(tmp_path / "frames" / "normal-tiny" / f"{number}.png")
    found = evaluate_endovae(run, frames=str(tmp_path / "frames"))
    assert set(found.sets) == {"normal"} and found.anomaly is None
    assert found.only("centre") == found


def test_other_frames_are_compared_and_no_calibration_is_written(
    run: Path, frame_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = run / "checkpoints" / FILE
    before = stored.read_bytes() if stored.is_file() else None
    found = evaluate_endovae(run, frames=str(frame_folder), checkpoint="last").anomaly
    test = {kind: len(part) for kind, part in opened(run)[0].test.items()}
    assert found is not None
    counts = found.views["centre"].counts
    assert counts["all"] == counts["normal-tiny"] == test["normal"], "frames that the run trained on are left out"
    assert 0 < counts["abnormal"] < test["abnormal"], "frames that selected the score are left out"
    assert (stored.read_bytes() if stored.is_file() else None) == before


def test_trivial_scores_see_no_inset_but_the_size_of_the_file_and_the_whole_error() -> None:
    frames = tiny.frames(6)
    insets = np.zeros(frames.shape[:3], bool)
    insets[:, 10:, 10:] = True
    changed = frames.copy()
    changed[insets] = np.random.default_rng(0).integers(0, 256, changed[insets].shape)
    colours = GaussianReference.fit(mean_colours(frames, insets))
    mean = (frames / 255).mean(0)
    errors = [((some / 255 - mean) ** 2).mean(-1).astype(np.float32) for some in (frames, changed)]
    found = [baseline_scores(some, insets, colours, error) for some, error in zip((frames, changed), errors, strict=True)]
    same = {name for name in BASELINES if np.allclose(found[0][name], found[1][name])}
    assert same == {"mean colour", "black fraction", "PCA error"}


def test_a_heat_map_leaves_the_frame_where_nothing_differs() -> None:
    frame = tiny.frames(1)[0]
    errors = np.zeros((tiny.SIZE, tiny.SIZE), np.float32)
    assert np.array_equal(overlay(frame, errors, 0.1), frame)
    errors[3, 4] = 5
    drawn = overlay(frame, errors, 0.1).astype(int)
    differ = np.abs(drawn - frame).max(2) > 0
    assert differ[3, 4] and differ.sum() == 1
    assert heatmap_vmax(np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), bool)) > 0
    spike = np.zeros((1, 96, 96), np.float32)
    spike[0, 48, 48] = 1
    assert smoothed(spike)[0].sum() == pytest.approx(1, abs=1e-3) and smoothed(spike).max() < 0.1
