"""What a training would cost: the resolved configuration, and a few steps timed before anything is written."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelscope.config import Config
from pixelscope.rng import Moment

WARM_UP, TIMED = 2, 4


@dataclass(frozen=True)
class Plan:
    """What a training would do and cost."""

    system: str
    config: Config
    images: int
    """Training images in all, each as often as it is seen."""
    parameters: dict[str, int]
    gflop_per_image: float
    """Of one training step, forward and backward of all networks, for each training image."""
    steps: int
    machine: str
    images_per_second: float
    """Measured on this machine with random images."""

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
                f"cost             {self.gflop_per_image:.2f} GFLOP an image, {self.steps:,} steps",
                f"machine          {self.machine}",
                f"estimated time   {_duration(self.seconds)} at {self.images_per_second:.0f} images/s (measured)",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "config": self.config.model_dump(mode="json"), "seconds": self.seconds}


def time_steps(step: Callable[[Moment], object], batch_size: int, seed: int, device: torch.device) -> tuple[float, float]:
    """Return (images a second, GFLOP of a step for each image) of `step`, timed on `device`."""

    def take(number: int) -> None:
        step(Moment(number * batch_size, number, batch_size, seed, device=device))

    with FlopCounterMode(display=False) as counter:
        take(0)
    for number in range(1, WARM_UP):
        take(number)
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
