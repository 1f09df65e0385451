"""Scores of files: the same as the evaluation's, whatever stands beside them, with maps at the frames' own size."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.weights import Tensors, edit
from pixelscope import InputError, Interrupted
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.data.sources.listing import image_files
from pixelscope.endovae.anomaly.calibration import FILE, grey_warning, read_calibration
from pixelscope.endovae.anomaly.scores import COMBINED_SCORES, SCORES
from pixelscope.endovae.checkpoints import load_checkpoint
from pixelscope.endovae.data import load_run_splits
from pixelscope.endovae.forward import encode
from pixelscope.endovae.inference.interactive import InteractiveVAE
from pixelscope.endovae.inference.reconstruct import reconstruct
from pixelscope.endovae.inference.score import score, score_frames
from pixelscope.endovae.results import Evaluation
from pixelscope.runs.folder import RunFolder


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("view", ["full", "centre"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_of_files_are_those_of_the_evaluation(
    endovae_run: Path, frame_files: Path, tmp_path: Path, name: str, view: ViewName
) -> None:
    score(endovae_run, [frame_files], tmp_path / "scores.csv", score=name, view=view)
    found = {Path(row["name"]).relative_to(frame_files).as_posix(): row for row in read(tmp_path / "scores.csv")}
    tested = [row for row in read(endovae_run / "anomaly.csv") if row["view"] == view]
    assert len(tested) > 20
    # Sums are in standard deviations, and the KL divergence of a run of few steps is near 0, where float32 has few digits.
    tolerance = 0.02 if name in COMBINED_SCORES else 1e-4
    for row in tested:
        assert float(found[row["name"]]["score"]) == pytest.approx(float(row[name]), rel=2e-3, abs=tolerance)


@pytest.mark.parametrize("view", ["full", "centre"])
def test_the_calibration_flags_and_gives_p(endovae_run: Path, frame_files: Path, tmp_path: Path, view: ViewName) -> None:
    result = score(endovae_run, [frame_files], tmp_path / "scores.csv", false_positive_rate=0.2, view=view)
    calibration = read_calibration(endovae_run / "checkpoints" / FILE).views[view]
    assert result.score == calibration.selected and result.calibrated_on == calibration.count
    assert result.view == view and result.warnings == ()
    known = np.array(calibration.scores[calibration.selected])
    for row in read(tmp_path / "scores.csv"):
        value, p = float(row["score"]), float(row["p"])
        if np.abs(known - value).min() > 2e-3 * max(1, abs(value)):
            assert p == pytest.approx((1 + (known >= value).sum()) / (1 + len(known)), rel=1e-3)
            assert row["flagged"] == ("true" if p <= 0.2 else "false")
    assert "no diagnosis" in result.to_text() and "no diagnosis" in str(result.to_dict())


def test_with_too_few_calibration_frames_nothing_is_flagged_or_cleared(
    endovae_run: Path, frame_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("inference.score", "anomaly.calibration"):
        monkeypatch.setattr(f"pixelscope.endovae.{module}.RATE", 0.01)
    files = image_files(frame_files / "polyps")[:3]
    some, default = (score(endovae_run, files, tmp_path / f"{rate}.csv", false_positive_rate=rate) for rate in (0.2, None))
    assert default.calibrated_on < 99 and default.threshold is None
    (warning,) = set(default.warnings) - set(some.warnings)
    assert "at least 99 calibration frames" in warning and warning in default.to_text()
    rows = read(tmp_path / "None.csv")
    assert rows == [row | {"flagged": ""} for row in read(tmp_path / "0.2.csv")] and all(row["p"] for row in rows)
    (found,) = score_frames(endovae_run, [np.asarray(Image.open(files[0]))])
    assert found.flagged is None and found.error is None and found.p == pytest.approx(float(rows[0]["p"]), rel=1e-3)
    with pytest.raises(InputError, match="--false-positive-rate 0.01 needs at least 99"):
        score(endovae_run, files, tmp_path / "other.csv", false_positive_rate=0.01)


def test_files_of_another_camera_are_warned_of_with_both_numbers(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for file in image_files(frame_files / "polyps")[:6]:
        Image.open(file).resize((220, 180)).save(folder / file.name)
    found = score(endovae_run, [folder], tmp_path / "scores.csv", false_positive_rate=0.2)
    count = sum(one.count for one in read_calibration(endovae_run / "checkpoints" / FILE).cameras)
    (warning,) = found.warnings
    assert f"100% of the 6 scored frames are 220 x 180, and 0% of the {count} calibration frames" in warning
    assert warning in found.to_text() and found.to_dict()["warnings"] == (warning,)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_resumed_table_warns_of_the_cameras_of_all_rows(
    endovae_run: Path, frame_files: Path, tmp_path: Path, ending: str
) -> None:
    """The first 64 rows are of another camera, and of one frame without tissue; the last ten are of the calibration's."""
    folder = tmp_path / "frames"
    folder.mkdir()
    with Image.open(image_files(frame_files / "polyps")[0]) as frame:
        for number in range(73):
            frame.resize((220, 180) if number < 63 else frame.size).save(folder / f"{number:02}.png")
    Image.new("RGB", (400, 300)).save(folder / "00a.png")
    whole = score(endovae_run, [folder], tmp_path / f"whole{ending}", false_positive_rate=0.2)
    assert "86% of the 73 scored frames" in str(whole.warnings)
    out = tmp_path / f"parted{ending}"
    with pytest.raises(Interrupted):
        score(endovae_run, [folder], out, false_positive_rate=0.2, progress=_interrupt)
    assert score(endovae_run, [folder], out, false_positive_rate=0.2, resume=True).warnings == whole.warnings


def _interrupt(done: int, total: int) -> None:
    if done < total:
        raise KeyboardInterrupt


def test_a_score_depends_on_its_frame_alone(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    files = image_files(frame_files)
    score(endovae_run, files, tmp_path / "all.csv", devices=2)
    score(endovae_run, files[5:6], tmp_path / "one.csv")
    all_rows, one = read(tmp_path / "all.csv"), read(tmp_path / "one.csv")
    assert float(one[0]["score"]) == pytest.approx(float(all_rows[5]["score"]), rel=2e-3)
    assert one[0]["p"] == all_rows[5]["p"]


@pytest.mark.parametrize("devices", [0, -1])
def test_less_than_one_device_is_refused(endovae_run: Path, frame_files: Path, tmp_path: Path, devices: int) -> None:
    with pytest.raises(InputError):
        score(endovae_run, [frame_files], tmp_path / "scores.csv", devices=devices)
    assert not list(tmp_path.glob("scores*"))


def test_maps_have_the_frames_size_and_leave_the_border(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    score(endovae_run, [frame_files / "polyps"], tmp_path / "scores.csv", maps=tmp_path / "maps")
    drawn = image_files(tmp_path / "maps")
    assert [file.name for file in drawn] == [f"{n:02d}.png" for n in range(24)]
    for file in drawn[:3]:
        original = np.asarray(Image.open(frame_files / "polyps" / file.name))
        overlaid = np.asarray(Image.open(file))
        assert overlaid.shape == original.shape
        assert np.array_equal(overlaid[:4], original[:4]) and np.array_equal(overlaid[:, :14], original[:, :14])
        assert not np.array_equal(overlaid, original)


def test_maps_inside_the_folder_are_no_frames(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    shutil.copytree(frame_files / "polyps", frames)
    first = score(endovae_run, [frames], frames / "one.csv", maps=frames / "maps")
    again = score(endovae_run, [frames], frames / "two.csv", maps=frames / "more")
    assert first.written.rows == again.written.rows == 24
    assert [row["name"] for row in read(frames / "one.csv")] == [row["name"] for row in read(frames / "two.csv")]


@pytest.fixture
def unseen(tmp_path: Path, frame_files: Path) -> Path:
    """Two frames with tissue, and three without any: black, white, and too dark."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        shutil.copyfile(frame_files / "polyps" / f"{number:02d}.png", folder / f"{number:02d}.png")
    for name, value in (("black", 0), ("dark", 20), ("white", 255)):
        Image.new("RGB", (90, 80), (value, value, value)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("name", SCORES)
def test_a_frame_without_tissue_is_a_row_with_its_error_and_no_score(
    endovae_run: Path, unseen: Path, tmp_path: Path, name: str
) -> None:
    written = score(endovae_run, [unseen], tmp_path / "s.csv", score=name, false_positive_rate=0.2, maps=tmp_path / "maps")
    found = {Path(row["name"]).stem: row for row in read(tmp_path / "s.csv")}
    for blank in ("black", "dark", "white"):
        assert "no tissue is seen" in found[blank]["error"] and f"{blank}.png" in found[blank]["error"]
        assert not found[blank]["score"] and not found[blank]["p"] and not found[blank]["flagged"]
    assert all(float(found[seen]["score"]) and found[seen]["p"] and not found[seen]["error"] for seen in ("00", "01"))
    assert (written.written.rows, written.written.failed) == (5, 3)
    assert [path.name for path in image_files(tmp_path / "maps")] == ["00.png", "01.png"]
    score(endovae_run, [unseen], tmp_path / "s.jsonl", score=name, false_positive_rate=0.2)
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["score"] is None for line in lines] == [False, False, True, True, True]


def test_a_frame_with_outputs_that_are_not_finite_is_a_row_with_that_error_and_no_score(
    endovae_run: Path, unseen: Path, tmp_path: Path
) -> None:
    """The KL divergence overflows, and everything else is as before."""
    run = Path(shutil.copytree(endovae_run, tmp_path / "run"))

    def overflow(tensors: Tensors) -> None:
        tensors["network.encoder.log_variance.bias"] += 1000

    edit(run / "checkpoints" / "best.safetensors", overflow)
    file = run / "checkpoints" / FILE
    read_calibration(file).model_copy(update={"weights_sha256": load_checkpoint(run).sha256}).save(file)
    score(run, [unseen], tmp_path / "s.csv", false_positive_rate=0.2, maps=tmp_path / "maps")
    found = {Path(row["name"]).stem: row for row in read(tmp_path / "s.csv")}
    for name, row in found.items():
        assert ("not finite" if name in ("00", "01") else "no tissue is seen") in row["error"]
        assert not row["score"] and not row["p"] and not row["flagged"]
    assert not image_files(tmp_path / "maps")
    with Image.open(unseen / "00.png") as frame, pytest.raises(InputError, match="not finite"):
        InteractiveVAE(run).analyze(np.asarray(frame.convert("RGB")))


def test_a_map_that_cannot_be_written_is_an_error_in_its_row(endovae_run: Path, unseen: Path, tmp_path: Path) -> None:
    long = "گ" * 125 + ".tif"
    Image.open(unseen / "01.png").save(unseen / long)
    score(endovae_run, [unseen], tmp_path / "s.csv", maps=tmp_path / "maps", false_positive_rate=0.2)
    found = {Path(row["name"]).name: row for row in read(tmp_path / "s.csv")}
    assert "cannot be written: File name too long" in found[long]["error"]
    assert found[long]["score"] == found["01.png"]["score"] and not found["01.png"]["error"]
    assert [path.name for path in image_files(tmp_path / "maps")] == ["00.png", "01.png"]


def test_a_calibration_of_other_weights_is_refused(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(endovae_run, run)
    path = run / "checkpoints" / FILE
    made = read_calibration(path)
    made.model_copy(update={"weights_sha256": "0" * 64}).save(path)
    with pytest.raises(InputError, match="other weights"):
        score(run, [frame_files], tmp_path / "s.csv")


def test_preparation_settings_that_were_changed_after_the_calibration_are_refused(
    endovae_run: Path, frame_files: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(endovae_run, tmp_path / "run"))
    config, file = run / "config.yaml", run / "checkpoints" / FILE
    text = config.read_text(encoding="utf-8")
    for old, new, name in (("insets: keep", "insets: inpaint", "insets"), ("method: robust", "method: otsu", "method")):
        assert old in text
        config.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(InputError, match=rf"config\.yaml has prepare\.{name} \w+, but .*; set it back, or train again\.$"):
            score(run, [frame_files], tmp_path / "s.csv")
    config.write_text(text.replace("strict: false", "strict: true", 1), encoding="utf-8")
    assert load_checkpoint(run).calibration().prepare == load_checkpoint(endovae_run).config.prepare
    known = json.loads(file.read_text(encoding="utf-8"))
    del known["prepare"]
    file.write_text(json.dumps(known), encoding="utf-8")
    config.write_text(text.replace("insets: keep", "insets: inpaint"), encoding="utf-8")
    assert load_checkpoint(run).calibration().prepare is None
    assert not (tmp_path / "s.csv").exists()


def test_a_calibration_that_also_selected_is_warned_of(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    run = shutil.copytree(endovae_run, tmp_path / "run")
    file = run / "checkpoints" / FILE
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(known | {"held_out": False}), encoding="utf-8")
    found = score(run, [frame_files / "polyps" / "00.png"], tmp_path / "scores.csv", false_positive_rate=0.2)
    assert any("also selected" in warning for warning in found.warnings)


def test_scoring_goes_on_where_it_stopped(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    files = [frame_files]
    score(endovae_run, files, tmp_path / "whole.csv", maps=tmp_path / "whole")
    content = (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(Interrupted, match="64 rows are kept"):
        score(endovae_run, files, tmp_path / "s.csv", maps=tmp_path / "maps", devices=1, progress=interrupt)
    score(endovae_run, files, tmp_path / "s.csv", maps=tmp_path / "maps", resume=True)
    assert (tmp_path / "s.csv").read_bytes() == content
    made = [{path.relative_to(tmp_path / name) for path in image_files(tmp_path / name)} for name in ("maps", "whole")]
    assert made[0] == made[1] and len(made[0]) == 84


def test_frames_far_smaller_than_the_model_are_warned_of(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    """The model's side is 24 pixels."""
    folder = tmp_path / "small"
    folder.mkdir()
    whole = Image.open(frame_files / "polyps" / "00.png").convert("RGB").crop((15, 5, 95, 85))
    for side in (8, 11, 12, 40):
        whole.resize((side, side)).save(folder / f"{side}.png")
    found = score(endovae_run, [folder, frame_files], tmp_path / "s.csv")
    (warning,) = (text for text in found.warnings if "were enlarged" in text)
    assert "2 of the 88 scored frames" in warning and "24 x 24" in warning and "8 x 8" in warning
    found = score(endovae_run, [folder / "12.png", folder / "40.png"], tmp_path / "large.csv")
    assert not [text for text in found.warnings if "were enlarged" in text]


def test_frames_without_colour_are_warned_of_by_a_model_of_colours(
    endovae_run: Path, frame_files: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for number in range(3):
        grey = Image.open(frame_files / "polyps" / f"{number:02d}.png").convert("L")
        (grey if number else grey.convert("RGB")).save(folder / f"{number}.jpg")
    Image.fromarray(np.full((80, 80), 90, np.uint8)).save(folder / "unscored.png")
    found = score(endovae_run, [frame_files, folder], tmp_path / "s.csv")
    (warning,) = (text for text in found.warnings if "colour" in text)
    calibrated = found.calibrated_on
    assert "3 scored frames without colour" in warning and f"0 of the {calibrated} calibration frames" in warning
    assert not [text for text in score(endovae_run, [frame_files], tmp_path / "t.csv").warnings if "colour" in text]
    assert grey_warning(3, None, 20) == grey_warning(3, 5, 20) == grey_warning(0, 0, 20) == ()


def interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_what_cannot_score_is_said(endovae_run: Path, pixelda_run: Path, frame_files: Path, tmp_path: Path) -> None:
    out, young = tmp_path / "scores.csv", tmp_path / "young"
    shutil.copytree(endovae_run, young)
    (young / "checkpoints" / FILE).unlink()
    with pytest.raises(InputError, match="no calibration in .*young; .*`pixelscope endovae evaluate"):
        score(young, [frame_files], out)
    with pytest.raises(
        InputError, match="calibration in .* is of the checkpoint best-validation at .* run .* --checkpoint last"
    ):
        score(endovae_run, [frame_files], out, checkpoint="last")
    with pytest.raises(InputError, match="is a run of 'pixelda'"):
        score(pixelda_run, [frame_files], out)
    with pytest.raises(InputError, match="0.001 needs at least 999"):
        score(endovae_run, [frame_files], out, false_positive_rate=0.001)
    with pytest.raises(InputError, match="--false-positive-rate"):
        score(endovae_run, [frame_files], out, false_positive_rate=2)
    with pytest.raises(InputError, match="There is no anomaly score 'beauty'"):
        score(endovae_run, [frame_files], out, score="beauty")
    with pytest.raises(InputError, match="'middle'; give one of: .*centre"):
        score(endovae_run, [frame_files], out, view="middle")  # pyright: ignore[reportArgumentType]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in .*empty"):
        score(endovae_run, [tmp_path / "empty"], out)
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match="maps exists already"):
        score(endovae_run, [frame_files], out, maps=tmp_path / "maps")
    with pytest.raises(InputError, match="Two of the paths are called polyps"):
        score(endovae_run, [frame_files / "polyps", frame_files / "polyps"], out, maps=tmp_path / "new")
    RunFolder(young).update_record(state="running")
    with pytest.raises(InputError, match="is not finished"):
        score(young, [frame_files], out)
    assert not list(tmp_path.glob("scores*"))


def test_frames_whose_maps_would_have_one_name_are_refused(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    first, second, third = image_files(frame_files / "polyps")[:3]
    folder = tmp_path / "frames"
    folder.mkdir()
    with Image.open(first) as frame:
        frame.save(folder / "a.jpg")
    shutil.copy(second, folder / "a.jpg.png")
    for command in (
        lambda paths, out: score(endovae_run, paths, tmp_path / f"{out}.csv", maps=tmp_path / out),
        lambda paths, out: reconstruct(endovae_run, paths, tmp_path / out),
    ):
        for paths in ([folder], [folder / "a.jpg", folder / "a.jpg.png"]):
            with pytest.raises(InputError):
                command(paths, "refused")
        assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    score(endovae_run, [folder / "a.jpg.png"], tmp_path / "one.csv", maps=tmp_path / "one")
    shutil.copy(third, folder / "b.png")
    (folder / "a.jpg").unlink()
    score(endovae_run, [folder], tmp_path / "two.csv", maps=tmp_path / "two")
    assert {path.name for path in (tmp_path / "two").rglob("*.png")} == {"a.jpg.png", "b.png"}


def test_a_frame_of_any_size_has_the_score_of_its_file_when_it_is_analysed(
    endovae_run: Path, frame_files: Path, tmp_path: Path
) -> None:
    small = Image.open(image_files(frame_files / "polyps")[0])
    for size in ((90, 80), (901, 800)):
        frame = np.asarray(small.resize(size, Image.Resampling.NEAREST))
        noise = np.random.default_rng(0).integers(-9, 10, frame.shape)
        frame = (frame + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(frame).save(tmp_path / f"{size[0]}.png")
        score(endovae_run, [tmp_path / f"{size[0]}.png"], tmp_path / f"{size[0]}.csv", false_positive_rate=0.2)
        (row,) = read(tmp_path / f"{size[0]}.csv")
        found = InteractiveVAE(endovae_run).analyze(frame)
        assert (found.score, found.p) == pytest.approx((float(row["score"]), float(row["p"])), rel=1e-3)
        assert max(found.frame.shape[:2]) <= 640 and found.heatmap.shape == found.frame.shape


def test_the_training_frame_nearest_to_the_sliders_is_shown(endovae_run: Path) -> None:
    vae, checkpoint = InteractiveVAE(endovae_run), load_checkpoint(endovae_run)
    train = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record).train
    means = encode(checkpoint, train.frames).mean.numpy()
    for row in (0, 7, len(train) - 1):
        gap = np.sort(np.linalg.norm(means - means[row], axis=1))[1]
        frame, name, sliders = vae.nearest(means[row] + np.float32([0.3 * gap, 0, 0]))
        assert name == train.names[row] and np.array_equal(frame, train.frames[row])
        assert np.linalg.norm(sliders - means[row]) < 0.01 * gap
    divergence = Evaluation.load(endovae_run / "evaluation.json").sets["normal"].kl
    assert vae.dimensions == np.argsort(-np.array(divergence), kind="stable").tolist()


def test_a_map_leaves_what_is_drawn_over_the_frame(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    frame = np.array(Image.open(image_files(frame_files / "polyps")[0]).resize((330, 270)))
    frame[180:252, 48:108] = (0, 200, 0)
    Image.fromarray(frame).save(tmp_path / "green.png")
    score(endovae_run, [tmp_path / "green.png"], tmp_path / "s.csv", maps=tmp_path / "maps", false_positive_rate=0.2)
    changed = np.abs(np.asarray(Image.open(tmp_path / "maps" / "green.png"), int) - frame).max(2)
    assert changed[195:237, 63:93].max() == 0
    assert changed[30:170, 60:270].mean() > 3


def test_maps_and_table_need_two_names(endovae_run: Path, frame_files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--maps"):
        score(endovae_run, [frame_files], tmp_path / "one", maps=tmp_path / "more" / ".." / "one")
    assert list(tmp_path.iterdir()) == []
