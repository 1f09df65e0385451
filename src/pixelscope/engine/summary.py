"""What networks consist of: layers, output shapes, parameters, operations."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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


@torch.no_grad()
def describe_network(name: str, network: nn.Module, inputs: tuple[Tensor, ...]) -> NetworkSummary:
    """Describe a network by passing `inputs`, a batch of one, through it in evaluation mode."""
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
