"""Measures how many cores other programs keep busy, and leaves these cores to them."""

import os
import time
from pathlib import Path

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import launched_from_outside, share_of_cores
from pixelscope.engine.runtime import resolve_runtime

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
