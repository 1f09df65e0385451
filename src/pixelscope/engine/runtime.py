"""Resolves devices, precision and threads of a run."""

import importlib.util
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import (
    launched_from_outside,
    launched_processes,
    nodes,
    share_of_cores,
)
from pixelscope.errors import InputError, plural

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

N = TypeVar("N", bound=nn.Module)


def to_device(network: N, device: torch.device, memory_format: str) -> N:
    """Move a network to a device, with its convolution weights in this memory format, and return it."""
    return network.to(device, memory_format=FORMATS[memory_format])  # pyright: ignore[reportCallIssue]


def to_memory_format(images: Tensor, memory_format: str) -> Tensor:
    """Return images (N, C, H, W) in this memory format; a convolution runs channels-last if its images or weights are."""
    return images.contiguous(memory_format=FORMATS[memory_format])


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
        cores = share_of_cores(1)
        crowded = f" (more than the {plural(cores, 'core')} there, and slow)" if self.threads > cores else ""
        return f"{', '.join(chosen)}, {plural(self.threads, 'thread')} each{crowded}"


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
        raise InputError(
            f"A batch of {size} cannot be divided among {count} devices; give a multiple of {count}, or another --devices."
        )


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


def _accelerator(config: RuntimeConfig) -> str:
    if config.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.accelerator


def _computes_in_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without these instructions, bf16 is emulated and slower than float32.
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


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
