"""benchmarks.gpu at tiny size on any device: what is measured and trained arrives in the JSON and on the page."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.systems import SYSTEMS


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--part", "measure", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "needs a GPU" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_system_is_measured_once_eager_and_captured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--part", "measure", "--tiny", "--out", str(tmp_path)]
    assert main(command) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())["measure"]
    rows = result["rows"]
    assert set(rows) == {f"{name}, {form}" for name in SYSTEMS for form in ("eager", "captured")}
    assert all(row["steps_per_second"] > 0 and "note" not in row for row in rows.values())
    assert rows["endovae, captured"]["epoch_seconds"] > 0
    assert all(rate > 0 for rate in result["ceilings"].values())
    text = (tmp_path / "README.md").read_text()
    assert all(text.count(f"| {system.title} |") == 2 for system in SYSTEMS.values())
    del rows["pixelda, eager"]
    kept = {name: row["steps_per_second"] for name, row in rows.items()}
    (tmp_path / "gpu.json").write_text(json.dumps({"measure": result}))
    capsys.readouterr()
    assert main(command) == 0
    again = json.loads((tmp_path / "gpu.json").read_text())["measure"]["rows"]
    assert {name: again[name]["steps_per_second"] for name in kept} == kept
    assert capsys.readouterr().err == "measuring pixelda, eager\n"


def test_trainings_are_evaluated_and_their_weights_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--part", "train", "--tiny", "--seeds", "3", "--out", str(tmp_path)]
    assert main(command) == 0
    part = json.loads((tmp_path / "gpu.json").read_text())["train"]
    one = part["seeds"]["3"]
    assert one["steps"] == 4 and one["train_seconds"] > 0
    assert set(one["accuracy"]) >= {"source_test", "target_test"}
    weights = load_file(tmp_path / "seed3" / "weights.safetensors")
    networks = {name.split(".")[1] for name in weights}
    assert networks == {"generator", "classifier"}
    assert not list(tmp_path.rglob("images-*.safetensors")), "checkpoints are not kept"
    assert "| 3 | 4 |" in (tmp_path / "README.md").read_text()
    assert main(command) == 0
    assert "has this part already" in capsys.readouterr().err


def test_absent_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.device", lambda: torch.device("cuda"))
    assert main(["--part", "train", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"There is no {tmp_path}/mnist; --data names a folder" in capsys.readouterr().err
