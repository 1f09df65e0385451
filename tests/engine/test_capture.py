"""Captured steps: the code on static tensors is driven without a graph here, and with graphs where there is a GPU."""

import copy
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from contracts.cases import TASKS, TaskCase
from fixtures import tiny
from pixelscope.data.disk_array import DiskArray
from pixelscope.data.loader import DeviceImages
from pixelscope.endovae.data import AugmentedBatches
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine import checkpoint
from pixelscope.engine.capture import CapturedSteps, EagerSteps, StaticTensors, restoring
from pixelscope.engine.config import TrainingConfig
from pixelscope.engine.loop import Loop, RunIdentity
from pixelscope.engine.session import streamed
from pixelscope.engine.task import StepInputs, Task
from pixelscope.errors import InputError
from pixelscope.rng import StepContext
from pixelscope.runs.folder import RunFolder, read_stats

STEPS = 50
KINDS = ("pixelda", "baseline", "refinement", "endovae", "endovae, adversarial")
DEVICES = [
    pytest.param("cpu", id="cpu"),
    pytest.param("cuda", marks=pytest.mark.gpu, id="gpu"),
]
every_device = pytest.mark.parametrize("device", DEVICES)
every_task = pytest.mark.parametrize("case", [case for case in TASKS if case.name in KINDS], ids=lambda case: case.name)


def _context(step: int, device: str = "cpu", log_now: bool = False) -> StepContext:
    return StepContext(step * 8, step, 8, seed=0, device=torch.device(device), log_now=log_now)


def _captured(case: TaskCase, device: str) -> tuple[Task[Any], CapturedSteps[Any]]:
    task, batches = case.build(device)
    return task, CapturedSteps(task, batches, torch.device(device), pytest.fail)


class Gradients:
    """The gradients that optimizers last stepped on, of all networks in one tensor; read from Adam's first moments."""

    def __init__(self, task: Task[Any], betas: Mapping[str, float]) -> None:
        self.task, self.betas = task, betas

    def moments(self) -> dict[str, Tensor]:
        return {
            name: torch.cat([values["exp_avg"].flatten().double() for values in optimizer.state.values()])
            for name, optimizer in self.task.optimizers.items()
            if optimizer.state
        }

    def since(self, before: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(
            [now - self.betas[name] * before.get(name, torch.zeros_like(now)) for name, now in self.moments().items()]
        )


def _gradients(task: Task[Any]) -> Gradients:
    return Gradients(task, {name: optimizer.param_groups[0]["betas"][0] for name, optimizer in task.optimizers.items()})


@every_device
@every_task
def test_a_captured_step_is_the_eager_step(case: TaskCase, device: str) -> None:
    """Each of 50 steps starts from the state of the eager run."""
    eager, batches = case.build(device)
    steps, (task, captured) = EagerSteps(eager, batches), _captured(case, device)
    captured(_context(0, device))  # both branches are made before states are copied from one to the other
    captured(_context(1, device))
    for step in range(STEPS):
        context = _context(step, device, log_now=step % 10 == 9)
        if step:
            for name, tensor in checkpoint.state(task).items():
                tensor.copy_(checkpoint.state(eager)[name])
        else:
            fresh = checkpoint.state(case.build(device)[0])
            for name, tensor in checkpoint.state(task).items():
                _ = tensor.copy_(fresh[name]) if name in fresh else tensor.zero_()
        gradients = [_gradients(one) for one in (eager, task)]
        before = [one.moments() for one in gradients]
        expected, found = (one(context).unpack() for one in (steps, captured))
        assert expected.keys() == found.keys()
        for name in (name for name in expected if name.startswith("loss/")):
            torch.testing.assert_close(found[name], expected[name], rtol=0.01, atol=1e-4, msg=f"{name} at step {step}")
        ours, theirs = (one.since(was) for one, was in zip(gradients, before, strict=True))
        assert float(torch.cosine_similarity(ours, theirs, 0)) > 0.999, f"step {step}"


@every_task
def test_static_tensors_change_no_bit_of_the_weights_on_a_cpu(case: TaskCase) -> None:
    eager, batches = case.build()
    steps, (task, captured) = EagerSteps(eager, batches), _captured(case, "cpu")
    for step in range(20):
        context = _context(step, log_now=step % 5 == 4)
        steps(context)
        captured(context)
    expected, found = checkpoint.state(eager), checkpoint.state(task)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        if name.startswith("average.") or case.name == "refinement":  # the average's weight is a tensor, rounded otherwise
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        else:
            assert torch.equal(found[name], tensor), name


def _train(folder: Path, case: TaskCase, device: str, images: int, resumed: bool = False) -> RunFolder:
    task, batches = case.build(device)
    fabric = tiny.fabric(accelerator=device)
    often = {"log_every": 40, "evaluate_every": 200, "sample_every": 400, "checkpoint_every": 80}
    config = TrainingConfig(batch_size=8, images=images, **often)
    with nullcontext(RunFolder(folder)) if resumed else RunFolder.create(folder.parent, "run", folder) as run:
        loop = Loop(fabric, task, batches, run, config, RunIdentity("any", {}, {}), seed=0, capture=True)
        if resumed:
            run.forget_stats_after(loop.restore())
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            loop.train()
    return run


@every_device
@every_task
def test_killed_and_resumed_is_the_uninterrupted_run_to_the_bit(case: TaskCase, device: str, tmp_path: Path) -> None:
    """The second run is cut off after 13 steps, and goes on from its last checkpoint, 3 steps before."""
    whole = _train(tmp_path / "whole", case, device, images=240)
    part = _train(tmp_path / "part", case, device, images=104)
    part.checkpoint_files()[-1].unlink()
    assert checkpoint.load(part.checkpoint_files()[-1])[1].progress.step == 10
    _train(tmp_path / "part", case, device, images=240, resumed=True)
    expected, found = (checkpoint.load(run.checkpoint_files()[-1])[0] for run in (whole, part))
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    clock = {"seconds", "images_per_second"}
    lines = [[{k: v for k, v in line.items() if k not in clock} for line in read_stats(run.stats)] for run in (whole, part)]
    assert lines[0] == lines[1]


@every_device
@every_task
def test_what_steps_move_is_put_back_in_place(case: TaskCase, device: str) -> None:
    task, batches = case.build(device)
    before = copy.deepcopy(checkpoint.state(task))
    places = {name: tensor.data_ptr() for name, tensor in checkpoint.state(task).items()}
    with restoring(task):
        for step in range(3):
            task.step(batches(_context(step, device)), _context(step, device))
    after = checkpoint.state(task)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name: after[name].data_ptr() for name in places} == places
    assert not any(bool(after[name].any()) for name in after.keys() - before.keys()), "what optimizers made is at its start"


@every_device
def test_statistics_of_the_average_are_updated_every_eighth_step_alone(device: str) -> None:
    case = next(case for case in TASKS if case.name == "pixelda")
    task, captured = _captured(case, device)
    updates = []
    for step in range(17):
        captured(_context(step, device))
        tensors = checkpoint.weights(task)
        updates.append(int(tensors["average.generator.blocks.0.layers.1.num_batches_tracked"]))
    assert updates == [1] * 8 + [2] * 8 + [3]


COMPILED = [
    pytest.param("baseline", "cpu", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"), id="cpu"),
    pytest.param("baseline", "cuda", marks=pytest.mark.gpu, id="gpu"),
    pytest.param("pixelda", "cuda", marks=pytest.mark.gpu, id="gpu, noise of D"),
    pytest.param("refinement", "cuda", marks=pytest.mark.gpu, id="gpu, views and dropout"),
]


@pytest.mark.filterwarnings("ignore")  # the compiler asks tensors for gradients that they do not have, and warns of itself
@pytest.mark.parametrize(("name", "device"), COMPILED)
def test_compiled_passes_take_the_eager_step(name: str, device: str) -> None:
    """Draws included: they are made outside the compiler, from the step's generators."""
    case = next(case for case in TASKS if case.name == name)
    eager, batches = case.build(device)
    steps, (task, captured) = EagerSteps(eager, batches), _captured(case, device)
    task.compile()
    for step in range(3):
        context = _context(step, device, log_now=step == 1)
        expected, found = steps(context).unpack(), captured(context).unpack()
        assert expected.keys() == found.keys()
        for number in (number for number in expected if number.startswith(("loss/", "gradient/"))):
            torch.testing.assert_close(found[number], expected[number], rtol=0.01, atol=1e-4, msg=f"{number} at step {step}")
    assert not any("_orig_mod" in key for key in checkpoint.state(task)), "names stay"


def test_static_tensors_stay_where_they_are_and_hold_what_was_copied() -> None:
    values = {
        "positions": torch.arange(3),
        "z": torch.rand(2, 5),
        "flip": torch.tensor([True, False, True]),
        "no": torch.ones(()),
    }
    static = StaticTensors(values, torch.device("cpu"))
    places = {name: tensor.data_ptr() for name, tensor in static.tensors.items()}
    for _ in range(2):
        values = {
            name: torch.ones_like(tensor) if tensor.dtype == torch.bool else tensor + 1 for name, tensor in values.items()
        }
        static.fill(values)
        assert all(torch.equal(static.tensors[name], value) for name, value in values.items())
    assert {name: tensor.data_ptr() for name, tensor in static.tensors.items()} == places


@pytest.mark.parametrize("other", [{"z": torch.ones(2, 4)}, {"z": torch.ones(5)}, {"z": torch.ones(2, 5).int()}, {}])
def test_a_step_that_reads_other_shapes_is_refused(other: dict[str, Tensor]) -> None:
    static = StaticTensors({"z": torch.ones(2, 5)}, torch.device("cpu"))
    with pytest.raises(ValueError, match="the first one read"):
        static.fill(other)


def test_frames_on_disk_are_sent_with_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, frames = tiny.endovae(), tiny.frames()
    np.save(tmp_path / "frames.npy", frames)
    weights = []
    for limit, pixels in ((2**20, frames), (0, DiskArray(tmp_path / "frames.npy"))):
        monkeypatch.setattr("pixelscope.data.loader.RESIDENT_BYTES", limit)
        batches = AugmentedBatches(pixels, None, config.augmentation, 0, torch.device("cpu"))
        assert ("frames/pixels" in batches.read(_context(0))) is (limit == 0)
        task = EndoVAETask(config, tiny.fabric(), frames[:6])
        steps = CapturedSteps(task, batches, torch.device("cpu"), pytest.fail)
        for step in range(4):
            steps(_context(step))
        weights.append(torch.cat([p.detach().flatten() for p in task.encoder.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(("limit", "lines"), [(0, 1), (2**20, 0)])
def test_a_set_too_large_for_the_gpu_is_named(limit: int, lines: int) -> None:
    images = DeviceImages(np.zeros((10, 3, 8, 8), np.uint8), torch.device("meta"), limit)
    said = streamed({"source": images})
    assert len(said) == lines
    assert all("Note on the source" in line for line in said)


class Refusing(Task[None]):
    """Fails in its second step, which is in the warm-up."""

    def __init__(self) -> None:
        self.layer = torch.nn.Linear(1, 1)
        self.networks = {"layer": self.layer}
        self.optimizers, self.averages, self.passes, self.taken = {}, {}, {}, 0

    def inputs(self, context: StepContext) -> StepInputs:
        return StepInputs({"added": 1.0}, branch="even" if context.step % 2 == 0 else "odd")

    def compute(self, batch: None, inputs: StepInputs) -> Mapping[str, Tensor]:
        self.taken += 1
        if self.taken == 2:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        with torch.no_grad():
            self.layer.weight += inputs.number("added")
        return {"loss/layer": torch.zeros(())}

    def evaluate(self) -> dict[str, float]:
        return {}


class NoImages:
    """Batches of a task that takes no images."""

    def __call__(self, context: StepContext) -> None:
        return None

    def read(self, context: StepContext) -> dict[str, Tensor]:
        return {}

    def make(self, read: Mapping[str, Tensor]) -> None:
        return None

    def sets(self) -> dict[str, Any]:
        return {}


def test_a_capture_that_fails_says_so_once_and_training_goes_on() -> None:
    task, said = Refusing(), []
    before = task.layer.weight.item()
    steps = CapturedSteps(task, NoImages(), torch.device("cpu"), said.append)
    for step in range(5):
        steps(_context(step))
    assert task.layer.weight.item() == pytest.approx(before + 5)
    assert task.taken == 2 + 5, "two steps of the first warm-up, and no other warm-up"
    assert len(said) == 1
    assert "RuntimeError: operation not permitted when stream is capturing)" in said[0]


class NotCompiled(Refusing):
    """Raises in each step what the compiler raises."""

    def compute(self, batch: None, inputs: StepInputs) -> Mapping[str, Tensor]:
        raise TorchDynamoException("backend='inductor' raised:\nCppCompileError: no Python.h")


@pytest.mark.parametrize("captured", [True, False])
def test_a_compiler_that_fails_is_named_with_the_fix(captured: bool) -> None:
    task, batches = NotCompiled(), NoImages()
    steps = CapturedSteps(task, batches, torch.device("cpu"), pytest.fail) if captured else EagerSteps(task, batches)
    with pytest.raises(InputError, match="could not be compiled .*CppCompileError: no Python.h.*use --runtime.compile off"):
        steps(_context(0))
