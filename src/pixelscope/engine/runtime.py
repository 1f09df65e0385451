"""Resolves devices, precision and threads of a run, and launches its processes."""

import importlib.util
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import (
    BARRIER_TIMEOUT,
    GUARD,
    UNGUARDED,
    launched_from_outside,
    launched_processes,
    launcher,
    nodes,
    ranks,
    refused_start,
    set_collective_timeout,
    share_of_cores,
    shared_memory_fault,
)
from pixelscope.errors import InputError, Interrupted, TrainingStopped, plural
from pixelscope.processes import keep_heap

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

N = TypeVar("N", bound=nn.Module)


def to_device(network: N, device: torch.device, memory_format: str) -> N:
    """Move a network to a device, with its convolution weights in this memory format, and return it."""
    return network.to(device, memory_format=FORMATS[memory_format])  # pyright: ignore[reportCallIssue]


def to_memory_format(images: Tensor, memory_format: str) -> Tensor:
    """Return images (N, C, H, W) in this memory format; a convolution runs channels-last if its images or weights are."""
    return images.contiguous(memory_format=FORMATS[memory_format])


RESUME_HINT = "resume from the last checkpoint with --resume RUN"
_OF_SYSTEM = re.compile(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?")
"""An error of the system as Python prints it: number, text and, if given, the file."""


@dataclass(frozen=True)
class ResolvedRuntime:
    """A RuntimeConfig with all automatic settings resolved."""

    devices: int
    accelerator: str
    precision: str
    threads: int
    memory_format: str = "channels_last"
    emulated: bool = False
    """Whether bfloat16 is emulated because the hardware lacks it."""
    capture: bool = False
    """Whether the training step is captured as CUDA graphs."""
    capture_reason: str = "turned off"
    compile: bool = False
    """Whether the networks' passes in the training step are compiled."""
    compile_reason: str = "turned off"

    def describe(self) -> str:
        """Return one line for the start of a run."""
        device = "GPU" if self.accelerator == "cuda" else "CPU process"
        ending = "s" if self.devices > 1 else ""
        if self.devices > 1 and self.accelerator != "cuda":
            device, ending = "CPU", " processes"
        slow = " (emulated on this processor, slower than 32-true)" if self.emulated else ""
        order = self.memory_format.replace("_", " ")
        steps = f"steps {'' if self.capture else 'not '}captured ({self.capture_reason})"
        networks = f"{'' if self.compile else 'not '}compiled ({self.compile_reason})"
        chosen = (f"{self.devices} {device}{ending}", f"{self.precision}{slow}", order, steps, networks)
        return f"{', '.join(chosen)}, {plural(self.threads, 'thread')} each"


def resolve_runtime(config: RuntimeConfig) -> ResolvedRuntime:
    """Resolve `auto` settings for this machine; raises InputError for devices or precision it lacks."""
    accelerator = _accelerator(config)
    devices = launched_processes() or config.devices
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        raise InputError(
            f"--devices {devices} needs {devices} GPUs, but this machine has {torch.cuda.device_count()}; "
            "lower --devices or use --runtime.accelerator cpu."
        )
    native = _computes_in_bf16(accelerator)
    precision = choose_precision(config.precision, accelerator, native)
    emulated = precision == "bf16-mixed" and not native
    threads = config.threads or share_of_cores(devices)
    capture = choose_capture(config.capture, accelerator, devices * nodes())
    compiled = choose_compile(config.compile, accelerator)
    return ResolvedRuntime(devices, accelerator, precision, threads, config.memory_format, emulated, *capture, *compiled)


def computing_device() -> torch.device:
    """Return the device for inference: the GPU if there is one."""
    return torch.device(_accelerator(RuntimeConfig()))


def check_batch(size: int, config: RuntimeConfig) -> None:
    """Raise InputError unless the batch size is a multiple of the number of processes; called before anything is written."""
    count = resolve_runtime(config).devices * nodes()
    if size % count:
        raise InputError(f"A batch of {size} cannot be divided among {count} devices; change one of them.")


def choose_precision(asked: str, accelerator: str, native: bool) -> str:
    """Return the precision to compute in; `native`: whether the hardware supports bfloat16.

    Raises InputError if bfloat16 is requested on a GPU without it; a CPU emulates it.
    """
    if asked == "auto":
        return "bf16-mixed" if native else "32-true"
    if asked == "bf16-mixed" and accelerator == "cuda" and not native:
        raise InputError("This GPU does not compute in bfloat16; use --precision 32-true, or leave it at auto.")
    return asked


def choose_capture(asked: str, accelerator: str, processes: int) -> tuple[bool, str]:
    """Return whether steps are captured as CUDA graphs, and why; raises no error, because it changes the speed only."""
    if accelerator != "cuda":
        return False, "no GPU"
    if processes > 1:
        return False, "several processes"
    if asked == "auto":
        # To be turned on once `python -m benchmarks.gpu` has passed on a GPU: docs/decisions/0018.
        return False, "auto: not yet measured on a GPU; --runtime.capture on turns it on"
    return asked == "on", "as asked"


def choose_compile(asked: str, accelerator: str) -> tuple[bool, str]:
    """Return whether networks are compiled, and why; raises InputError if this is requested and a compiler is missing."""
    if asked != "on":
        return False, "as asked" if asked == "off" else "auto: not yet measured; --runtime.compile on turns it on"
    missing = _missing_compiler(accelerator)
    if missing:
        raise InputError(
            f"--runtime.compile on needs {missing}, which this machine lacks; install it, or use --runtime.compile off."
        )
    return True, "as asked"


def _missing_compiler(accelerator: str) -> str | None:
    """Return what torch.compile needs and this machine lacks; None if it lacks nothing."""
    if accelerator == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    names = ("CC", "gcc", "clang", "cc") if accelerator == "cuda" else ("CXX", "g++", "clang++", "c++")
    named = [os.environ.get(names[0], ""), *names[1:]]
    if not any(shutil.which(name) for name in named if name):
        return f"a C{'' if accelerator == 'cuda' else '++'} compiler (such as {names[1]})"
    return None


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


def is_first_process() -> bool:
    """Return whether this is rank 0, which creates the run folder.

    Example:
        >>> if pixelscope.is_first_process():
        ...     print("training has ended")
    """
    return not launched_from_outside() or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


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


def _accelerator(config: RuntimeConfig) -> str:
    if config.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.accelerator


def _computes_in_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without these instructions, bf16 is emulated and slower than float32.
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def cpu_name() -> str:
    """Return the name of the processor."""
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


SECONDS = 0.3
"""Duration of the measurement of busy cores; the kernel counts in hundredths of a second."""
_STATISTICS = Path("/proc/stat")
_IDLE = (3, 4)
"""Columns of /proc/stat in which a core is idle: idle, and waiting for a disk."""


def leave_busy_cores(config: RuntimeConfig) -> tuple[RuntimeConfig, str]:
    """Return settings with one thread per free core, and the reason; unchanged settings if no core is busy.

    The threads of a step wait for each other thousands of times. If one of them shares its core with another program, each wait
    can last as long as that program's time slice; results/performance.md has the speed of two trainings on two cores.

    Changes only the automatic number of threads of one CPU process, and only on Linux, which counts the time per core.
    """
    if config.threads or launched_from_outside():
        return config, ""
    runtime = resolve_runtime(config)
    if runtime.devices > 1 or runtime.accelerator != "cpu" or runtime.threads == 1:
        return config, ""
    busy = busy_cores()
    threads = max(1, share_of_cores(1) - int(busy + 0.5))
    if threads >= runtime.threads:
        return config, ""
    why = (
        f"Uses {threads} of {runtime.threads} cores, because other programs keep {busy:.1f} busy; "
        f"use all with --runtime.threads {runtime.threads}."
    )
    return config.model_copy(update={"threads": threads}), why


def busy_cores(seconds: float = SECONDS) -> float:
    """Return how many of this process's cores other programs keep busy during `seconds`; 0 if the system does not tell."""
    before, own = _core_times(), time.process_time()
    if not before:
        return 0.0
    time.sleep(seconds)
    after, own = _core_times(), time.process_time() - own
    ticks = os.sysconf("SC_CLK_TCK")
    passed = max((sum(after[core]) - sum(before[core]) for core in before.keys() & after.keys()), default=0)
    if passed <= 0:
        return 0.0
    busy = sum(_busy(after[core]) - _busy(before[core]) for core in before.keys() & after.keys())
    return max(0.0, (busy - own * ticks) / passed)


def _core_times() -> dict[int, list[int]]:
    """Return the time per state of each of this process's cores, in ticks."""
    try:
        lines = _STATISTICS.read_text(encoding="ascii").splitlines()
        allowed = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return {}
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    # The last two columns, guests, are included in others.
    times = {int(row[0][3:]): [int(value) for value in row[1:9]] for row in rows}
    return {core: values for core, values in times.items() if core in allowed}


def _busy(times: list[int]) -> int:
    return sum(value for column, value in enumerate(times) if column not in _IDLE)
