"""What a configuration amounts to, before anything runs: layers, parameters, cost."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pixelscope.engine import runtime
from pixelscope.pixelda.baseline import build_classifier
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.task import build_networks

CLASSES = 10
"""Output classes assumed where no data says how many there are."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of one image's output, without the batch."""
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
        lines = [f"{self.name}: {self.parameters:,} parameters, {self.gflop:.3f} GFLOP an image"]
        for row in rows:
            left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False))
            lines.append(f"  {left}  {row[3].rjust(widths[3])}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Summary:
    """All networks of a system."""

    system: str
    networks: list[NetworkSummary]

    @property
    def parameters(self) -> int:
        """Return the number of parameters of all networks."""
        return sum(network.parameters for network in self.networks)

    def to_text(self) -> str:
        """Return tables, one a network, and the total."""
        tables = [network.to_text() for network in self.networks]
        return "\n\n".join([*tables, f"{self.system}: {self.parameters:,} parameters in all"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "parameters": self.parameters}


@dataclass(frozen=True)
class Plan:
    """What a training would do and cost."""

    system: str
    config: BaselineConfig
    parameters: dict[str, int]
    gflop_per_image: float
    """Of one training step, forward and backward of all networks, for each source image."""
    steps: int
    machine: str
    images_per_second: float
    """Measured on this machine with random images."""

    @property
    def seconds(self) -> float:
        """Return the estimated duration of the training steps."""
        return self.config.training.images / self.images_per_second

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


def summarize(system: Literal["pixelda", "baseline"], config: BaselineConfig | None = None) -> Summary:
    """Describe the networks of a system layer by layer; the preset `paper` where no configuration is given."""
    chosen = config or (PixelDAConfig() if system == "pixelda" else BaselineConfig())
    return Summary(system, [_summary(name, network, inputs) for name, (network, inputs) in _networks(chosen).items()])


def plan(config: BaselineConfig, system: Literal["pixelda", "baseline"] | None = None) -> Plan:
    """Work out what a training would cost, timing a few steps on random images; nothing is read or written."""
    from pixelscope.pixelda.rehearsal import rehearse

    name = "pixelda" if isinstance(config, PixelDAConfig) else "baseline"
    summary = summarize(name, config)
    speed, gflop = rehearse(config)
    return Plan(
        system=system or name,
        config=config,
        parameters={network.name: network.parameters for network in summary.networks},
        gflop_per_image=gflop,
        steps=-(-config.training.images // config.training.batch_size),
        machine=runtime.decide(config.runtime).describe(),
        images_per_second=speed,
    )


def _networks(config: BaselineConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    image = torch.zeros(1, 3, config.data.size, config.data.size)
    if not isinstance(config, PixelDAConfig):
        return {"classifier": (build_classifier(config, CLASSES), (image,))}
    generator, discriminator, classifier = build_networks(config, CLASSES)
    z = torch.zeros(1, config.generator.noise_dim)
    return {
        "generator": (generator, (image, z)),
        "discriminator": (discriminator, (image,)),
        "classifier": (classifier, (image,)),
    }


@torch.no_grad()
def _summary(name: str, network: nn.Module, inputs: tuple[Tensor, ...]) -> NetworkSummary:
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


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
