"""What evaluation measures and stores, and what `reconstruct` and `generate` write."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fixtures import tiny
from fixtures.frames import BOTTOM, LEFT, drawn
from pixelscope import InputError
from pixelscope.cli import main
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibrate import split_for_anomaly
from pixelscope.endovae.checkpoints import load_checkpoint, read_config
from pixelscope.endovae.data import load_splits
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.forward import reconstruct as reconstruct_batch
from pixelscope.endovae.inference.generate import generate
from pixelscope.endovae.inference.reconstruct import reconstruct
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.folder import RunFolder, read_stats


def test_it_measures_test_frames_next_to_linear_baselines(run: Path) -> None:
    result = evaluate_endovae(run)
    splits = load_splits(read_config(RunFolder(run)))
    assert {kind: found.count for kind, found in result.sets.items()} == {k: len(p) for k, p in splits.test.items()}
    assert result.checkpoint == "best-validation"
    assert set(result.checkpoints) == {"best-validation", "last"}
    assert result.components == 3
    for found in result.sets.values():
        assert set(found.methods) == {"endovae", "pca", "mean image"}
        assert found.methods["pca"]["psnr"].mean > found.methods["mean image"]["psnr"].mean
        assert len(found.kl) == 3
        assert sum(found.region_share.values()) == pytest.approx(1)
        assert sum(row.count for row in found.by_size) == found.count == sum(found.classes.values())
        assert found.detail_kept["mean image"] < 1
    assert set(result.separation) == {"endovae", "pca", "mean image"}
    assert "EndoVAE" in result.to_text() and "PCA, 3 components" in result.to_text()


def test_only_frames_of_the_trained_kind_are_called_test_frames(
    store: FrameStore, frame_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    both = tiny.endovae(frames=str(store.path), split={"train_on": "both"}, training={"epochs": 1})
    run = train_endovae(both, run=tmp_path / "run")
    titles = {kind: found.title for kind, found in evaluate_endovae(run).sets.items()}
    assert titles == {"normal": "normal test frames", "abnormal": "abnormal test frames"}
    assert evaluate_endovae(run, frames=str(frame_folder)).sets["normal"].title == "normal frames"


def test_numbers_are_those_of_the_reconstructions(run: Path) -> None:
    evaluate_endovae(run)
    checkpoint = load_checkpoint(run)
    splits = load_splits(checkpoint.config)
    part = splits.test["abnormal"]
    found = reconstruct_batch(checkpoint, part.frames)
    pairs = zip(found.images.numpy(), found.reconstructions.numpy(), strict=True)
    expected = [peak_signal_noise_ratio(image, other, data_range=1.0) for image, other in pairs]
    with (run / "evaluation.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "abnormal"]
    assert [row["name"] for row in rows] == part.names
    assert [float(row["endovae_psnr"]) for row in rows] == pytest.approx(expected, abs=1e-3)
    stored = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    spread = stored["sets"]["abnormal"]["methods"]["endovae"]["psnr"]
    assert (spread["mean"], spread["std"]) == pytest.approx((np.mean(expected), np.std(expected)), abs=1e-3)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(run: Path) -> None:
    lines = [line for line in read_stats(run / "stats.jsonl") if line["kind"] == "evaluation"]
    best = min(lines, key=lambda line: line["loss/validation_total"])
    assert load_checkpoint(run).images == best["images"] > 0


def test_the_model_has_learnt_something(run: Path) -> None:
    result = evaluate_endovae(run)
    methods = result.sets["normal"].methods
    assert methods["endovae"]["psnr"].mean > methods["mean image"]["psnr"].mean + 0.3


def test_stored_frames_lie_between_the_two_that_they_are_shown_with(run: Path) -> None:
    evaluate_endovae(run)
    with np.load(run / "samples" / "interpolation.npz") as stored:
        ends, way = stored["ends"], stored["frames"]
    found = reconstruct_batch(load_checkpoint(run), ends.reshape(-1, *ends.shape[2:])).reconstructions
    expected = found.permute(0, 2, 3, 1).numpy().reshape(ends.shape) * 255
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 1.5
    assert np.abs(way[:, 0] - expected[:, 0]).max() < 1 and np.abs(way[:, -1] - expected[:, 1]).max() < 1


def test_other_frames_are_measured_and_not_stored(run: Path, frame_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_endovae(run)
    before = (run / "evaluation.json").read_bytes()
    result = evaluate_endovae(run, frames=str(frame_folder), checkpoint="last")
    assert {kind: found.count for kind, found in result.sets.items()} == _unseen(run)
    assert result.checkpoint == "last"
    assert (run / "evaluation.json").read_bytes() == before


def test_what_cannot_be_evaluated_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'ema-last'"):
        evaluate_endovae(run, checkpoint="ema-last")
    young = tmp_path / "young"
    shutil.copytree(run, young)
    shutil.rmtree(young / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint yet"):
        evaluate_endovae(young)


def test_the_average_is_a_checkpoint_of_its_own(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(frames=str(store.path), training={"epochs": 2, "ema_half_life": 0.5})
    result = evaluate_endovae(train_endovae(config, run=tmp_path / "run"))
    assert set(result.checkpoints) == {"best-validation", "last", "ema-last"}
    assert result.checkpoints["last"]["normal_psnr"] != result.checkpoints["ema-last"]["normal_psnr"]


def test_training_ends_early_and_says_why(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(
        frames=str(store.path),
        training={"epochs": 500},
        schedule={"early_stopping_patience": 3, "start_kl": 0},
        optimizer={"learning_rate": 1e-12},
    )
    run = train_endovae(config, run=tmp_path / "run")
    record = RunFolder(run).read_record()
    assert record["state"] == "finished"
    assert "3 epochs" in record["ended"]
    assert record["images"] < 500 * record["epoch"]


def _about(path: Path) -> dict:
    with Image.open(path) as image:
        return json.loads(image.text["pixelscope"])  # type: ignore[attr-defined]


def _psnr(folder: Path) -> float:
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        return float(next(csv.DictReader(file))["psnr"])


def _reconstructed(run: Path, file: Path, out: Path, sampled: bool, seed: int) -> float:
    reconstruct(run, [file], out, sampled=sampled, seed=seed)
    return _psnr(out)


def test_reconstructions_are_written_as_a_grid_or_one_by_one(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    written = reconstruct(run, [frame_folder / "polyps"], tmp_path / "grid.png")
    assert written.count == len(written.frames) == 12
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (12 * 18 + 2, 2 * 18 + 2)
        page = np.asarray(image)
    assert _about(tmp_path / "grid.png")["checkpoint"] == "best-validation"
    checkpoint, original = load_checkpoint(run), np.asarray(Image.open(frame_folder / "polyps" / "03.png"))
    drawn = reconstruct_batch(checkpoint, original[None]).reconstructions[0].permute(1, 2, 0).numpy()
    assert np.array_equal(page[2:18, 56:72], original), "originals are in the first row"
    assert np.abs(page[20:36, 56:72] / 255 - drawn).max() < 0.01
    same = {"data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 2}
    assert written.frames[3]["psnr"] == pytest.approx(peak_signal_noise_ratio(original / 255, drawn, data_range=1.0), abs=1e-3)
    assert written.frames[3]["ssim"] == pytest.approx(structural_similarity(original / 255, drawn, **same), abs=2e-3)
    reconstruct(run, [frame_folder / "polyps"], tmp_path / "single")
    assert len(list((tmp_path / "single").glob("*.png"))) == 12
    reconstruct(run, [frame_folder / "polyps" / "03.png"], tmp_path / "again")
    assert (tmp_path / "again" / "03.png").read_bytes() == (tmp_path / "single" / "03.png").read_bytes()
    assert _psnr(tmp_path / "again") == pytest.approx(written.frames[3]["psnr"], abs=5e-3)


def test_masked_insets_are_left_out_of_a_reconstruction_as_of_an_evaluation(tmp_path: Path) -> None:
    for kind, count in (("normal-cecum", 24), ("polyps", 3)):
        (tmp_path / "frames" / kind).mkdir(parents=True)
        for number in range(count):
            frame = drawn(number + count, 200, 160)
            frame[100 : 160 - BOTTOM, LEFT : LEFT + 60] = 0
            Image.fromarray(frame).save(tmp_path / "frames" / kind / f"{number}.png")
    store = prepare([tmp_path / "frames"], config=PrepareConfig(size=tiny.SIZE, insets="mask"), out=tmp_path / "store")
    assert store.insets[store.abnormal].any((1, 2)).all()
    run = train_endovae(tiny.endovae(frames=str(store.path), prepare={"insets": "mask"}), run=tmp_path / "run")
    evaluate_endovae(run)
    with (run / "evaluation.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "abnormal"]
    expected = [[float(row[f"endovae_{name}"]) for name in ("psnr", "ssim")] for row in rows]
    grid = reconstruct(run, [tmp_path / "frames" / "polyps"], tmp_path / "grid.png")
    found = [[frame[name] for name in ("psnr", "ssim")] for frame in grid.frames]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    reconstruct(run, [tmp_path / "frames" / "polyps"], tmp_path / "single")
    with (tmp_path / "single" / "manifest.csv").open(encoding="utf-8") as file:
        found = [[float(row[name]) for name in ("psnr", "ssim")] for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, expected, atol=6e-3)  # two decimals of PSNR


def test_a_sampled_reconstruction_follows_its_seed(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    file = frame_folder / "polyps" / "00.png"
    psnrs = [
        _reconstructed(run, file, tmp_path / f"{number}", sampled, seed)
        for number, (sampled, seed) in enumerate([(False, 0), (True, 0), (True, 0), (True, 1)])
    ]
    assert psnrs[1] == psnrs[2]
    assert len({psnrs[0], psnrs[1], psnrs[3]}) == 3
    with pytest.raises(InputError, match="--seed has no effect without --sampled"):
        reconstruct(run, [file], tmp_path / "mean", seed=1)
    assert not (tmp_path / "mean").exists()


def test_a_folder_of_frames_keeps_its_folders_and_broken_ones_are_rows(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    shutil.copytree(frame_folder, frames)
    (frames / "polyps" / "broken.jpg").write_bytes(b"no image")
    reconstruct(run, [frames], tmp_path / "out", devices=2)
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert made == {path.relative_to(frame_folder).as_posix() for path in frame_folder.rglob("*.png")}
    with (tmp_path / "out" / "manifest.csv").open(encoding="utf-8") as file:
        rows = {Path(row["source"]).name: row for row in csv.DictReader(file)}
    assert "image of a known format" in rows["broken.jpg"]["error"] and not rows["broken.jpg"]["file"]
    assert {(row["file"], row["label"]) for row in rows.values()} >= {("polyps/03.png", "polyps")}
    with pytest.raises(InputError, match="--resume"):
        reconstruct(run, [frames], tmp_path / "out")
    with pytest.raises(InputError, match="00.png"):
        reconstruct(run, [frames / "polyps" / "00.png", frames / "normal-tiny" / "00.png"], tmp_path / "collided")
    assert not (tmp_path / "collided").exists()
    with pytest.raises(InputError, match="nowhere"):
        reconstruct(run, [tmp_path / "nowhere"], tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in"):
        reconstruct(run, [tmp_path / "empty"], tmp_path / "grid.png")
    with pytest.raises(InputError, match="no images in .*empty"):
        reconstruct(run, [tmp_path / "empty"], tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(("options", "name"), [({"resume": True}, "--resume"), ({"devices": 2}, "--devices")])
def test_a_grid_takes_no_option_of_a_folder(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"one grid, for which {name} has no effect"):
        reconstruct(tmp_path / "run", [tmp_path], tmp_path / "grid.png", **options)


@pytest.mark.parametrize("name", ["new.jpg", "new.TIFF"])
def test_an_image_of_another_format_is_no_name_of_a_folder(run: Path, frame_folder: Path, tmp_path: Path, name: str) -> None:
    for make in (lambda out: generate(run, out, count=2), lambda out: reconstruct(run, [frame_folder / "polyps"], out)):
        with pytest.raises(InputError, match=rf"{name} would be a folder.* \.png"):
            make(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_grid_of_a_folder_has_no_masks(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        for folder in ("polyps", "polyp-masks"):
            (tmp_path / "frames" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(frame_folder / "polyps" / f"0{number}.png", tmp_path / "frames" / folder)
    written = reconstruct(run, [tmp_path / "frames"], tmp_path / "grid.png")
    assert [Path(frame["name"]).parent.name for frame in written.frames] == ["polyps", "polyps"]


def test_a_frame_that_lies_wholly_in_a_masked_inset_has_no_psnr_and_no_ssim(
    averaged_run: Path, frame_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The square in the middle of a wide frame is green."""
    wide = np.random.default_rng(0).integers(60, 250, (100, 400, 3), dtype=np.uint8)
    wide[..., 1] = wide[..., 0]
    wide[:, 143:257] = (0, 200, 0)
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(wide).save(frames / "wide.png")
    shutil.copy(frame_folder / "polyps" / "00.png", frames / "usual.png")
    found = reconstruct(averaged_run, [frames], tmp_path / "out")
    assert [text for text in found.notes if "insets" in text and "1 frame " in text and "wide.png" in text]
    assert "usual.png" not in "".join(found.notes)
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        usual, masked = csv.DictReader(file)
    assert (masked["psnr"], masked["ssim"], masked["error"]) == ("", "", "") and (tmp_path / "out" / "wide.png").exists()
    assert float(usual["psnr"]) > 0 and float(usual["ssim"]) < 1
    grid = reconstruct(averaged_run, [frames], tmp_path / "grid.png")
    assert "insets" in grid.to_text() and "nan" not in grid.to_text()
    assert main(["endovae", "reconstruct", str(averaged_run), str(frames), "--out", str(tmp_path / "grid.png"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["frames"]
    assert (
        rows[1]["psnr"] is None and rows[1]["ssim"] is None and rows[0]["psnr"] == pytest.approx(float(usual["psnr"]), rel=1e-3)
    )


def test_new_frames(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    generate(run, tmp_path / "grid.png", count=5, seed=3)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (3 * 18 + 2, 2 * 18 + 2)
        page = np.asarray(image)
    assert _about(tmp_path / "grid.png")["seed"] == 3
    assert bool((page[20:-2, 38:-2] == 255).all()), "the sixth place is empty"
    generate(run, tmp_path / "single", count=5, seed=3)
    first = np.asarray(Image.open(tmp_path / "single" / "00000.png"))
    assert np.array_equal(first, page[2:18, 2:18])
    with (tmp_path / "single" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(path.name for path in (tmp_path / "single").glob("*.png"))
    assert [row["style"] for row in rows] == ["0", "1", "2", "3", "4"] and not any(row["source"] for row in rows)
    with pytest.raises(InputError):
        generate(run, tmp_path / "single", count=2, seed=4)
    assert len(list((tmp_path / "single").glob("*.png"))) == 5, "frames of two seeds are not mixed"
    generate(run, tmp_path / "other.png", count=5, seed=4)
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "other.png")), page)


def test_a_way_between_two_frames_begins_and_ends_at_their_reconstructions(
    run: Path, frame_folder: Path, tmp_path: Path
) -> None:
    ends = (frame_folder / "polyps" / "00.png", frame_folder / "normal-tiny" / "01.png")
    generate(run, tmp_path / "way", count=4, between=ends)
    reconstruct(run, ends, tmp_path / "ends")
    first, last = (np.asarray(Image.open(tmp_path / "way" / f"0000{number}.png"), int) for number in (0, 3))
    for found, name in ((first, "00"), (last, "01")):
        (file,) = (tmp_path / "ends").rglob(f"{name}.png")
        assert np.abs(found - np.asarray(Image.open(file), int)).max() <= 1
    assert np.abs(first - last).max() > 1


def test_a_way_has_two_ends(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    ends = (frame_folder / "polyps" / "00.png", frame_folder / "normal-tiny" / "01.png")
    with pytest.raises(InputError, match="--between needs .*--count"):
        generate(run, tmp_path / "way", count=1, between=ends)
    with pytest.raises(InputError, match="--dimension needs .*--count"):
        generate(run, tmp_path / "way", count=1, dimension=0)
    assert not (tmp_path / "way").exists()


def test_a_frame_that_is_read_is_not_overwritten(run: Path, frame_folder: Path, tmp_path: Path) -> None:
    frames = [shutil.copy(frame_folder / "polyps" / f"0{n}.png", tmp_path) for n in (0, 1)]
    first, second = map(Path, frames)
    before = first.read_bytes()
    with pytest.raises(InputError):
        generate(run, first, between=(second, first))
    with pytest.raises(InputError):
        reconstruct(run, [tmp_path], first)
    assert first.read_bytes() == before


def test_one_dimension_at_a_time(run: Path, tmp_path: Path) -> None:
    generate(run, tmp_path / "walk.png", count=7, dimension=2)
    with Image.open(tmp_path / "walk.png") as image:
        assert image.size == (7 * 18 + 2, 18 + 2)
        page = np.asarray(image, int)
    with torch.no_grad():
        z = torch.zeros(7, 3)
        z[:, 2] = torch.linspace(-3, 3, 7)
        drawn = load_checkpoint(run).decoder(z).permute(0, 2, 3, 1).numpy() * 255
    for number, frame in enumerate(drawn):
        assert np.abs(page[2:18, 2 + 18 * number : 18 + 18 * number] - frame).max() <= 1
    assert np.abs(drawn[0] - drawn[-1]).max() > 3
    with pytest.raises(InputError, match="0 to 2"):
        generate(run, tmp_path / "walk.png", dimension=3)
    with pytest.raises(InputError, match="--count"):
        generate(run, tmp_path / "walk.png", count=0)


def test_torch_stays_deterministic_in_evaluation(run: Path) -> None:
    torch.manual_seed(1)
    first = evaluate_endovae(run).to_dict()
    torch.manual_seed(2)
    assert evaluate_endovae(run).to_dict() == first


def test_frames_that_the_run_trained_on_are_left_out_where_frames_are_named(run: Path, store: FrameStore) -> None:
    result = evaluate_endovae(run, frames=str(store.path))
    counts = {kind: found.count for kind, found in result.sets.items()}
    assert counts == _unseen(run) and sum(counts.values()) < len(store)
    assert result.anomaly is not None
    assert all(view.counts["abnormal"] == counts["abnormal"] for view in result.anomaly.views.values())


def _unseen(run: Path) -> dict[str, int]:
    """Return the number of frames by kind that neither trained, validated nor selected, nor are near-duplicates of these."""
    config = read_config(RunFolder(run))
    splits = load_splits(config)
    parts = split_for_anomaly(splits, config.split)
    assert parts is not None
    groups = splits.store.clusters(np.arange(len(splits.store)))
    seen = [splits.train, splits.validation, splits.calibration, parts.selection["abnormal"]]
    unseen = ~np.isin(groups, groups[np.concatenate([part.positions for part in seen])])
    abnormal = splits.store.abnormal
    return {"normal": int((unseen & ~abnormal).sum()), "abnormal": int((unseen & abnormal).sum())}


def test_near_duplicates_of_seen_frames_are_left_out_where_frames_are_named(
    run: Path, frame_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in frame_folder.rglob("*.png"):
        brighter = np.asarray(Image.open(path)).clip(0, 254) + 1
        copied = tmp_path / "other" / path.relative_to(frame_folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(brighter.astype(np.uint8)).save(copied)
    result, unseen = evaluate_endovae(run, frames=str(tmp_path / "other")), _unseen(run)
    assert all(found.count <= unseen[kind] for kind, found in result.sets.items())


def test_a_folder_of_abnormal_frames_alone_is_measured(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames" / "polyps").mkdir(parents=True)
    for number, frame in enumerate(tiny.frames(12, 90)):
        Image.fromarray(frame).save(tmp_path / "frames" / "polyps" / f"{number}.png")
    assert set(evaluate_endovae(run, frames=str(tmp_path / "frames")).sets) == {"abnormal"}


@pytest.mark.parametrize(("name", "value"), [("size", 24), ("method", "otsu"), ("insets", "mask")])
def test_a_store_that_was_prepared_otherwise_is_refused(
    run: Path, frame_folder: Path, tmp_path: Path, name: str, value: str | int
) -> None:
    settings = PrepareConfig.parse({"size": tiny.SIZE, name: value})
    other = prepare([frame_folder], config=settings, out=tmp_path / "other")
    with pytest.raises(InputError, match=f"prepared with {name} {value}"):
        evaluate_endovae(run, frames=str(other.path))


def test_changed_frames_do_not_pass_for_the_runs_own(run: Path, store: FrameStore, tmp_path: Path) -> None:
    copied, changed = tmp_path / "run", tmp_path / "store"
    shutil.copytree(run, copied)
    shutil.copytree(store.path, changed)
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(store.path), str(changed)))
    test = load_splits(read_config(RunFolder(copied))).test["normal"]
    recorded = RunFolder(copied).read_record()["data"]["frames"]
    assert len({recorded[key] for key in ("sha256", "sha256_validation", "sha256_test")}) == 3
    content = bytearray((changed / "frames.npy").read_bytes())
    frame_bytes = tiny.SIZE * tiny.SIZE * 3
    first = len(content) - (len(store) - int(test.positions[0])) * frame_bytes
    content[first] ^= 1
    (changed / "frames.npy").write_bytes(content)
    with pytest.raises(InputError, match="test frames"):
        evaluate_endovae(copied)
    with pytest.raises(InputError, match="SHA-256"):
        evaluate_endovae(copied, frames=str(store.path))


def test_frames_that_are_not_measured_are_named(
    run: Path, frame_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(frame_folder, tmp_path / "other")
    (next(path for path in other.iterdir() if path.name == "polyps") / "damaged.png").write_bytes(b"no image")
    found = evaluate_endovae(run, frames=str(other))
    measured = sum(one.count for one in found.sets.values())
    total = sum(1 for path in other.rglob("*.png") if path.name != "damaged.png")
    said = " ".join(caplog.messages)
    assert f"Left out {total - measured} of {total} frames" in said and 0 < measured < total
    assert "damaged.png" in said
