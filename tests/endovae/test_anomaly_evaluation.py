"""How a run is calibrated, which frames choose and which test, and what an evaluation says of its scores."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fixtures import tiny
from pixelscope.data.frames.duplicates import clusters
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.baselines import BASELINES, baseline_scores, mean_colours
from pixelscope.endovae.anomaly.calibrate import DEFAULT, calibrate, split_for_anomaly
from pixelscope.endovae.anomaly.calibration import FILE, GaussianReference, read_calibration
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax, overlay, smoothed
from pixelscope.endovae.anomaly.scores import SCORES, raw_scores
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint, read_config
from pixelscope.endovae.data import Splits, load_splits
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.inference.torch_model import TorchVAE
from pixelscope.endovae.measurement import fit_references, measure
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
    assert parts.test["normal"].positions.tolist() == splits.test["normal"].positions.tolist()


def test_the_calibration_is_of_the_validation_frames_and_lies_beside_the_weights(run: Path, result: Evaluation) -> None:
    found = read_calibration(run / "checkpoints" / FILE)
    splits, checkpoint = opened(run)
    frames, insets = splits.validation.frames, splits.validation.insets
    measured = raw_scores(TorchVAE(checkpoint.encoder, checkpoint.decoder).analyze(frames)[0], frames, insets, found.latent)
    assert found.count == len(splits.validation) == len(found.scores["mse_tissue"])
    assert found.scores["mse_tissue"] == pytest.approx(sorted(measured["mse_tissue"]), rel=1e-4)
    assert (found.checkpoint, found.images) == ("best-validation", checkpoint.images)
    assert result.anomaly is not None and found.selected == result.anomaly.selected


def test_the_score_of_the_greatest_auroc_on_the_choosing_frames_is_chosen(result: Evaluation) -> None:
    assert result.anomaly is not None
    choice = {name: value for name, value in result.anomaly.selection_auroc.items() if name != "mse"}
    assert choice[result.anomaly.selected] == max(choice.values())
    assert result.anomaly.selection_auroc.keys() == SCORES.keys()


def test_without_abnormal_frames_the_default_is_taken(run: Path) -> None:
    splits, checkpoint = opened(run)
    references = fit_references(checkpoint, splits.train)
    healthy = measure(splits.validation, checkpoint, references, splits.validation.positions)
    found = calibrate(checkpoint, references.latent, {"normal": healthy.scores.raw}, healthy.maps)
    assert (found.selected, found.selection_auroc) == (DEFAULT, {})


def test_every_score_and_trivial_score_is_compared_class_by_class(run: Path, result: Evaluation) -> None:
    found = result.anomaly
    assert found is not None
    assert found.scores.keys() == SCORES.keys() and found.baselines.keys() == BASELINES.keys()
    assert set(found.counts) == {"all", "normal-tiny", "abnormal"} and found.counts["abnormal"] == 9
    with (run / "anomaly.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = [row["kind"] == "abnormal" for row in rows]
    assert len(rows) == found.counts["all"] + 9
    for name, by in (found.scores | found.baselines).items():
        values = [float(row[name]) for row in rows]
        assert by["all"].auroc.value == pytest.approx(roc_auc_score(truth, values), abs=1e-3), name
        assert by["all"].auroc.low <= by["all"].auroc.value <= by["all"].auroc.high
    flagged = [row["flagged"] == "1" for row in rows if row["kind"] == "abnormal"]
    assert found.flagged["abnormal"] == pytest.approx(np.mean(flagged))


def test_a_trivial_score_that_comes_near_is_warned_of(result: Evaluation) -> None:
    found = result.anomaly
    assert found is not None
    model = found.scores[found.selected]
    for group in ("all", "normal-tiny"):
        best = max(by[group].auroc.value for by in found.baselines.values())
        where = "all healthy frames" if group == "all" else group
        warned = any(where in warning and "Do not credit the network" in warning for warning in found.warnings)
        assert warned == (best > model[group].auroc.value - 0.03)
    assert found.warnings, "the tiny frames are told apart by trivial scores"
    assert all(warning in result.to_text() for warning in found.warnings)
    assert "no diagnosis" in result.to_text()


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


def test_other_frames_are_compared_and_no_calibration_is_written(
    run: Path, frame_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (run / "checkpoints" / FILE).read_bytes()
    found = evaluate_endovae(run, frames=str(frame_folder), checkpoint="last").anomaly
    test = {kind: len(part) for kind, part in opened(run)[0].test.items()}
    assert found is not None, "frames that the run trained on are left out"
    assert found.counts == {"all": test["normal"], "normal-tiny": test["normal"], "abnormal": test["abnormal"]}
    assert (run / "checkpoints" / FILE).read_bytes() == before


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
