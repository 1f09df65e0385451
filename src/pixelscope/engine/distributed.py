"""Training with several processes: how many there are, averaged gradients, and checks that all of them agree."""

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pixelscope.errors import InputError, TrainingStopped


def ranks() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


BARRIER_TIMEOUT = timedelta(minutes=30)
"""Timeout of a barrier, long because one process may read data, evaluate or write before it arrives."""


class Barrier:
    """A barrier for all training processes, with a separate process group and timeout."""

    def __init__(self) -> None:
        """Create the process group; every process must do so."""
        self._group = dist.new_group(backend="gloo", timeout=BARRIER_TIMEOUT) if ranks() > 1 else None

    def wait(self) -> None:
        """Wait until every process has arrived."""
        if self._group is not None:
            dist.barrier(group=self._group)  # pyright: ignore[reportArgumentType] - every process is in the group


def set_collective_timeout(seconds: float) -> None:
    """Set the timeout of collective operations within a step."""
    if ranks() > 1:
        # Set here and not at the start, because processes may need long to read their data.
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all ranks, in one all-reduce."""
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
    """Raise TrainingStopped unless all ranks have bit-identical weights."""
    if ranks() == 1:
        return
    weights = torch.cat([p.detach().double().flatten() for n in networks for p in n.parameters()])
    mine = torch.stack([weights.sum(), weights.square().sum()])
    lowest, highest = mine.clone(), mine.clone()
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    if not torch.equal(lowest, highest):
        raise TrainingStopped(
            "The processes have different weights, so this checkpoint was not written; --resume continues from the one before."
        )


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the sum, the same on every rank."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of `values`: each rank's loss depends on the values of every rank."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of `values` over the ranks, differentiable; every rank must run its backward pass.

    PyTorch's `torch.distributed.nn.functional` is deprecated, and its replacement for compiled code is private.
    """
    total: Tensor | None = _SumOverRanks.apply(values)
    assert total is not None
    return total


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the images of all ranks, on CPU and GPU (PyTorch's has no CPU kernel)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` (N, C, H, W) by the mean and variance over all ranks in training."""
        if not self.training or ranks() == 1:
            return super().forward(input)
        values = input.float()
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        count = values.numel() // values.shape[1] * ranks()
        mean, square = (sum_over_ranks(sums) / count).chunk(2)
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
    """Replace, in place, every batch norm of `network` by a synchronized one; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedBatchNorm2d


SHELLS = {"interactive", "bash", "sh", "dash", "zsh", "fish", "ksh", "csh", "tcsh"}
"""Names of interactive SLURM jobs; the first is the default of salloc."""


def launched_from_outside() -> bool:
    """Return whether this is one of several processes started by torchrun or srun."""
    return "TORCHELASTIC_RUN_ID" in os.environ or is_task_of_srun()


def is_first_process() -> bool:
    """Return whether this is rank 0, which creates the run folder.

    Example:
        >>> if pixelscope.is_first_process():
        ...     print("training has ended")
    """
    return not launched_from_outside() or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def launched_processes() -> int:
    """Return how many processes torchrun or SLURM has started on this machine; 0 if neither has."""
    if not launched_from_outside():
        return 0
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise InputError("SLURM was given --ntasks alone; say how many run on each machine with --ntasks-per-node.")
    return int(os.environ["SLURM_NTASKS_PER_NODE"])


def nodes() -> int:
    """Return the number of machines that train together."""
    if not launched_from_outside():
        return 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ.get("SLURM_NNODES", "1"))


def share_of_cores(devices: int) -> int:
    """Return the number of cores per process; SLURM's setting takes precedence."""
    if launched_from_outside() and "SLURM_CPUS_PER_TASK" in os.environ:
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // devices)


def is_task_of_srun() -> bool:
    """Return whether srun started this process together with others, and it is not an interactive shell.

    In the shell or script of a job, SLURM sets the number of tasks whether srun was used or not.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    of_step = int(os.environ.get("SLURM_STEP_NUM_TASKS", tasks))
    is_shell = os.environ.get("SLURM_JOB_NAME") in SHELLS
    return min(tasks, of_step) > 1 and "SLURM_PROCID" in os.environ and not is_shell
