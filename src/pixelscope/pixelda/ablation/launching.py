"""Cells as jobs of submitit: local processes, some at a time, or an array on SLURM."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pixelscope.config import merge
from pixelscope.errors import InputError, Interrupted
from pixelscope.pixelda.ablation.cells import Job, do

Cluster = Literal["local", "slurm"]
Report = Callable[[int, int], None]

POLL = 1.0
"""Seconds between two looks at the jobs."""
LIMIT = 7 * 24 * 60
"""Minutes after which a local job is ended."""


def launch(
    jobs: Sequence[Job], logs: Path, cluster: Cluster, at_once: int, slurm: Mapping[str, str], report: Report | None = None
) -> None:
    """Run jobs, `at_once` at a time, until all have ended, well or not.

    logs: submitit's own folder; slurm: its options by name, for example `partition`.
    Raises Interrupted at Ctrl-C, after the jobs were cancelled.
    """
    executor = _executor(logs, cluster, at_once, slurm)
    waiting, running, ended = list(_with_threads(jobs, cluster, at_once)), [], 0
    try:
        while waiting or running:
            room = len(waiting) if cluster == "slurm" else max(0, at_once - len(running))
            started, waiting = waiting[:room], waiting[room:]
            running += executor.map_array(do, started) if started else []
            time.sleep(POLL)
            alive = [job for job in running if not job.done()]
            if len(alive) < len(running) and report is not None:
                ended += len(running) - len(alive)
                report(ended, len(jobs))
            running = alive
    except KeyboardInterrupt:
        for job in running:
            job.cancel()
        raise Interrupted("Interrupted; what is trained is kept: go on with the same command and --resume.") from None


def check_cluster(cluster: Cluster) -> None:
    """Raise InputError where submitit or the cluster is missing; nothing is written yet when this is asked."""
    try:
        import submitit
    except ImportError:
        raise InputError('Ablations need submitit; run: pip install "pixelscope[ablate]".') from None
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
