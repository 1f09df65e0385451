"""`endovae evaluate-generated`: real rows, runs next to each other, copies, the sheet, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist

import pixelscope
from fixtures import tiny
from pixelscope import InputError
from pixelscope.cli import main
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae import GenerationResult
from pixelscope.endovae.checkpoints import load_checkpoint
from pixelscope.endovae.data import load_run_splits, to_images
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.forward import AXES_FILE
from pixelscope.endovae.generation.evaluate import sheet_rows
from pixelscope.endovae.generation.measures import Nearest, frechet_distance, kernel_distance, manifolds
from pixelscope.endovae.generation.results import FeaturesName
from pixelscope.endovae.generation.sets import (
    LAST_BLOCK,
    RealFrames,
    encoder_features,
    feature_spaces,
    lite0_features,
    measure_generated,
    smallest_difference,
)
from pixelscope.endovae.lite0 import load_lite0
from pixelscope.endovae.metrics import spectrum
from pixelscope.endovae.training import train_endovae
from pixelscope.errors import has_extra
from pixelscope.runs.folder import RunFolder

SPLIT = {"validation_fraction": 0.2, "test_fraction": 0.25}
SPATIAL = {
    "model": {"kind": "spatial", "latent": 5, "width": 4, "stride": 4, "blocks": 1},
    "losses": {"cross_entropy": 0.0, "l1": 1.0},
}

needs_lite0 = pytest.mark.skipif(not has_extra("pretrained"), reason="the extra pretrained is not installed")


@pytest.fixture(scope="module")
def runs(store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a run with a global code and one with a spatial code, of the same frames."""
    folder = tmp_path_factory.mktemp("runs")
    trained = [
        train_endovae(tiny.endovae(frames=str(store.path), split=SPLIT, **changes), run=folder / name)
        for name, changes in (("global", {"model": {"width": 4}}), ("spatial", SPATIAL))
    ]
    evaluate_endovae(trained[1])  # measures the axes along which frames are drawn
    return trained[0], trained[1]


def measured(run: Path, features: FeaturesName | None = "encoder", **options: Any) -> GenerationResult:
    return pixelscope.endovae.evaluate_generated(run, features=features, **options)


def test_runs_are_measured_next_to_real_frames(runs: tuple[Path, Path]) -> None:
    one, other = runs
    result = measured(one, against=[other])
    assert [row.title for row in result.sets] == ["real: training frames", "global", "spatial"]
    assert [row.run for row in result.sets] == ["", str(one), str(other)]
    assert {row.count for row in result.sets} == {result.training}
    assert (result.kind, result.held_out, result.cycles) == ("normal", 7, 2)
    # All are measured on the encoder of the first run.
    assert result.dimensions == {"encoder": 3}
    alone = measured(other)
    assert alone.dimensions == {"encoder": 10}
    assert alone.sets[1].fine_energy == pytest.approx(result.sets[2].fine_energy, rel=1e-6)
    assert alone.sets[1].fine_energy != pytest.approx(result.sets[1].fine_energy, rel=1e-3)
    real, *generated = (row.features["encoder"] for row in result.sets)
    assert real.nearer is None and all(0 <= (row.nearer or 0) <= 1 for row in generated)
    assert all(row.frechet > real.frechet for row in generated)
    assert GenerationResult.load(one / "generation.json") == result
    assert json.loads((one / "generation.json").read_text()) == result.to_dict()
    with Image.open(one / "generation.png") as sheet:
        assert min(sheet.size) > 300 and len(np.unique(np.asarray(sheet.convert("L")))) > 50
    text = result.to_text()
    assert "spatial" in text and "energy above 2 cycles" in text and "biased" in text


def test_the_table_holds_the_numbers_in_the_order_of_its_heads(runs: tuple[Path, Path]) -> None:
    result = measured(runs[0], count=8)
    lines = result.to_text().splitlines()
    heads = "Frechet kernel precision recall density coverage nearest nearer"
    start = next(number for number, line in enumerate(lines) if line.split() == heads.split())
    for line, row in zip(lines[start + 1 :], result.sets, strict=False):
        one = row.features["encoder"]
        shares = [f"{value:.3f}" for value in (one.precision, one.recall, one.density, one.coverage)]
        near = [f"{one.nearest:.3g}", *([] if one.nearer is None else [f"{one.nearer:.1%}"])]
        expected = [f"{one.frechet:.4g}", f"{one.kernel:.3g}", "+-", f"{one.kernel_std:.2g}", *shares, *near]
        assert line.removeprefix(f"  {row.title}").split() == expected
    for row in result.sets:
        assert [f"{row.count}", f"{row.fine_energy:.1%}", f"{row.copies}"] in [line.split()[-3:] for line in lines]


def test_small_negative_distances_stay_apart_from_their_neighbours(runs: tuple[Path, Path]) -> None:
    result = measured(runs[0], count=8)
    real, generated = result.sets
    small = real.features["encoder"].model_copy(update={"frechet": 4.381e-05, "kernel": -2.25e-05, "kernel_std": 6.5e-05})
    changed = result.model_copy(update={"sets": (real.model_copy(update={"features": {"encoder": small}}), generated)})
    row = next(line for line in changed.to_text().splitlines() if "+-" in line)
    assert row.removeprefix(f"  {real.title}").split()[:4] == ["4.381e-05", "-2.25e-05", "+-", "6.5e-05"]


def test_the_real_row_compares_training_frames_with_held_out_ones(runs: tuple[Path, Path]) -> None:
    checkpoint = load_checkpoint(runs[0])
    splits = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record)
    training, held_out = splits.train.frames, splits.test["normal"].frames
    rows = np.arange(8) * len(training) // 8
    real, some, mirrors = (
        encoder_features(checkpoint, frames) for frames in (held_out, training[rows], training[:, :, ::-1].copy())
    )
    row = measured(runs[0], count=8).sets[0]
    found = row.features["encoder"]
    assert found.frechet == pytest.approx(frechet_distance(real, some), rel=1e-4)
    kernel = kernel_distance(real, some)
    assert (found.kernel, found.kernel_std) == pytest.approx((kernel.value, kernel.std), rel=1e-4, abs=1e-9)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(manifolds(real, some))
    known = np.concatenate([encoder_features(checkpoint, training), mirrors])
    assert found.nearest == pytest.approx(np.median(cdist(real, known).min(1)), rel=1e-3)
    fine = [float(spectrum(to_images(frames))[:, 2:].sum(1).mean()) for frames in (training[rows], held_out)]
    assert row.fine_energy == pytest.approx(fine[0] / fine[1], rel=1e-4)


def test_the_same_seed_gives_the_same_numbers(runs: tuple[Path, Path]) -> None:
    first = measured(runs[0], count=8, seed=1)
    assert measured(runs[0], count=8, seed=1) == first
    assert measured(runs[0], count=8, seed=2).sets[1] != first.sets[1]
    assert [row.count for row in first.sets] == [8, 8]


def test_a_note_says_where_counts_differ(runs: tuple[Path, Path]) -> None:
    same, more = measured(runs[0], count=8), measured(runs[0], count=40)
    assert more.sets[0].count == more.training < 40
    assert "--count" not in same.to_text() and f"--count {more.training}" in more.to_text()
    large = [one.model_copy(update={"count": count}) for one, count in zip(more.sets, (5_000, 6_000), strict=True)]
    assert "--count 5000" in more.model_copy(update={"held_out": 5_000, "sets": tuple(large)}).to_text()


def test_the_command_measures_several_runs(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--features", "encoder", "--count", "7", "--seed", "3", "--checkpoint", "last", "--json")
    assert main(["endovae", "evaluate-generated", str(runs[0]), "--against", str(runs[1]), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((runs[0] / "generation.json").read_text())
    assert (found["seed"], [one["count"] for one in found["sets"]]) == (3, [7, 7, 7])
    assert [one["checkpoint"] for one in found["sets"]] == ["", "last", "last"]


def test_frames_are_drawn_from_a_fitted_prior(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copied = shutil.copytree(runs[0], tmp_path / "run")
    before = measured(copied, count=12)
    pixelscope.endovae.prior(copied)
    fitted, without = measured(copied, count=12), measured(copied, count=12, prior="none")
    assert without.sets[1] == before.sets[1] and before.sets[1].prior == ""
    assert fitted.sets[1].prior and fitted.sets[1].prior in fitted.sets[1].title
    assert fitted.sets[1].features != before.sets[1].features


def test_a_run_with_nothing_to_draw_from_is_refused_before_real_frames_are_measured(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any) -> None:
        raise AssertionError("measured")

    stale, bare = (Path(shutil.copytree(run, tmp_path / run.name)) for run in runs)
    pixelscope.endovae.prior(stale)
    pixelscope.resume(stale, epochs=4)
    (bare / "checkpoints" / AXES_FILE).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(RealFrames, "of", never)
        with pytest.raises(InputError, match=f"pixelscope endovae prior {stale}.* --prior none"):
            measured(stale)
        with pytest.raises(InputError, match=f"pixelscope endovae evaluate {bare}"):
            measured(runs[0], against=[bare])
    assert measured(stale, count=6, prior="none").sets[1].prior == ""


def test_frames_that_have_moved_can_be_named(
    runs: tuple[Path, Path],
    store: FrameStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved, run = shutil.copytree(store.path, tmp_path / "moved"), Path(shutil.copytree(runs[0], tmp_path / "run"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(store.path), str(tmp_path / "absent")))
    monkeypatch.chdir(run)
    command = ("endovae", "evaluate-generated", ".", "--features", "encoder", "--count", "6")
    assert main([*command]) == 2
    assert "absent" in capsys.readouterr().err
    assert main([*command, "--frames", str(moved), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["store"] == str(moved)
    assert found["sets"][1]["title"] == "run" and found["spaces"]["encoder"].endswith("encoder of run")


def real_frames(run: Path) -> RealFrames:
    checkpoint = load_checkpoint(run)
    return RealFrames.of(checkpoint, feature_spaces("encoder", checkpoint))


def test_a_held_out_mirror_image_does_not_hide_copies(runs: tuple[Path, Path]) -> None:
    """Splits do not see that a held-out frame is the mirror image of a training frame."""
    real = real_frames(runs[0])
    distances = real.differences(real.held_out).distance
    assert smallest_difference(distances) == real.copy_error == distances.min() > 0
    assert smallest_difference(np.append(distances, [0.0, 0.05 * np.median(distances)])) == distances.min()
    assert smallest_difference(np.zeros(3)) == 0
    nothing = replace(real, copy_error=0.0)
    assert nothing.copies(nothing.differences(real.training)) == len(real.training)


def test_copies_of_training_frames_are_counted(runs: tuple[Path, Path]) -> None:
    checkpoint, real = load_checkpoint(runs[0]), real_frames(runs[0])
    splits = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record)
    training = splits.train.frames
    noise = np.random.default_rng(0).integers(0, 256, (6, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    lighter = (training[:4] * 0.99).astype(np.uint8)
    some = np.concatenate([training[:9], training[9:12, :, ::-1], lighter, noise])
    found, closest = measure_generated(checkpoint, some, real, seed=0)
    assert found.copies == 16
    assert closest.position[:16].tolist() == [*range(12), *range(4)]
    assert closest.distance[:12] == pytest.approx(np.zeros(12), abs=1e-4)
    copied, _ = measure_generated(checkpoint, training[:9], real, seed=0)
    mirrored, _ = measure_generated(checkpoint, training[:9, :, ::-1], real, seed=0)
    for row in (copied, mirrored):
        assert row.features["encoder"].nearer == 1 and row.features["encoder"].nearest < 1e-5
    # The distance is the root mean square over pixels, here at the frames' own size of 16 x 16.
    one, other = real.held_out[0].astype(float), training.astype(float)
    errors = [np.sqrt(np.square(one - some).mean()) for known in other for some in (known, known[:, ::-1])]
    assert real.differences(real.held_out[:6]).distance[0] == pytest.approx(min(errors), rel=0.1)
    assert real.copies(real.differences(real.held_out)) == 0


def test_the_sheet_shows_the_frames_nearest_to_training_frames_and_these() -> None:
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    training, draw = 100 + frames, np.random.default_rng(0)
    near = Nearest(draw.permutation(20).astype(float), draw.integers(0, 20, 20))
    first, closest, copied = (images for _, images in sheet_rows("run", frames, training, near))
    count, order = len(closest), np.argsort(near.distance)
    assert 1 < count < 20 and first[:, 0, 0, 0].tolist() == list(range(count))
    np.testing.assert_array_equal(closest, frames[order[:count]])
    np.testing.assert_array_equal(copied, training[near.position[order[:count]]])


def test_held_out_frames_are_as_good_as_held_out_frames(runs: tuple[Path, Path]) -> None:
    checkpoint, real = load_checkpoint(runs[0]), real_frames(runs[0])
    row, _ = measure_generated(checkpoint, real.held_out, real, seed=0)
    found = row.features["encoder"]
    assert row.fine_energy == pytest.approx(1)
    assert found.frechet == pytest.approx(0, abs=1e-6) and found.nearer == pytest.approx(0.5)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_fine_energy_is_that_of_the_mean_spectra(runs: tuple[Path, Path]) -> None:
    real = real_frames(runs[0])
    blurred = np.repeat(real.training.mean((1, 2), keepdims=True).astype(np.uint8), tiny.SIZE, 1).repeat(tiny.SIZE, 2)
    sharp = real.training // 2

    def fine(frames: np.ndarray) -> float:
        images = np.float32(frames.transpose(0, 3, 1, 2)) / 255
        return float(spectrum(torch.from_numpy(images))[:, 2:].sum(1).mean())

    assert real.fine_energy(sharp) == pytest.approx(fine(sharp) / fine(real.held_out), rel=1e-4)
    assert real.fine_energy(blurred) < 0.01


def test_a_code_of_positions_is_pooled(runs: tuple[Path, Path], store: FrameStore) -> None:
    checkpoint = load_checkpoint(runs[1])
    found = encoder_features(checkpoint, store.frames[:4])
    code = checkpoint.encoder(torch.from_numpy(np.float32(store.frames[:4].transpose(0, 3, 1, 2)) / 255))
    mean = code[:, 0].detach().numpy().reshape(4, 16, 5)
    assert found == pytest.approx(np.concatenate([mean.mean(1), mean.std(1, ddof=1)], 1), abs=1e-4)


@needs_lite0
def test_features_of_lite0_are_measured_first(runs: tuple[Path, Path], store: FrameStore) -> None:
    result = measured(runs[0], features=None, count=6)
    assert list(result.spaces) == list(result.sets[0].features) == ["lite0", "encoder"]
    assert result.dimensions["lite0"] == 320
    network = load_lite0("This test", [LAST_BLOCK])
    whole = lite0_features(network, store.frames[:40])
    assert whole.shape == (40, 320)
    enlarged = np.stack([cv2.resize(one, (224, 224), interpolation=cv2.INTER_LINEAR) for one in store.frames[:2]])
    expected = network(torch.from_numpy(enlarged.transpose(0, 3, 1, 2) / np.float32(255)))[-1].mean((2, 3))
    np.testing.assert_allclose(whole[:2], expected, atol=1e-3)
    assert lite0_features(network, store.frames[33:40]) == pytest.approx(whole[33:], abs=1e-3)


def test_without_the_extra_the_encoder_is_left(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.errors.find_spec", lambda name: None)
    for default in ({"features": None}, {"features": "lite0"}):
        with pytest.raises(InputError, match=r"pretrained.*pip install"):
            measured(runs[0], **default)
    assert measured(runs[0], count=6).sets[1].count == 6


@pytest.mark.parametrize("count", [5, 0, -1, 10_001])
def test_a_count_that_cannot_be_measured_is_refused(runs: tuple[Path, Path], count: int) -> None:
    with pytest.raises(InputError, match="from 6 to 10,000"):
        measured(runs[0], count=count)


def test_a_run_of_other_frames_is_refused(
    runs: tuple[Path, Path], store: FrameStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("others")
    for name, split in (("seed", {**SPLIT, "seed": 1}), ("kind", {**SPLIT, "train_on": "both"})):
        run = train_endovae(tiny.endovae(frames=str(store.path), split=split, training={"epochs": 1}), run=folder / name)
        with pytest.raises(InputError, match=rf"{run} was trained on other frames"):
            measured(runs[0], against=[run])
    both = measured(folder / "kind")
    assert both.kind == "both" and both.held_out > 7


def test_a_run_with_too_few_held_out_frames_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match=r"3 test frames .* 6 of each"):
        measured(run)
    assert not (run / "generation.json").exists()


def test_nothing_is_written_while_the_run_is_locked(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copied = shutil.copytree(runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("generation.*"))
    with RunFolder.open(copied).locked("trained"):
        measured(copied, count=6)
    assert not list(copied.glob("generation.*"))
    measured(copied, count=6)
    assert len(list(copied.glob("generation.*"))) == 2
