"""Starts the processes of a training: one, several that it spawns, or those of torchrun or SLURM.

Importing this imports lightning, which takes long; inference does without.
"""

import errno
import logging
import multiprocessing
import os
import platform
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import (
    BARRIER_TIMEOUT,
    is_task_of_srun,
    launched_from_outside,
    nodes,
    ranks,
    set_collective_timeout,
)
from pixelscope.engine.runtime import cpu_name, resolve_runtime
from pixelscope.errors import InputError, Interrupted, TrainingStopped
from pixelscope.files import keep_heap

RESUME_HINT = "resume from the last checkpoint with --resume RUN"
_OF_SYSTEM = re.compile(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?")
"""An error of the system as Python prints it: number, text and, if given, the file."""
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


def launch(config: RuntimeConfig, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function(fabric, *arguments)` on every device and return what it returns on the first.

    Under torchrun or SLURM, these have started the processes; otherwise they are spawned.
    """
    runtime = resolve_runtime(config)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the run prints what it uses
    single = runtime.devices == 1 and not launched_from_outside()
    method: Literal["popen", "spawn"] = "popen" if launched_from_outside() else "spawn"
    strategy = "auto" if single else DDPStrategy(start_method=method, timeout=BARRIER_TIMEOUT)
    fabric = Fabric(
        accelerator=runtime.accelerator,
        devices=runtime.devices,
        strategy=strategy,
        plugins=launcher(),
        precision=runtime.precision,  # pyright: ignore[reportArgumentType] - one of fabric's literals
        num_nodes=nodes(),
    )
    # Bound with partial, because fabric searches the arguments of a launch and refuses frozen dataclasses.
    prepared = partial(_prepared, threads=runtime.threads, timeout=config.collective_timeout)
    bound = partial(prepared, function=function, arguments=arguments)
    return fabric.launch(bound) if single else _launch_several(fabric, bound, runtime.devices, spawned=method == "spawn")


def _launch_several(fabric: Fabric, function: Callable[[Fabric], Any], count: int, spawned: bool) -> Any:
    try:
        return fabric.launch(function)
    except ProcessRaisedException as error:
        raise _own_error(error) from None
    except ProcessExitedException as error:
        raise _ended(error, count) from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _lost_contact(error):
            message = f"Not all processes have started; start them again, or {RESUME_HINT}."
            raise TrainingStopped(message) from error
        refused = refused_start(error) if spawned else None
        raise refused or error from None


def _ended(error: ProcessExitedException, count: int) -> InputError:
    """Describe the end of a process that raised no error."""
    if error.exit_code in (1, UNGUARDED):  # an error within the training arrives as a text instead
        return InputError(f"Process {error.error_index + 1} of {count} ended before its training started; {GUARD}.")
    if error.signal_name == "SIGBUS":
        return shared_memory_fault(f"process {error.error_index + 1} of {count} was killed by SIGBUS")
    how = error.signal_name or f"exit code {error.exit_code}"
    return TrainingStopped(
        f"Process {error.error_index + 1} of {count} ended ({how}), and the others were stopped; {RESUME_HINT}."
    )


def launcher() -> ClusterEnvironment:
    """Return the launcher of the processes; by itself, fabric would pick SLURM in a job of one task, even if we spawn them."""
    if not launched_from_outside():
        return LightningEnvironment()
    return TorchElasticEnvironment() if "TORCHELASTIC_RUN_ID" in os.environ else SLURMEnvironment()


def await_tasks(timeout: float) -> None:
    """Wait until srun has started every task of the job, because a script without srun would wait for the others forever.

    Called before data are read, because that takes longer on some machines.

    timeout: in seconds.
    Raises InputError if a task is missing.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    count = int(os.environ.get("SLURM_NTASKS", "1"))
    if not is_task_of_srun():
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


def hardware(fabric: Fabric) -> dict[str, Any]:
    """Return the hardware entry of run.json."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "none",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _prepared(fabric: Fabric, *, threads: int, timeout: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(threads)
    set_collective_timeout(timeout)
    if fabric.device.type == "cpu":
        keep_heap()
    else:
        # Some of cuDNN's gradients are summed in varying order, but a resumed run must be bit-identical.
        torch.backends.cudnn.deterministic = True
    try:
        result = function(fabric, *arguments)
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            whose = f"Process {fabric.global_rank + 1} of {ranks()}" if ranks() > 1 else "The training"
            raise TrainingStopped(f"{whose} ran out of memory; free some, and {RESUME_HINT}.") from error
        if ranks() > 1 and _lost_contact(error):
            raise TrainingStopped(f"Another process has ended or cannot be reached; {RESUME_HINT}.") from error
        raise
    if ranks() > 1:
        # Otherwise gloo's threads sometimes abort the process when the interpreter exits.
        torch.distributed.destroy_process_group()
    return result


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation failed; on a CPU, torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _lost_contact(error: Exception) -> bool:
    """Return whether an error means that communication failed; gloo raises plain RuntimeErrors."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _own_error(error: ProcessRaisedException) -> Exception:
    """Return the original error of a spawned process, parsed from the text of its traceback."""
    kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
    ours = {f"{cls.__module__}.{cls.__name__}": cls for cls in (InputError, TrainingStopped, Interrupted)}
    if kind in ours:
        return ours[kind](message)
    found = _OF_SYSTEM.fullmatch(message)
    return OSError(int(found[1]), found[2], found[3]) if found else error
