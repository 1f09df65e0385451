"""Summarizes networks, and estimates the cost of a training by timing a few steps."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixelscope.config import Config
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import share_of_cores
from pixelscope.engine.runtime import leave_busy_cores, resolve_runtime
from pixelscope.errors import InputError
from pixelscope.rng import StepContext

WARM_UP, TIMED = 2, 4
BYTES = 16
"""Memory per parameter in training: the weight, its gradient, and two moments of Adam."""


@dataclass(frozen=True)
class Plan:
    """Length and cost of a training."""

    system: str
    config: Config
    images: int
    """Total number of training images, counted as often as each is seen."""
    parameters: dict[str, int]
    gflop_per_image: float
    """Of one training step per training image, forward and backward of all networks."""
    steps: int
    machine: str
    images_per_second: float
    """Of all processes; measured for one of them on this machine, with random images."""
    devices: int = 1
    """Number of processes."""

    @property
    def seconds(self) -> float:
        """Return the estimated duration of the training steps."""
        return self.images / self.images_per_second

    def to_text(self) -> str:
        """Return the resolved configuration and the cost."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        return "\n".join(
            [
                self.config.to_yaml().rstrip(),
                "",
                f"parameters       {counts}",
                f"cost             {self.gflop_per_image:.2f} GFLOP per image, {self.steps:,} steps",
                f"machine          {self.machine}",
                f"estimated time   {_duration(self.seconds)} at {self.images_per_second:.0f} images/s ({self._how_known()})",
            ]
        )

    def _how_known(self) -> str:
        return "measured" if self.devices == 1 else f"measured for one of {self.devices} processes, if none waits for another"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "config": self.config.model_dump(mode="json"), "seconds": self.seconds}


def training_runtime(config: RuntimeConfig) -> tuple[RuntimeConfig, str]:
    """Return the settings that a new training would run with, with its number of threads, and a description.

    Cores that other programs keep busy are left, as a training leaves them.
    """
    settings, why = leave_busy_cores(config)
    resolved = resolve_runtime(settings)
    described = f"{resolved.describe()}. {why}" if why else resolved.describe()
    return settings.model_copy(update={"threads": resolved.threads}), described


def speed_of_all(speed: float, runtime: RuntimeConfig) -> float:
    """Return the images per second of all processes from those of one, if none waits for another.

    GPUs are all as fast as one. On a CPU, only as many processes compute at a time as there are cores for.
    """
    resolved = resolve_runtime(runtime)
    at_a_time = resolved.devices if resolved.accelerator == "cuda" else max(1, share_of_cores(1) // resolved.threads)
    return speed * min(resolved.devices, at_a_time)


def time_steps(step: Callable[[StepContext], object], batch_size: int, seed: int, device: torch.device) -> tuple[float, float]:
    """Return images per second, and GFLOP per image, of `step`, timed on `device`."""

    def take(number: int) -> None:
        step(StepContext(number * batch_size, number, batch_size, seed, device=device))

    # The first step is not counted: it updates statistics of averages, as few steps do.
    for number in range(WARM_UP - 1):
        take(number)
    with FlopCounterMode(display=False) as counter:
        take(WARM_UP - 1)
    _wait(device)
    began = time.perf_counter()
    for number in range(WARM_UP, WARM_UP + TIMED):
        take(number)
    _wait(device)
    return batch_size * TIMED / (time.perf_counter() - began), counter.get_total_flops() / 1e9 / batch_size


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"


@dataclass(frozen=True)
class Layer:
    """One layer of a network."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of the output for one image."""
    parameters: int


@dataclass(frozen=True)
class NetworkSummary:
    """One network, layer by layer."""

    name: str
    layers: list[Layer]
    parameters: int
    gflop: float
    """Of one forward pass of one image; a multiplication and an addition count as two operations."""

    def to_text(self) -> str:
        """Return a table."""
        rows = [("layer", "kind", "output", "parameters")]
        rows += [(x.name, x.kind, " x ".join(map(str, x.output)), f"{x.parameters:,}") for x in self.layers]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{self.name}: {self.parameters:,} parameters, {self.gflop:.3f} GFLOP per image"]
        for row in rows:
            left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False))
            lines.append(f"  {left}  {row[3].rjust(widths[3])}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Summary:
    """All networks of a system."""

    system: str
    networks: list[NetworkSummary] = field(repr=False)

    @property
    def parameters(self) -> int:
        """Return the number of parameters of all networks."""
        return sum(network.parameters for network in self.networks)

    def require_memory(self) -> "Summary":
        """Return this; raises InputError if the machine has less memory than the networks alone take in training."""
        needed, there = BYTES * self.parameters, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            raise InputError(
                f"Training {self.parameters:,} parameters takes at least {needed / 2**30:,.0f} GB of memory, and this machine "
                f"has {there / 2**30:,.0f} GB; choose a smaller width."
            )
        return self

    def to_text(self) -> str:
        """Return one table per network, and the total."""
        tables = [network.to_text() for network in self.networks]
        return "\n\n".join([*tables, f"{self.system}: {self.parameters:,} parameters in all"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "parameters": self.parameters}


@torch.no_grad()
def describe_network(name: str, network: nn.Module, inputs: tuple[Tensor, ...]) -> NetworkSummary:
    """Describe a network by passing `inputs`, a batch of one, through it in evaluation mode, on any device."""
    layers: list[Layer] = []
    leaves = [(path, module) for path, module in network.named_modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(_note(layers, path)) for path, leaf in leaves]
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    for handle in handles:
        handle.remove()
    total = sum(p.numel() for p in network.parameters())
    return NetworkSummary(name, layers, total, counter.get_total_flops() / 1e9)


def _note(layers: list[Layer], path: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        count = sum(p.numel() for p in module.parameters())
        layers.append(Layer(path, type(module).__name__, tuple(output.shape[1:]), count))

    return hook
