"""What the loop holds of any task: nothing bad is saved, the best is the first of equals, processes that part are stopped."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fixtures import tiny
from fixtures.processes import fork_ranks
from pixelscope.engine import checkpoint
from pixelscope.engine.config import RuntimeConfig, TrainingConfig
from pixelscope.engine.launch import launch
from pixelscope.engine.loop import Loop, RunIdentity
from pixelscope.engine.task import StepInputs, Task
from pixelscope.errors import TrainingStopped
from pixelscope.rng import StepContext
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.lock import FACTS, Holder
from pixelscope.runs.progress import Silent


class Counting(Task[None]):
    """A weight that counts images; what it loses and how good it is are given by step."""

    def __init__(
        self, losses: Mapping[int, float] | None = None, choices: list[float] | None = None, drift: float = 0.0
    ) -> None:
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.layer.weight)
        self.networks: dict[str, torch.nn.Module] = {"layer": self.layer}
        self.optimizers, self.averages = {}, {}
        self.losses, self.choices, self.drift = dict(losses or {}), list(choices or []), drift

    def inputs(self, context: StepContext) -> StepInputs:
        loss = self.losses.get(context.step, 1.0)
        return StepInputs({"loss": loss, "added": context.batch_size + self.drift * context.rank})

    def compute(self, batch: None, inputs: StepInputs) -> Mapping[str, Tensor]:
        with torch.no_grad():
            self.layer.weight += inputs.number("added")
        return {"loss/layer": torch.as_tensor(inputs.number("loss"))}

    def evaluate(self) -> dict[str, float]:
        return {"quality": self.choices.pop(0)} if self.choices else {}

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        return evaluation.get("quality")


class Unhurried(Fabric):
    """A fabric whose device is not waited for after each step, as a GPU is not."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


def _train(folder: Path, task: Counting, fabric: Fabric, **settings: int) -> RunFolder:
    often = {"batch_size": 2, "images": 16, "log_every": 16, "evaluate_every": 16, "sample_every": 16, "checkpoint_every": 4}
    config = TrainingConfig.model_validate({**often, **settings})
    with RunFolder.create(folder, "run", folder / "run") as run:
        Loop(fabric, task, lambda context: None, run, config, RunIdentity("counting", {}, {}), seed=0).train()
    return run


@pytest.mark.parametrize("bad", range(2, 8))
def test_no_checkpoint_is_written_after_a_number_that_is_not_finite_though_nothing_was_logged_between(
    bad: int, tmp_path: Path
) -> None:
    fabric = Unhurried(accelerator="cpu", devices=1)
    with pytest.raises(TrainingStopped, match=f"not finite at step {bad}"):
        _train(tmp_path, Counting({bad: float("nan")}), fabric)
    written = [checkpoint.load(path)[1].progress.step for path in RunFolder(tmp_path / "run").checkpoint_files()]
    assert written and max(written) == bad // 2 * 2, "the last one before"


def test_a_run_that_is_taken_over_while_a_checkpoint_is_collected_is_left_alone(tmp_path: Path) -> None:
    task, run = Counting(), RunFolder(tmp_path / "run")

    def take(*state: object) -> None:
        if run.checkpoint_files():
            (run.path / FACTS).write_text(json.dumps(asdict(Holder.new("trained"))))

    task.layer.register_state_dict_pre_hook(take)
    with pytest.raises(TrainingStopped, match="taken over"):
        _train(tmp_path, task, tiny.fabric())
    assert [path.name for path in run.checkpoints.iterdir()] == ["images-000000000004.safetensors"]


def test_the_best_is_the_first_of_equals(tmp_path: Path) -> None:
    task = Counting(choices=[0.1, 0.5, 0.5, 0.4, 0.5])
    run = _train(tmp_path, task, tiny.fabric(), evaluate_every=4)
    tensors, header = checkpoint.load(run.checkpoints / "best.safetensors")
    assert (header.progress.images, header.progress.best) == (4, 0.5)
    assert float(tensors["network.layer.weight"]) == 4
    assert [line["images"] for line in read_stats(run.stats) if line["kind"] == "evaluation"] == [0, 4, 8, 12, 16]


class Shown(Silent):
    """A display that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_repeated_warning_is_recorded_each_time_and_shown_less_and_less_often(tmp_path: Path, monkeypatch) -> None:
    shown, task = Shown(), Counting()
    monkeypatch.setattr("pixelscope.engine.loop.training_display", lambda *_: shown)
    task.warnings = lambda stats: [("collapse", "G ignores z."), *([("other", "Once.")] if stats.get("first") else [])]
    task.evaluate = lambda: {"first": 1.0} if not shown.said else {}
    run = _train(tmp_path, task, tiny.fabric(), images=24, log_every=2, evaluate_every=24)
    recorded = [line for line in read_stats(run.stats) if line["kind"] == "warning"]
    assert len(recorded) == 15 and sum(line["cause"] == "collapse" for line in recorded) == 14
    assert [text for text in shown.said if "ignores" in text] == [
        "warning: G ignores z.",
        "warning (2 times so far): G ignores z.",
        "warning (4 times so far): G ignores z.",
        "warning (8 times so far): G ignores z.",
    ]
    assert [text for text in shown.said if "Once" in text] == ["warning: Once."]


def _part(fabric: Fabric, folder: Path) -> None:
    if fabric.is_global_zero:
        (folder / "run").mkdir()
    fabric.barrier()
    config = TrainingConfig(batch_size=2, images=8, log_every=2, evaluate_every=8, sample_every=8, checkpoint_every=4)
    run = RunFolder(folder / "run")
    Loop(fabric, Counting(drift=1e-6), lambda context: None, run, config, RunIdentity("counting", {}, {}), seed=0).train()


def test_processes_whose_weights_part_write_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    runtime = RuntimeConfig(devices=2, accelerator="cpu", threads=1)
    with pytest.raises(TrainingStopped, match="different weights"):
        launch(runtime, _part, tmp_path)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
