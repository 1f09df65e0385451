"""Each command calls the public API and prints what it returns; --json prints JSON and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from PIL import Image

from pixelscope.cli.options import PixelDACheckpoint
from pixelscope.pixelda.checkpoints import CHECKPOINTS

Cli = Callable[..., Any]


def test_data_info_tells_what_a_folder_holds(cli: Cli, images: Path, tmp_path: Path) -> None:
    done = cli("data", "info", images / "source", "--json", "--sheet", tmp_path / "sheet.png")
    assert done.code == 0
    described = json.loads(done.out)
    assert described["classes"] == {"dark": 10, "grey": 10, "light": 10}
    assert (described["count"], described["sizes"]) == (30, {"16 x 16": 30})
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) >= 16


def test_data_info_speaks_to_people(cli: Cli, images: Path) -> None:
    done = cli("data", "info", images / "target")
    assert done.code == 0
    assert "30" in done.out
    assert "grey" in done.out


@pytest.mark.parametrize(
    ("system", "parameters"), [("pixelda", 359_290), ("baseline", 359_290), ("endovae", 9_842_380), ("endovae", 1_282_467)]
)
def test_summary_counts_parameters(cli: Cli, system: str, parameters: int) -> None:
    done = cli("summary", system, "--json")
    assert done.code == 0
    assert parameters in _numbers(json.loads(done.out))
    assert f"{parameters:,}" in cli("summary", system).out


def test_summary_follows_the_settings(cli: Cli) -> None:
    assert cli("summary", "pixelda", "--json").out != cli("summary", "pixelda", "--json", "--generator.blocks", "3").out
    assert cli("summary", "pixelda", "--preset", "demo").out != cli("summary", "pixelda").out


@pytest.mark.parametrize("command", ["train --generator.width 4 --discriminator.width 4", "baseline"])
def test_dry_run_tells_the_plan_and_makes_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("pixelda", *command.split(), "--preset", "demo", "--dry-run", "--training.images", "4321", "--seed", "77")
    assert done.code == 0
    assert "4321" in done.out or "4,321" in done.out
    assert "77" in done.out
    assert list(tmp_path.iterdir()) == []


def test_train_makes_a_run_folder_with_the_resolved_settings(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["generator"] == {"noise": "uniform", "noise_dim": 10, "blocks": 1, "width": 4, "conditioned": True}
    assert json.loads((trained / "run.json").read_text())["state"] == "finished"


def test_runs_are_numbered_in_the_folder_of_runs(cli: Cli, images: Path, tmp_path: Path) -> None:
    settings = ("--data.size", "16", "--training.batch-size", "4", "--training.images", "8", "--runtime.threads", "1")
    done = cli("pixelda", "baseline", "--source", f"folder:{images / 'source'}", *settings, "--runs", tmp_path / "runs")
    assert done.code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("00000-baseline")
    assert f"Run folder: {run}\n" in done.out


def test_evaluate_prints_json_and_nothing_else(cli: Cli, trained: Path) -> None:
    done = cli("pixelda", "evaluate", trained, "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert set(result["sets"]) >= {"source_test", "target_test"}
    assert result == json.loads((trained / "evaluation.json").read_text())


def test_evaluate_prints_a_table(cli: Cli, trained: Path) -> None:
    done = cli("pixelda", "evaluate", trained, "--checkpoint", "last")
    assert done.code == 0
    assert "last" in done.out
    assert "source_test" in done.out


def test_every_checkpoint_of_evaluation_is_offered() -> None:
    assert get_args(get_args(PixelDACheckpoint)[0]) == ("auto", *CHECKPOINTS)


def test_report_prints_where_it_is(cli: Cli, trained: Path) -> None:
    done = cli("report", trained)
    assert done.code == 0
    assert done.out.strip() == str(trained / "report.html")
    assert (trained / "report.html").stat().st_size > 10_000


def test_resume_goes_on_with_a_finished_run(cli: Cli, tiny_training: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli(*tiny_training, "--training.images", "8", "--out", run).code == 0
    threads = json.loads((run / "run.json").read_text())["runtime"]["threads"] + 1
    done = cli("pixelda", "train", "--resume", run, "--training.images", "16", "--runtime.threads", threads)
    assert done.code == 0
    record = json.loads((run / "run.json").read_text())
    assert (record["images"], record["runtime"]["threads"]) == (16, threads)


def test_a_run_is_not_resumed_to_a_shorter_training_than_it_has_had(
    cli: Cli, tiny_training: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert cli(*tiny_training, "--training.images", "16", "--out", run).code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused = cli("pixelda", "train", "--resume", run, "--training.images", "8")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert cli("pixelda", "train", "--resume", run, "--training.images", "13").code == 0, "13 images are as many steps as 16"


def _numbers(value: object) -> list[object]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in _numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in _numbers(inner)]
    return [value]


def test_resume_takes_a_new_place_of_the_same_images(cli: Cli, images: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(images / "source", tmp_path / "moved")
    done = cli("pixelda", "train", "--resume", tmp_path / "run", "--source", tmp_path / "moved")
    assert done.code == 0, done.err
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["source"] == str(tmp_path / "moved")
    before = (tmp_path / "run" / "config.yaml").read_text()
    done = cli("pixelda", "train", "--resume", tmp_path / "run", "--source", images / "target")
    assert done.code == 2
    assert "SHA-256" in done.err
    assert (tmp_path / "run" / "config.yaml").read_text() == before
