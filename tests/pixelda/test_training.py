"""Whole trainings at tiny size: the run folder, interruptions, resuming to the bit, several processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

import tiny
from pixelscope import evaluate, resume, train_baseline, train_pixelda
from pixelscope.config import read_yaml
from pixelscope.engine import checkpoint
from pixelscope.engine.loop import Identity, Loop
from pixelscope.engine.run import RunFolder, read_stats
from pixelscope.engine.task import Moment
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.task import PairedBatch, PairedBatches, PixelDATask

SCRIPT = """
import sys
from pathlib import Path
from pixelscope import train_pixelda
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.config import read_yaml
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train_pixelda(PixelDAConfig.parse(read_yaml(folder / "settings.yaml")), run=folder / "run")
"""


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, str]:
    return dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))


def _last(run: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run).checkpoint_files()[-1])


def _different(first: Path, second: Path) -> list[str]:
    a, b = _last(first), _last(second)
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def _spawn(folder: Path, config: PixelDAConfig) -> subprocess.Popen[str]:
    config.save(folder / "settings.yaml")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


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


@pytest.mark.parametrize("attempt", range(2))
def test_killed_anywhere_and_resumed_is_the_uninterrupted_run(attempt: int, tmp_path: Path, domains: dict[str, str]) -> None:
    config = tiny.pixelda(
        **domains, training={"images": 2400, "evaluate_every": 480, "sample_every": 480, "checkpoint_every": 160}
    )
    whole = train_pixelda(config, run=tmp_path / "whole")
    process = _spawn(tmp_path, config)
    stats, enough = tmp_path / "run" / "stats.jsonl", random.Random(attempt).randint(200, 2000)
    while process.poll() is None and not (stats.is_file() and _images(stats) >= enough):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    resume(tmp_path / "run")
    assert _different(whole, tmp_path / "run") == []
    kept = ["kind", "images", "loss/generator", "loss/classifier", "accuracy/source_test"]
    history = [
        [{k: line.get(k) for k in kept} for line in read_stats(run / "stats.jsonl")] for run in (whole, tmp_path / "run")
    ]
    assert history[0] == history[1]
    progress = [np.load(run / "samples" / "progress.npz") for run in (whole, tmp_path / "run")]
    assert np.array_equal(progress[0]["generated"], progress[1]["generated"])
    assert RunFolder(tmp_path / "run").read_record()["sittings"] == 2


def _images(stats: Path) -> int:
    lines = stats.read_text().split("\n")[:-1]
    return json.loads(lines[-1])["images"] if lines else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: int, tmp_path: Path, domains: dict[str, str]) -> None:
    process = _spawn(
        tmp_path, tiny.pixelda(**domains, training={"images": 800_000, "evaluate_every": 800_000, "sample_every": 800_000})
    )
    stats = tmp_path / "run" / "stats.jsonl"
    while process.poll() is None and not (stats.is_file() and _images(stats) >= 64):
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    folder = RunFolder.open(tmp_path / "run")
    assert f"go on with --resume {folder.path}" in output
    assert folder.read_record()["state"] == "stopped"
    _, header = checkpoint.load(folder.checkpoint_files()[-1])
    assert header.progress.images == folder.read_record()["images"] >= 64
    more = resume(tmp_path / "run", images=header.progress.images + 16)
    assert RunFolder(more).read_record()["state"] == "finished"


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


def test_two_processes_agree_with_one(tmp_path: Path, domains: dict[str, str]) -> None:
    """The same global batch; noise and dropout are off, because each rank draws its own."""
    quiet = {"discriminator": {"noise_std": 0.0, "dropout": 0.0}, "training": {"images": 48}}
    one = train_pixelda(tiny.pixelda(**domains, **quiet), run=tmp_path / "one")
    two = train_pixelda(tiny.pixelda(**domains, **quiet, runtime={"devices": 2}), run=tmp_path / "two")
    first, second = _last(one), _last(two)
    moved = 0
    for name, tensor in first.items():
        if name.startswith("network."):
            torch.testing.assert_close(
                second[name], tensor, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
            )
            moved += 1
    assert moved > 20
    assert RunFolder(two).read_record()["runtime"]["devices"] == 2
    losses = [
        [line["loss/generator"] for line in read_stats(run / "stats.jsonl") if line["kind"] == "train"] for run in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_may_be_resumed_with_another_number_of_processes(tmp_path: Path, domains: dict[str, str]) -> None:
    run = train_pixelda(tiny.pixelda(**domains, training={"images": 32}), run=tmp_path / "run")
    resume(run, devices=2, images=64)
    assert RunFolder(run).read_record()["images"] == 64


def test_errors_of_a_spawned_process_arrive_as_themselves(tmp_path: Path, domains: dict[str, str]) -> None:
    config = tiny.pixelda(**domains, runtime={"devices": 2}, training={"batch_size": 9})
    with pytest.raises(InputError, match="A batch of 9 cannot be divided among 2 devices"):
        train_pixelda(config, run=tmp_path / "run")


def test_existing_folders_and_absent_runs_are_refused(tmp_path: Path, domains: dict[str, str]) -> None:
    config = tiny.pixelda(**domains)
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken exists already.*--resume"):
        train_pixelda(config, run=tmp_path / "taken")
    with pytest.raises(InputError, match="not a run folder"):
        resume(tmp_path / "taken")
    assert list((tmp_path / "taken").iterdir()) == []


@pytest.fixture
def finished(tmp_path: Path, domains: dict[str, str]) -> Path:
    return train_pixelda(tiny.pixelda(**domains, training={"images": 32}), run=tmp_path / "run")


def test_a_checkpoint_of_another_configuration_is_refused(finished: Path) -> None:
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("discriminator: 0.13", "discriminator: 0.5"))
    with pytest.raises(InputError, match="made with another configuration than its config.yaml"):
        resume(finished, images=64)


def test_other_images_are_refused_on_resuming(finished: Path, tmp_path: Path) -> None:
    images, labels = tiny.pictures(60, seed=9)
    np.savez(tmp_path / "source.npz", images=images, labels=labels)
    with pytest.raises(InputError, match="SHA-256 differs"):
        resume(finished, images=64)


def test_a_cut_off_checkpoint_can_be_deleted_to_go_on_from_the_one_before(tmp_path: Path, domains: dict[str, str]) -> None:
    run = train_pixelda(tiny.pixelda(**domains), run=tmp_path / "run")
    newest = RunFolder(run).checkpoint_files()[-1]
    complete = newest.read_bytes()
    newest.write_bytes(complete[:-100])
    with pytest.raises(InputError, match="damaged or cut off"):
        resume(run)
    newest.unlink()
    resume(run)
    assert all(torch.equal(tensor, _last(run)[name]) for name, tensor in load(complete).items())


def test_best_by_source_validation_is_kept(tmp_path: Path, domains: dict[str, str]) -> None:
    held_out: dict[str, Any] = {"data": {"validation_fraction": 0.25}}
    run = train_pixelda(tiny.pixelda(**domains, **held_out), run=tmp_path / "run")
    assert RunFolder(run).read_record()["data"]["source"]["validation"] == 12
    points = [line for line in read_stats(run / "stats.jsonl") if line["kind"] == "evaluation"]
    best = max(points, key=lambda line: line["accuracy/source_validation_ema"])
    _, header = checkpoint.load(run / "checkpoints" / "best.safetensors")
    assert header.progress.best == best["accuracy/source_validation_ema"]
    assert "best-source" in evaluate(run).rules


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


def test_git_and_command_say_nothing_of_the_machine(tmp_path: Path, domains: dict[str, str]) -> None:
    run = train_pixelda(tiny.pixelda(**domains, training={"images": 16}), run=tmp_path / "run")
    assert not RunFolder(run).read_record()["command"].startswith(os.sep)
