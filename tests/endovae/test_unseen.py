"""What cannot be measured is left out and named: frames in which no tissue is seen, and frames that are all inset."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from fixtures import tiny
from pixelscope import InputError
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibrate import AnomalySplits, calibrate, split_for_anomaly
from pixelscope.endovae.anomaly.calibration import FILE, RATE, read_calibration
from pixelscope.endovae.anomaly.localization import localize, outlined
from pixelscope.endovae.anomaly.measurement import References, fit_references, measure
from pixelscope.endovae.anomaly.statistics import frames_needed
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint, read_config
from pixelscope.endovae.data import FrameSubset, load_splits
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.metrics import pixel_maps
from pixelscope.endovae.report.data import ReportData
from pixelscope.endovae.results import Evaluation, Localization
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.insets import tissue_mask
from pixelscope.runs.folder import RunFolder


def rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def blank_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose frames are a quarter white; evaluated."""
    frames = tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=120, abnormal=16)
    for folder, count in (("normal-tiny", 14), ("polyps", 4)):
        for number in range(count):
            # Different enough in their hashes to be no near-duplicates of each other, and by their names no sequence.
            white = np.full((tiny.SIZE, tiny.SIZE, 3), 255, np.uint8)
            white[number : number + 2] = 215 if folder == "polyps" else 220
            Image.fromarray(white).save(frames / folder / f"white-{chr(97 + number)}.png")
    store = prepare([frames], config=PrepareConfig(size=tiny.SIZE), out=tmp_path_factory.mktemp("stores") / "blank-0")
    config = tiny.endovae(frames=str(store.path), split={"validation_fraction": 0.5, "test_fraction": 0.25})
    run = train_endovae(config, run=tmp_path_factory.mktemp("runs") / "blank")
    evaluate_endovae(run)
    return run


@pytest.mark.parametrize("view", ["full", "centre"])
def test_frames_without_tissue_have_no_score_and_are_in_no_number(blank_run: Path, view: ViewName) -> None:
    anomaly = Evaluation.load(blank_run / "evaluation.json").anomaly
    assert anomaly is not None
    found = anomaly.views[view]
    table = [row for row in rows(blank_run / "anomaly.csv") if row["view"] == view]
    white = [row for row in table if "white-" in row["name"]]
    assert "normal" in {row["kind"] for row in white}
    for row in table:
        if row in white:
            assert "no tissue is seen" in row["error"]
            assert not row["p"] and not row["flagged"] and not row["mse_tissue"] and not row["mahalanobis"] and not row["mse"]
        else:
            assert not row["error"] and float(row["p"]) > 0 and row["mse_tissue"]
    kinds = [row["kind"] for row in white]
    assert found.unscored == {kind: kinds.count(kind) for kind in set(kinds)}
    scored = [row for row in table if not row["error"]]
    assert found.counts["all"] == sum(row["kind"] == "normal" for row in scored)
    assert found.counts["abnormal"] == sum(row["kind"] == "abnormal" for row in scored)
    flagged = [row["flagged"] == "1" for row in scored if row["kind"] == "abnormal"]
    enough = found.calibration_count >= frames_needed(RATE)
    assert found.flagged.get("abnormal") == (pytest.approx(np.mean(flagged)) if enough else None)
    assert {name: one.count for name, one in found.cameras.items()} == {"normal-tiny, 16 x 16": found.counts["all"]}


@pytest.fixture(scope="module")
def outlined_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose polyps have masks, every second one in a corner that the view `centre` does not show; evaluated."""
    frames = tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=120, abnormal=32)
    (frames / "polyp-masks").mkdir()
    for number, path in enumerate(sorted((frames / "polyps").iterdir())):
        mask = np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)
        mask[(slice(0, 3), slice(0, 3)) if number % 2 else (slice(4, 12), slice(4, 12))] = 255
        Image.fromarray(mask).save(frames / "polyp-masks" / f"{path.stem}.png")
    store = prepare([frames], config=PrepareConfig(size=tiny.SIZE), out=tmp_path_factory.mktemp("stores") / "masked-0")
    config = tiny.endovae(frames=str(store.path), split={"validation_fraction": 0.4, "test_fraction": 0.25})
    run = train_endovae(config, run=tmp_path_factory.mktemp("runs") / "masked")
    evaluate_endovae(run)
    return run


def test_polyps_that_a_view_does_not_show_are_in_no_number_of_it(outlined_run: Path) -> None:
    evaluation = Evaluation.load(outlined_run / "evaluation.json")
    assert evaluation.anomaly is not None
    splits = load_splits(load_checkpoint(outlined_run).config)
    hidden = {name for name in splits.store.names if name.startswith("polyps") and int(Path(name).stem) % 2}
    for view, found in evaluation.anomaly.views.items():
        table = [row for row in rows(outlined_run / "anomaly.csv") if row["view"] == view]
        left = [row for row in table if row["name"] in hidden and view == "centre"]
        counted = [row for row in table if row not in left]
        assert [row["name"] for row in table if "1%" in row["error"]] == [row["name"] for row in left]
        assert found.invisible == len(left) and (len(left) > 3) == (view == "centre")
        assert [{"1%", str(len(left))} <= set(line.split()) for line in found.left_out] == [True] * bool(left)
        assert found.counts["abnormal"] == sum(row["kind"] == "abnormal" for row in counted) > 3
        truth, values = [row["kind"] == "abnormal" for row in counted], [float(row[found.selected]) for row in counted]
        assert found.scores[found.selected]["all"].auroc.value == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    parts = split_for_anomaly(splits, load_checkpoint(outlined_run).config.split)
    assert parts is not None
    selecting = [name for name in parts.selection["abnormal"].names if name not in hidden]
    assert evaluation.anomaly.views["centre"].selection_counts["abnormal"] == len(selecting) < len(parts.selection["abnormal"])


def test_a_view_that_shows_no_lesion_is_refused(outlined_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(outlined_run, tmp_path / "run")
    store = FrameStore.open(Path(read_config(RunFolder(outlined_run)).frames))
    lesions = np.array(store.centre_lesions)
    np.save(store.path / "centre_lesions.npy", np.zeros_like(lesions))
    try:
        with pytest.raises(InputError, match=r"a lesion of 1% of its area or more in none of \d+ abnormal test frames"):
            evaluate_endovae(run)
    finally:
        np.save(store.path / "centre_lesions.npy", lesions)


def test_an_evaluation_says_what_is_not_scored(blank_run: Path) -> None:
    assert "not scored" in evaluate_endovae(blank_run).to_text()
    for kind in ("normal", "abnormal"):
        maps = ReportData.read(blank_run).samples(f"heatmaps-{kind}")
        assert maps is not None and np.isfinite(maps["p"]).all()


@pytest.mark.parametrize("view", ["full", "centre"])
def test_a_calibration_is_of_frames_with_tissue_alone(blank_run: Path, view: ViewName) -> None:
    folder = RunFolder(blank_run)
    checkpoint = load_checkpoint(blank_run)
    splits = load_splits(checkpoint.config)
    found = read_calibration(folder.checkpoints / FILE).views[view]
    both = [*splits.validation.names, *splits.calibration.names]
    assert any("white-" in name for name in both)
    assert found.count == sum("white-" not in name for name in splits.calibration.names)
    assert found.selection_counts["normal"] == sum("white-" not in name for name in splits.validation.names)
    assert all(len(values) == found.count and np.isfinite(values).all() for values in found.scores.values())


def test_frames_without_tissue_alone_calibrate_nothing(blank_run: Path) -> None:
    checkpoint = load_checkpoint(blank_run)
    splits = load_splits(checkpoint.config)
    white = FrameSubset(splits.store, np.array([i for i, name in enumerate(splits.store.names) if "white-" in name]))
    references = fit_references(checkpoint, splits.train)
    blank, seen = (measure(part, checkpoint, references, part.positions) for part in (white, splits.validation))
    parts = AnomalySplits({"normal": splits.validation}, white, {})
    for selecting, healthy, message in ((blank, seen, r"\d+ healthy validation"), (seen, blank, r"\d+ healthy calibration")):
        with pytest.raises(InputError, match=f"{message} frames has a score on the view full .no tissue is visible"):
            calibrate(checkpoint, references.latent, parts, {"normal": selecting.scores}, healthy)


def test_other_frames_without_any_tissue_are_no_result(blank_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = tiny.write_frames(tmp_path / "frames", normal=20, abnormal=0)
    for number in range(3):
        Image.new("RGB", (20, 20), (255, 255, 255 - number)).save(frames / "polyps" / f"{number}.png")
    with pytest.raises(InputError, match="3 abnormal test frames"):
        evaluate_endovae(blank_run, frames=str(frames))


def test_the_quality_of_an_image_that_is_left_out_is_not_0() -> None:
    images, others = (torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    valid_mask = torch.ones(2, 1, 24, 24)
    valid_mask[1] = 0
    first = pixel_maps(images[:1], others[:1]).quality()
    for name, found in pixel_maps(images, others).quality(valid_mask).items():
        assert found[0] == pytest.approx(float(first[name][0]), rel=1e-5)
        assert found[1].isnan()


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run on a store whose insets are left out, two of its test frames all inset; and the names of these."""
    frames = tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=36, abnormal=12)
    settings = PrepareConfig(size=tiny.SIZE, insets="mask")
    store = prepare([frames], config=settings, out=tmp_path_factory.mktemp("stores") / "masked-0")
    config = tiny.endovae(frames=str(store.path), prepare=settings.model_dump())
    run = train_endovae(config, run=tmp_path_factory.mktemp("runs") / "masked")
    parts = split_for_anomaly(load_splits(config), config.split)
    assert parts is not None
    hidden = [parts.test[kind].positions[-1] for kind in ("normal", "abnormal")]
    insets = np.load(store.path / "insets.npy")
    insets[hidden] = 1
    np.save(store.path / "insets.npy", insets)
    return run, [store.names[i] for i in hidden]


def test_frames_that_are_all_inset_are_in_no_mean(masked_run: tuple[Path, list[str]]) -> None:
    run, hidden = masked_run
    result = evaluate_endovae(run)
    table = rows(run / "evaluation.csv")
    for kind, found in result.sets.items():
        assert found.unmeasured == 1
        known = [row for row in table if row["kind"] == kind and row["name"] not in hidden]
        assert len(known) == found.count - 1
        for method in ("endovae", "pca", "mean_image"):
            expected = np.mean([float(row[f"{method}_psnr"]) for row in known])
            assert found.methods[method.replace("_", " ")]["psnr"].mean == pytest.approx(expected, rel=1e-4)
        assert sum(row.count for row in found.by_size) == found.count - 1
    assert all(not row["endovae_psnr"] and not row["pca_ssim"] for row in table if row["name"] in hidden)
    data = ReportData.read(run)
    assert sum(map(len, data.psnr.values())) == len(table) - 2
    for kind in result.sets:
        best = data.samples(f"reconstructions-{kind}-best")
        assert best is not None and np.isfinite(best["psnr"]).all()
    assert result.anomaly is not None and all(
        one.unscored == {"normal": 1, "abnormal": 1} for one in result.anomaly.views.values()
    )
    assert "1 of them are not measured" in result.to_text()


def test_frames_that_are_all_inset_alone_are_refused(masked_run: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, _ = masked_run
    store = FrameStore.open(Path(read_config(RunFolder(run)).frames))
    shutil.copytree(store.path, tmp_path / "store")
    np.save(tmp_path / "store" / "insets.npy", np.ones_like(store.insets))
    with pytest.raises(InputError, match="normal frames"):
        evaluate_endovae(run, frames=str(tmp_path / "store"))


def test_lesions_are_located_only_where_pixels_are_in_and_out_of_them(blank_run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(blank_run)
    own = load_splits(checkpoint.config).store
    shutil.copytree(own.path, tmp_path / "store")
    index = json.loads((tmp_path / "store" / "index.json").read_text(encoding="utf-8"))
    for frame in index["frames"]:
        frame["lesion"] = True
    (tmp_path / "store" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    references = fit_references(checkpoint, FrameSubset(own, np.arange(12)))
    lesions = np.zeros_like(own.lesions)
    for inside in (0, 1):
        np.save(tmp_path / "store" / "lesions.npy", np.full_like(lesions, inside))
        assert _localized(tmp_path / "store", checkpoint, references) is None
    lesions[:, 4:9, 4:9] = 1
    np.save(tmp_path / "store" / "lesions.npy", lesions)
    found = _localized(tmp_path / "store", checkpoint, references)
    assert found is not None and found.lesion_share == pytest.approx(25 / tiny.SIZE**2)


def _localized(store: Path, checkpoint: Checkpoint, references: References) -> Localization | None:
    frames = FrameStore.open(store)
    whole = tissue_mask(frames.frames[:], frames.insets[:] > 0).all(axis=(1, 2))
    part = FrameSubset(frames, np.flatnonzero(whole)[:4])
    return localize(part, measure(part, checkpoint, references, outlined(part).positions).maps)
