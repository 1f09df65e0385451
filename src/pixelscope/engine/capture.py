"""Runs training steps eagerly, or captures them once as CUDA graphs and replays them (docs/decisions/0018)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pixelscope.engine import checkpoint
from pixelscope.engine.monitor import StepNumbers
from pixelscope.engine.task import StepInputs, Task
from pixelscope.errors import InputError
from pixelscope.rng import StepContext

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)
Work = Callable[[], StepNumbers]

WARM_UP = 3
"""Steps before a capture, in which libraries choose kernels and the compiler compiles; the task is restored afterwards."""
ALIGNMENT = 16
"""Alignment of static tensors in bytes."""


class Batches(Protocol[Batch_co]):
    """Returns this rank's shard of the batch at a given step, in one call or in two halves; deterministic."""

    def __call__(self, context: StepContext) -> Batch_co:
        """Return the batch on the training device."""
        ...

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return the tensors that `make` needs, on the CPU; names, shapes and types are the same for every step."""
        ...

    def make(self, read: Mapping[str, Tensor]) -> Batch_co:
        """Make the batch from the tensors of `read`, moved to the training device, without synchronizing with it."""
        ...

    def sets(self) -> Mapping[str, "ImagesOfStep"]:
        """Return the sets from which batches are taken, by name."""
        ...


class ImagesOfStep(Protocol):
    """A set of images that is on the training device, or too large for it."""

    device: torch.device

    @property
    def resident(self) -> bool:
        """Return whether the images are on the training device."""
        ...

    @property
    def nbytes(self) -> int:
        """Return the size of all images."""
        ...


class EagerSteps(Generic[Batch]):
    """Runs each step as PyTorch does by default: one launch per operation."""

    def __init__(self, task: Task[Batch], batches: Batches[Batch]) -> None:
        self.task, self.batches = task, batches

    def __call__(self, context: StepContext) -> StepNumbers:
        """Take the step at `context`."""
        batch = self.batches(context)
        try:
            return StepNumbers.pack(self.task.step(batch, context))
        except RuntimeError as error:
            _raise_if_compiler(error)
            raise


class CapturedSteps(Generic[Batch]):
    """Captures the steps of each branch once, with their data, as a CUDA graph, and replays it: one launch per step.

    Before a replay, all values that differ between steps are copied into static tensors, and each generator is seeded. Logged
    steps run the same code eagerly on the same tensors. So do all steps on a CPU, which has no graphs, and all steps after a
    failed capture. Whether a step is captured depends on its context only, so a resumed run is bit-identical.
    """

    def __init__(self, task: Task[Batch], batches: Batches[Batch], device: torch.device, say: Callable[[str], object]) -> None:
        """say: called once with the reason if the capture fails."""
        self.task, self.batches, self.device, self.say = task, batches, device, say
        self.failed = False
        self._static: StaticTensors | None = None
        self._generators: dict[str, torch.Generator] = {}
        self._replays: dict[str, Work] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, context: StepContext) -> StepNumbers:
        """Take the step at `context`."""
        read, inputs = self.batches.read(context), self.task.inputs(context)
        static = self._fill(read, inputs)
        work = partial(self._work, static, replace(inputs, **self._static_inputs(static, inputs)))
        if inputs.log_now or self.failed:
            self._seed(inputs)
            return work()
        if inputs.branch not in self._replays:
            self._replays[inputs.branch] = self._record(work, inputs)
        self._seed(inputs)
        return self._replays[inputs.branch]()

    def _work(self, static: Mapping[str, Tensor], inputs: StepInputs) -> StepNumbers:
        """Take one step on static tensors."""
        batch = self.batches.make(checkpoint.under(static, "batch/"))
        return StepNumbers.pack(self.task.compute(batch, inputs))

    def _fill(self, read: Mapping[str, Tensor], inputs: StepInputs) -> Mapping[str, Tensor]:
        """Copy the inputs of a step into the static tensors, in one copy, and return these."""
        values = {f"batch/{name}": tensor for name, tensor in read.items()}
        values |= {f"tensor/{name}": tensor for name, tensor in inputs.tensors.items()}
        values["numbers"] = torch.tensor([float(value) for value in inputs.numbers.values()], dtype=torch.float64)
        if self._static is None:
            self._static = StaticTensors(values, self.device)
        self._static.fill(values)
        return self._static.tensors

    def _static_inputs(self, static: Mapping[str, Tensor], inputs: StepInputs) -> dict[str, Any]:
        for purpose in inputs.generators.keys() - self._generators.keys():
            self._generators[purpose] = torch.Generator(self.device)
        return {
            "numbers": dict(zip(inputs.numbers, static["numbers"].unbind(), strict=True)),
            "tensors": checkpoint.under(static, "tensor/"),
            "generators": self._generators,
        }

    def _seed(self, inputs: StepInputs) -> None:
        """Set each generator to the start of this step's draws, which are the same as in the eager step."""
        for purpose, generator in inputs.generators.items():
            self._generators[purpose].manual_seed(generator.initial_seed())

    def _record(self, work: Work, inputs: StepInputs) -> Work:
        """Return a graph that replays `work`; on a CPU, or if the capture fails, `work` itself."""
        try:
            with restoring(self.task):
                self._seed(inputs)
                self._warm_up(work)
                self._seed(inputs)
                return work if self._stream is None else self._capture(work)
        except RuntimeError as error:
            _raise_if_compiler(error)
            self.failed = True
            # The old generators may still count as captured; `work` reads the new ones from the same dictionary.
            self._generators |= {purpose: torch.Generator(self.device) for purpose in self._generators}
            reason = " ".join(str(error).split("\n", 1)[0].split())
            self.say(f"Steps cannot be captured ({type(error).__name__}: {reason}); training continues without, more slowly.")
            return work

    def _warm_up(self, work: Work) -> None:
        if self._stream is None:
            for _ in range(WARM_UP):
                work()
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def _capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators.values():
            graph.register_generator_state(generator)
        assert self._stream is not None
        # Thread-local, because another thread may read images from disk during the capture.
        whole = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
        with _capturable(self.task), whole:
            numbers = work()

        def replay() -> StepNumbers:
            graph.replay()
            return numbers

        return replay


class StaticTensors:
    """Tensors at fixed addresses on a device, all filled from the CPU in one copy."""

    def __init__(self, like: Mapping[str, Tensor], device: torch.device) -> None:
        """Allocate tensors with the shapes and types of `like`, which may be on any device."""
        self._shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in like.items()}
        self._device = device
        size = sum(_padded(tensor.nbytes) for tensor in like.values())
        self._buffer = torch.zeros(size, dtype=torch.uint8, device=device)
        self.tensors: Mapping[str, Tensor] = self._views(self._buffer)

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy `values`, on the CPU, into the tensors; raises ValueError if names, shapes or types have changed."""
        given = {name: (tensor.shape, tensor.dtype) for name, tensor in values.items()}
        if given != self._shapes:
            raise ValueError(f"a step reads {given}, and the first one read {self._shapes}")
        # PyTorch reuses pinned memory only after the copy from it is done, so there is no need to wait here.
        staged = torch.empty(len(self._buffer), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        for name, view in self._views(staged).items():
            view.copy_(values[name])
        self._buffer.copy_(staged, non_blocking=True)

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        views, start = {}, 0
        for name, (shape, dtype) in self._shapes.items():
            size = shape.numel() * dtype.itemsize
            views[name] = buffer[start : start + size].view(dtype).view(shape)
            start += _padded(size)
        return views


@contextmanager
def restoring(task: Task[Any]) -> Iterator[None]:
    """Restore every tensor of `task` after the block; state that an optimizer adds in it is set to 0, its initial value."""
    before = {name: tensor.clone() for name, tensor in checkpoint.state(task).items()}
    try:
        yield
    finally:
        for optimizer in task.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        for name, tensor in checkpoint.state(task).items():
            _ = tensor.copy_(before[name]) if name in before else tensor.zero_()


@contextmanager
def _capturable(task: Task[Any]) -> Iterator[None]:
    """Mark optimizers as capturable; fused ones compute the same either way, but refuse a capture without the mark."""
    groups = [group for optimizer in task.optimizers.values() for group in optimizer.param_groups]
    before = [group["capturable"] for group in groups]
    try:
        for group in groups:
            group["capturable"] = True
        yield
    finally:
        for group, was in zip(groups, before, strict=True):
            group["capturable"] = was


def _raise_if_compiler(error: RuntimeError) -> None:
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise InputError(f"The step could not be compiled ({reason}); use --runtime.compile off.") from error


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
