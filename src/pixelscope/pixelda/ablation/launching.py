"""Cells as jobs of submitit: local processes, some at a time, or an array on SLURM; without it in turn, in this process."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pixelscope.config import merge
from pixelscope.errors import InputError, Interrupted
from pixelscope.pixelda.ablation.cells import Job, do
from pixelscope.progress import ProgressCallback

Cluster = Literal["local", "slurm"]

POLL = 1.0
"""Seconds between two looks at the jobs."""
LIMIT = 7 * 24 * 60
"""Minutes after which a local job is ended."""
STOPPED = "Interrupted; what is trained is kept: go on with the same command and --resume."


def launch(
    jobs: Sequence[Job],
    logs: Path,
    cluster: Cluster,
    at_once: int,
    slurm: Mapping[str, str],
    progress: ProgressCallback | None = None,
) -> None:
    """Run jobs, `at_once` at a time, until all have ended, well or not.

    logs: submitit's own folder; slurm: its options by name, for example `partition`.
    Without submitit they run in turn in this process, where each training shows its own progress and `progress` is not called.
    Raises Interrupted at Ctrl-C, after the jobs were cancelled.
    """
    if not has_submitit():
        return _in_turn(_with_threads(jobs, cluster, 1))
    executor = _executor(logs, cluster, at_once, slurm)
    waiting, running, ended = list(_with_threads(jobs, cluster, at_once)), [], 0
    try:
        while waiting or running:
            room = len(waiting) if cluster == "slurm" else max(0, at_once - len(running))
            started, waiting = waiting[:room], waiting[room:]
            running += executor.map_array(do, started) if started else []
            time.sleep(POLL)
            alive = [job for job in running if not job.done()]
            if len(alive) < len(running) and progress is not None:
                ended += len(running) - len(alive)
                progress(ended, len(jobs))
            running = alive
    except (KeyboardInterrupt, Interrupted):
        for job in running:
            job.cancel()
        raise Interrupted(STOPPED) from None


def _in_turn(jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            do(job)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(STOPPED) from None
        except Exception:  # noqa: BLE001 - why it failed is written next to its folder, and the others still run
            continue


def has_submitit() -> bool:
    """Return whether the extra `ablate` is installed."""
    return find_spec("submitit") is not None


def check_cluster(cluster: Cluster, at_once: int) -> None:
    """Raise InputError where submitit is needed and missing, or the cluster is; nothing is written yet when this is asked."""
    if at_once < 1:
        raise InputError(f"--at-once {at_once} runs nothing; give 1 or more.")
    if not has_submitit():
        if cluster == "slurm" or at_once > 1:
            raise InputError('SLURM and several runs at a time need submitit; run: pip install "pixelscope[ablate]".')
        return
    import submitit

    if cluster == "slurm" and submitit.AutoExecutor.which() != "slurm":
        raise InputError(
            "There is no SLURM on this machine (no srun found); use --cluster local, or run it where there is one."
        )


def _executor(logs: Path, cluster: Cluster, at_once: int, slurm: Mapping[str, str]) -> Any:
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    executor.update_parameters(name="pixelscope-ablate", timeout_min=LIMIT)
    if cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=at_once, **{f"slurm_{key}": value for key, value in slurm.items()})
    return executor


def _with_threads(jobs: Sequence[Job], cluster: Cluster, at_once: int) -> list[Job]:
    """Give local jobs their share of the cores, unless the grid says how many threads they have."""
    if cluster == "slurm":
        return list(jobs)
    share = max(1, (os.cpu_count() or 1) // at_once)
    return [
        job if job.config["runtime"]["threads"] else replace(job, config=merge(job.config, {"runtime": {"threads": share}}))
        for job in jobs
    ]
