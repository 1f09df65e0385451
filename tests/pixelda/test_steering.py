"""The weight that holds G to the class of what it redraws, raised while T reads redrawn images worse than the source."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fixtures import tiny
from pixelscope import resume
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder, read_stats


def _run(folder: Path, name: str, **losses: float) -> Path:
    specs = dict(zip(("source", "target"), tiny.write_domains(folder), strict=True))
    config = tiny.pixelda(**specs, losses={"generator_task": 0.1, **losses}, training={"images": 160, "log_every": 8})
    return train_pixelda(config, run=folder / name)


def _weights(run: Path) -> list[float]:
    lines = [line for line in read_stats(RunFolder(run).stats) if line["kind"] == "train"]
    return [line["weight/generator_task"] for line in lines if "weight/generator_task" in line]


def test_a_bound_that_is_never_reached_changes_nothing(tmp_path: Path) -> None:
    bounded, plain = _run(tmp_path, "bounded", task_bound=1e6), _run(tmp_path, "plain")
    assert _weights(bounded) == pytest.approx([0.1] * 20)
    assert _weights(plain) == []
    one, other = (load_file(RunFolder(run).checkpoint_files()[-1]) for run in (bounded, plain))
    assert [name for name in other if not torch.equal(one[name], other[name])] == []


def test_the_weight_grows_by_two_percent_a_step_to_its_greatest(tmp_path: Path) -> None:
    """T reads noise with a label of its own at once, and what an untrained G makes of it never."""
    weights = _weights(_run(tmp_path, "run", task_bound=0.0, task_most=0.12))
    growing = [after / before for before, after in zip(weights, weights[1:], strict=False) if after > before]
    assert growing
    assert all(factor == pytest.approx(1.02, rel=1e-4) for factor in growing[:-1])
    assert max(weights) <= 0.12 + 1e-6
    assert min(weights) >= 0.1 - 1e-6


def test_a_resumed_run_goes_on_with_its_weight(tmp_path: Path) -> None:
    whole = _run(tmp_path, "whole", task_bound=0.0)
    specs = dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))
    losses = {"generator_task": 0.1, "task_bound": 0.0}
    half = train_pixelda(tiny.pixelda(**specs, losses=losses, training={"images": 80, "log_every": 8}), run=tmp_path / "half")
    resume(half, images=160)
    assert _weights(half) == _weights(whole)
    one, other = (load_file(RunFolder(run).checkpoint_files()[-1]) for run in (half, whole))
    assert [name for name in other if not torch.equal(one[name], other[name])] == []
