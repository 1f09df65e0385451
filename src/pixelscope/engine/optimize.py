"""Builds optimizers, and takes optimizer steps: average gradients over ranks, measure, clip, apply."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pixelscope.engine.config import AdamConfig
from pixelscope.engine.distributed import average_gradients

FACTOR = "learning_rate_factor"
"""Key of a parameter group: factor on its learning rate."""


def adam(
    networks: Sequence[nn.Module],
    config: AdamConfig,
    *,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    factors: Sequence[float] | None = None,
) -> torch.optim.Optimizer:
    """Return Adam over all parameters of `networks`, one parameter group per network.

    Args:
        networks: networks to train.
        config: learning rate and betas.
        weight_decay: L2 penalty added to the gradient.
        decoupled: decay the weights themselves instead (AdamW).
        factors: factor on the learning rate of each network; default 1.
    """
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(
        [
            {"params": list(network.parameters()), FACTOR: factor}
            for network, factor in zip(networks, factors or [1.0] * len(networks), strict=True)
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=weight_decay,
        fused=True,
    )


def apply_gradients(
    optimizer: torch.optim.Optimizer, networks: Mapping[str, nn.Module], clip_norm: float | None = None
) -> dict[str, Tensor]:
    """Step `optimizer` on the gradients of `networks` and clear them; returns the gradient norm of each network.

    The norms are of the gradients averaged over the ranks, before clipping; `clip_norm` bounds the norm of all
    networks together.
    """
    parameters = [p for network in networks.values() for p in network.parameters()]
    average_gradients(parameters)
    norms = {name: gradient_norm(network) for name, network in networks.items()}
    if clip_norm is not None:
        total = torch.stack(list(norms.values())).norm()
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, total)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norms


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the Euclidean norm of all gradients of `network`, a scalar."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let gradients flow through `networks` without computing gradients of their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float | Tensor) -> None:
    """Set the learning rate of every parameter group, times the group's own factor where it has one.

    learning_rate: a float, or in a captured step a float64 scalar on the device.
    """
    for group in optimizer.param_groups:
        scaled = learning_rate * group.get(FACTOR, 1.0)
        # On a GPU the fused optimizers read a float32 scalar.
        group["lr"] = scaled.float() if isinstance(scaled, Tensor) and scaled.is_cuda else scaled
