"""Interface between the training loop and a system: networks, optimizers and the training step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from pixelscope.engine.ema import EMA
from pixelscope.rng import StepContext

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class StepInputs:
    """Everything a step reads besides its images: a function of the step's context.

    A captured step finds these values in static tensors, so every value that differs from step to step belongs here.
    """

    numbers: Mapping[str, float | Tensor]
    """Numbers such as the learning rate; in a captured step float64 scalars on the device."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors such as the noise z, on the CPU until `to` or a static tensor brings them to the device."""
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    """Generators of the draws made on the device, by purpose."""
    log_now: bool = False
    """Whether the step is logged; costly diagnostics run on such steps only, and these steps are never captured."""
    branch: str = ""
    """Steps of one branch run the same operations, unless they are logged; each branch is captured once."""

    def number(self, name: str) -> float | Tensor:
        """Return a number to multiply with float32 tensors: a float, or a float32 scalar."""
        value = self.numbers[name]
        return value.float() if isinstance(value, Tensor) else value

    def to(self, device: torch.device) -> "StepInputs":
        """Return the same inputs with their tensors on `device`."""
        return replace(self, tensors={name: tensor.to(device) for name, tensor in self.tensors.items()})


class Task(ABC, Generic[Batch]):
    """A system in training. Owns networks, optimizers and moving averages; `step` trains on one batch.

    A step has two halves, so that the second can be captured as a CUDA graph. `inputs` runs on the CPU and returns the values
    of the step. `compute` runs on the device, never waits for a number from it, and changes only `networks`, `optimizers`,
    `averages` and `schedule_state`. A checkpoint contains exactly these four.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, EMA]
    schedule_state: Mapping[str, Tensor] = MappingProxyType({})
    """State of a schedule, such as a weight that is adapted; each tensor is changed in place."""
    display_names: Mapping[str, str] = MappingProxyType({})
    """Short names of the numbers shown during training, in display order."""
    if_not_finite: str = "train again with a lower --optimizer.learning-rate or with --optimizer.clip-norm 5"
    """Advice in the error for a non-finite loss or gradient; names settings that the task has."""

    passes: dict[str, Callable[..., Tensor]]
    """Forward passes that `compute` calls, by name: the networks themselves, or compiled by `compile`."""

    def step(self, batch: Batch, context: StepContext) -> Mapping[str, Tensor]:
        """Train on one batch; returns what `compute` returns."""
        return self.compute(batch, self.inputs(context).to(context.device))

    @abstractmethod
    def inputs(self, context: StepContext) -> StepInputs:
        """Return everything that the step at `context` reads besides its images; changes nothing."""

    @abstractmethod
    def compute(self, batch: Batch, inputs: StepInputs) -> Mapping[str, Tensor]:
        """Train on one batch and return named tensors for the log, detached, without a device synchronization.

        A non-finite value under a name that begins with `loss/` or `gradient/` stops the run.
        """

    def compile(self) -> None:
        """Compile the forward passes, and with them their gradients; networks, names and weights stay as they are."""
        import torch._functorch.config

        # A logged step computes several gradients of one pass, which is impossible with donated buffers.
        torch._functorch.config.donated_buffer = False
        self.passes = {name: torch.compile(function, dynamic=False) for name, function in self.passes.items()}

    def averaging(self, context: StepContext) -> dict[str, float]:
        """Return the decay of each moving average in the step at `context`, as numbers for `inputs`."""
        return {f"kept by {name}": average.kept(context.batch_size, context.images) for name, average in self.averages.items()}

    def update_averages(self, inputs: StepInputs) -> None:
        """Move each average towards its network."""
        for name, average in self.averages.items():
            average.update(self.networks[name], inputs.number(f"kept by {name}"))

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure on held-out images, using only labels that training may use; returns named numbers."""

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the number that selects the best checkpoint (higher is better), or None for no best checkpoint."""
        return None

    def on_evaluation(self, evaluation: Mapping[str, float]) -> None:
        """Update a schedule after an evaluation; its state belongs in `schedule_state`."""

    def stop_reason(self) -> str | None:
        """Return why training stops before its configured length, or None to continue."""
        return None

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Return (cause, message) for each warning that a line of stats.jsonl justifies."""
        return []
