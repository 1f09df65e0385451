"""Several processes training one model: gradients averaged, batch norm over the whole batch, ranks that must agree.

Wrapping each network for data parallelism fits a GAN badly (several passes a step, networks frozen in turn), so
gradients are averaged once, just before each optimizer step: the same mathematics, one message a network.
"""

from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from pixelscope.errors import TrainingStopped


def ranks() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


MEETING = timedelta(minutes=30)
"""How long processes wait for each other where they may be late with good reason: reading data, evaluating, writing."""


class Peers:
    """The processes that train together, where they wait for the slowest of them."""

    def __init__(self) -> None:
        """Make a connection of its own, with a time limit of its own; every process must do so."""
        self._group = dist.new_group(backend="gloo", timeout=MEETING) if ranks() > 1 else None

    def meet(self) -> None:
        """Wait until every process is here."""
        if self._group is not None:
            dist.barrier(group=self._group)  # pyright: ignore[reportArgumentType] - every process is in the group


def be_patient(seconds: float) -> None:
    """Take a process for dead that lets the others wait for so long within a step."""
    if ranks() > 1:
        # Not the limit of the whole connection from the start: processes come to it when each has read its data.
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if ranks() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))


def average(values: Tensor) -> Tensor:
    """Return the mean of `values` over the ranks."""
    if ranks() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / ranks()


def check_agreement(networks: Iterable[nn.Module]) -> None:
    """Raise TrainingStopped unless every rank holds the same weights, to the bit."""
    if ranks() == 1:
        return
    weights = torch.cat([p.detach().double().flatten() for n in networks for p in n.parameters()])
    mine = torch.stack([weights.sum(), weights.square().sum()])
    lowest, highest = mine.clone(), mine.clone()
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    if not torch.equal(lowest, highest):
        raise TrainingStopped("The processes hold different weights; nothing was written: resume from the last checkpoint.")


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all ranks, on CPU and GPU alike (torch's own has no CPU kernel)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` (N, C, H, W) by the mean and variance over all ranks in training."""
        if not self.training or ranks() == 1:
            return super().forward(input)
        values = input.float()
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        count = values.numel() // values.shape[1] * ranks()
        mean, square = (dist_nn.all_reduce(sums) / count).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def synchronize_batch_norm(network: nn.Module) -> None:
    """Turn every batch norm of `network`, in place, into one over all ranks; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm2d
