"""Whole trainings of PixelDA at tiny size; what holds for every system is in contracts/test_trainings.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from pixelscope import evaluate, train_baseline, train_pixelda
from pixelscope.config import read_yaml
from pixelscope.engine import checkpoint
from pixelscope.engine.loop import Identity, Loop
from pixelscope.engine.run import RunFolder, read_stats
from pixelscope.engine.task import Moment
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.pixelda.baseline import BaselineTask
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.task import PairedBatch, PairedBatches, PixelDATask


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))


def test_a_run_folder_holds_everything(tmp_path: Path, domains: dict[str, str]) -> None:
    run = train_pixelda(tiny.pixelda(**domains), runs=tmp_path / "runs")
    folder = RunFolder.open(run)
    assert run.name == "00000-pixelda-arrays-to-arrays-seed0"
    assert PixelDAConfig.parse(read_yaml(folder.config)) == tiny.pixelda(**domains)
    record = folder.read_record()
    assert record["state"] == "finished"
    assert (record["images"], record["steps"]) == (96, 12)
    assert record["classes"] == ["0", "1", "2"]
    assert record["data"]["source"]["train"] == 48 and record["data"]["target"]["test"] == 12
    assert {"pixelscope", "torch", "python"} <= record["versions"].keys()
    lines = read_stats(folder.stats)
    assert [line["images"] for line in lines if line["kind"] == "train"] == [16, 32, 48, 64, 80, 96]
    assert [line["images"] for line in lines if line["kind"] == "evaluation"] == [0, 48, 96]
    assert not any("target" in name for line in lines for name in line)
    assert [path.stem for path in sorted(folder.classifiers.iterdir())] == ["000000000000", "000000000048", "000000000096"]
    with np.load(folder.samples / "progress.npz") as samples:
        assert samples["images"].tolist() == [0, 48, 96]
        assert samples["generated"].shape == (3, 3, 16, 16, 3)
    assert [path.name for path in folder.checkpoint_files()] == [f"images-{n:012d}.safetensors" for n in (64, 96)]
    again = train_pixelda(tiny.pixelda(**domains, training={"images": 16}), runs=tmp_path / "runs")
    assert again.name.startswith("00001-")


def test_a_number_that_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    config, fabric = tiny.pixelda(training={"checkpoint_every": 16}), tiny.fabric()
    task = PixelDATask(config, 3, fabric)
    batches = PairedBatches(tiny.image_set(), tiny.image_set(seed=1), 0, fabric.device)

    def broken_from_the_fifth_step(moment: Moment) -> PairedBatch:
        batch = batches(moment)
        return replace(batch, target=batch.target * float("nan")) if moment.step >= 5 else batch

    folder = RunFolder.create(tmp_path, "run")
    loop = Loop(fabric, task, broken_from_the_fifth_step, folder, config.training, Identity("pixelda", {}, {}), seed=0)
    message = r"The gradient of the (discriminator|generator) is not finite at step 5; the last good checkpoint is kept"
    with pytest.raises(TrainingStopped, match=message):
        loop.train()
    files = folder.checkpoint_files()
    assert [file.stem for file in files] == ["images-000000000016", "images-000000000032"]
    assert all(bool(torch.isfinite(tensor).all()) for file in files for tensor in load_file(file).values())


def test_best_by_source_validation_is_kept(tmp_path: Path, domains: dict[str, str]) -> None:
    held_out: dict[str, Any] = {"data": {"validation_fraction": 0.25}}
    run = train_pixelda(tiny.pixelda(**domains, **held_out), run=tmp_path / "run")
    assert RunFolder(run).read_record()["data"]["source"]["validation"] == 12
    points = [line for line in read_stats(run / "stats.jsonl") if line["kind"] == "evaluation"]
    best = max(points, key=lambda line: line["accuracy/source_validation_ema"])
    _, header = checkpoint.load(run / "checkpoints" / "best.safetensors")
    assert header.progress.best == best["accuracy/source_validation_ema"]
    assert "best-source" in evaluate(run).rules


def test_a_baselines_best_is_chosen_by_the_weights_that_are_measured() -> None:
    task = BaselineTask(tiny.baseline(), 3, tiny.fabric())
    numbers = {"accuracy/source_validation": 0.9, "accuracy/source_validation_ema": 0.5}
    assert task.choice(numbers) == 0.5, "best-source measures the average"
    assert task.choice({"accuracy/source_validation": 0.9}) == 0.9, "no average is kept"
    assert task.choice({}) is None


def test_a_baseline_learns_and_is_copied_into_the_run_that_names_it(tmp_path: Path, domains: dict[str, str]) -> None:
    before = train_baseline(
        tiny.baseline(**domains, training={"images": 960, "evaluate_every": 480}), run=tmp_path / "baseline"
    )
    with pytest.raises(InputError, match="not an evaluated baseline"):
        train_pixelda(tiny.pixelda(**domains), run=tmp_path / "run", baseline=before)
    result = evaluate(before)
    assert result.sets["source_test"].accuracy > 0.9
    run = train_pixelda(tiny.pixelda(**domains, training={"images": 16}), run=tmp_path / "run", baseline=before)
    shutil.rmtree(before)
    assert json.loads((run / "baseline" / "evaluation.json").read_text())["system"] == "baseline"


def test_the_average_of_g_keeps_statistics_of_its_own() -> None:
    made = PixelDATask(tiny.pixelda(source="s", target="t"), 3, tiny.fabric())
    images = torch.rand(8, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for step in range(24):
        made.step(PairedBatch(images, torch.arange(8) % 3, images), Moment(8 * step, step, 8, 0))
    average, network = (
        [tensor for name, tensor in holder.state_dict().items() if name.endswith("running_mean")]
        for holder in (made.averages["generator"].network, made.generator)
    )
    assert average and all(tensor.abs().max() > 0 for tensor in average)
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(average, network, strict=True))
