"""Training with several processes: launchers, averaged gradients, and checks that all processes agree."""

import errno
import logging
import multiprocessing
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

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
SHARED_MEMORY = "/dev/shm"
UNGUARDED = 97
"""Exit code of a spawned process that tries to start a training, because its script has no `__main__` guard."""
_PORTS = 10_000
"""Offset of the port on which tasks wait for each other from the port of the training."""
_NO_MEMORY = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOSYS}
GUARD = (
    'a script that trains on several devices must start it under `if __name__ == "__main__":`, because each process reads the '
    "script again"
)


def launched_from_outside() -> bool:
    """Return whether this is one of several processes started by torchrun or srun."""
    return "TORCHELASTIC_RUN_ID" in os.environ or _is_task_of_srun()


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


def launcher() -> ClusterEnvironment:
    """Return the launcher of the processes; by itself, fabric would pick SLURM in a job of one task, even if we spawn them."""
    if not launched_from_outside():
        return LightningEnvironment()
    return TorchElasticEnvironment() if "TORCHELASTIC_RUN_ID" in os.environ else SLURMEnvironment()


def share_of_cores(devices: int) -> int:
    """Return the number of cores per process; SLURM's setting takes precedence."""
    if launched_from_outside() and "SLURM_CPUS_PER_TASK" in os.environ:
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // devices)


def await_tasks(timeout: float) -> None:
    """Wait until srun has started every task of the job, because a script without srun would wait for the others forever.

    Called before data are read, because that takes longer on some machines.

    timeout: in seconds.
    Raises InputError if a task is missing.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    count = int(os.environ.get("SLURM_NTASKS", "1"))
    if not _is_task_of_srun():
        if count > 1:
            message = "This SLURM job has %d tasks, but srun did not start them; this trains as one process."
            logging.getLogger(__name__).warning(message, count)
        return
    job = SLURMEnvironment()
    port = job.main_port - _PORTS if job.main_port > _PORTS + 1_024 else job.main_port + _PORTS
    try:
        TCPStore(job.main_address, port, count, job.global_rank() == 0, timedelta(seconds=timeout), wait_for_workers=True)
    except RuntimeError as error:
        raise InputError(
            f"Not all {count} tasks of this SLURM job have started within {timeout:g} seconds; start them with srun, as in "
            "`srun pixelscope ...`, request a job of one task, or raise --runtime.collective-timeout."
        ) from error


def require_main_guard() -> None:
    """Exit if this is a spawned process, which gets here only if its script has no `__main__` guard.

    The process that spawned it reports the exit code, once.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def refused_start(error: OSError | RuntimeError) -> InputError | None:
    """Return an error for the user if processes could not be started; None if `error` has another cause."""
    if isinstance(error, BrokenPipeError):
        return InputError(f"A process ended before its training started; {GUARD}.")
    of_system = isinstance(error, OSError) and error.filename is None and error.errno in _NO_MEMORY
    of_torch = isinstance(error, RuntimeError) and any(text in str(error) for text in ("/torch_", "shared memory", "mmap"))
    if not (of_system or of_torch):
        return None
    return shared_memory_fault(" ".join(str(error.strerror if isinstance(error, OSError) else error).split()))


def shared_memory_fault(reason: str) -> InputError:
    """Return an error for the user if the processes have no shared memory."""
    return InputError(
        f"Several processes need shared memory, and {SHARED_MEMORY} is full or cannot be written to ({reason}); make it larger "
        "(in a container with --shm-size 1g), free some of it, or train with --devices 1."
    )


def _is_task_of_srun() -> bool:
    """Return whether srun started this process together with others, and it is not an interactive shell.

    In the shell or script of a job, SLURM sets the number of tasks whether srun was used or not.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    of_step = int(os.environ.get("SLURM_STEP_NUM_TASKS", tasks))
    is_shell = os.environ.get("SLURM_JOB_NAME") in SHELLS
    return min(tasks, of_step) > 1 and "SLURM_PROCID" in os.environ and not is_shell
