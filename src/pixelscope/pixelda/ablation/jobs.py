"""Runs of a grid as jobs: in this process one after another, or with submitit in local processes or as an array on SLURM."""

import logging
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pixelscope.config import merge
from pixelscope.errors import InputError, Interrupted, MissingExtra
from pixelscope.files import write_text
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.evaluation import evaluate_pixelda
from pixelscope.pixelda.training import resume_pixelda, train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.progress import ProgressCallback

Cluster = Literal["local", "slurm"]
State = Literal["done", "failed", "started", "new"]

POLL = 1.0
"""Seconds between two checks of the jobs."""
LIMIT = 7 * 24 * 60
"""Minutes after which a local job is ended."""
STOPPED = "Interrupted. What is trained is kept; run the same command with --resume to continue."


@dataclass(frozen=True)
class Job:
    """One condition with one seed: a run folder to train and evaluate."""

    run: Path
    system: str
    config: dict[str, Any]
    data_root: Path | None

    @property
    def failure(self) -> Path:
        """Return the file, next to the run folder, with the reason why the job failed."""
        return self.run.with_name(f"{self.run.name}.failure.txt")

    def state(self) -> State:
        """Return the state of the job by the files on disk."""
        if RunFolder(self.run).evaluation.is_file():
            return "done"
        if self.failure.is_file():
            return "failed"
        return "started" if self.run.exists() else "new"

    def reason(self) -> str:
        """Return why the job is not done, in a sentence."""
        if self.state() == "failed":
            return self.failure.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        return "its process ended without a message; see the logs" if self.state() == "started" else "not run yet"


@dataclass(frozen=True)
class LaunchOptions:
    """How the jobs of a grid are run."""

    cluster: Cluster = "local"
    max_parallel: int = 1
    """Jobs at a time."""
    slurm: Mapping[str, str] | None = None
    """Options of SLURM by name, for example `partition`."""
    progress: ProgressCallback | None = None
    """Called with the number of jobs that have ended, and of all jobs; not called without submitit."""


def run_job(job: Job) -> None:
    """Train a job's run, or resume it, and evaluate it; the reason of a failure is written next to its folder."""
    job.failure.unlink(missing_ok=True)
    try:
        _train(job)
        evaluate_pixelda(job.run, data_root=job.data_root)
    except (InputError, KeyboardInterrupt) as error:
        write_text(job.failure, f"{error or 'interrupted'}\n")
        raise
    except Exception:
        write_text(job.failure, traceback.format_exc())
        raise


def launch(jobs: Sequence[Job], logs: Path, options: LaunchOptions) -> None:
    """Run jobs until all have ended, successfully or not.

    Without submitit they run one after another in this process, and each training shows its own progress.

    Args:
        jobs: what to run.
        logs: the folder where submitit writes its files.
        options: where, and how many at a time.

    Raises:
        Interrupted: Ctrl-C; running jobs are cancelled first.
    """
    waiting = _with_threads(jobs, options)
    if not has_submitit():
        return _launch_here(waiting)
    executor, running, ended = _executor(logs, options), [], 0
    try:
        while waiting or running:
            room = len(waiting) if options.cluster == "slurm" else max(0, options.max_parallel - len(running))
            started, waiting = waiting[:room], waiting[room:]
            running += executor.map_array(run_job, started) if started else []
            time.sleep(POLL)
            alive = [job for job in running if not job.done()]
            if len(alive) < len(running) and options.progress is not None:
                ended += len(running) - len(alive)
                options.progress(ended, len(jobs))
            running = alive
    except (KeyboardInterrupt, Interrupted):
        for job in running:
            job.cancel()
        raise Interrupted(STOPPED) from None


def has_submitit() -> bool:
    """Return whether the extra `ablate` is installed."""
    return find_spec("submitit") is not None


def check_options(options: LaunchOptions) -> None:
    """Check the options before anything is written.

    Raises:
        InputError: `max_parallel` is below 1, submitit is needed and not installed, or there is no SLURM.
    """
    if options.max_parallel < 1:
        raise InputError(f"--max-parallel must be at least 1, got {options.max_parallel}.")
    if not has_submitit():
        if options.cluster == "slurm" or options.max_parallel > 1:
            raise MissingExtra("SLURM and parallel runs", "ablate")
        return
    import submitit

    if options.cluster == "slurm" and submitit.AutoExecutor.which() != "slurm":
        raise InputError("There is no SLURM on this machine (no srun found); use --cluster local, or a machine that has it.")


def _train(job: Job) -> None:
    folder = RunFolder(job.run)
    if job.run.exists() and not (folder.record.is_file() and folder.checkpoint_files()):
        folder.require_free()
        shutil.rmtree(job.run)
    if not job.run.exists():
        if job.system == "baseline":
            train_baseline(BaselineConfig.parse(job.config), run=job.run, data_root=job.data_root)
        else:
            train_pixelda(PixelDAConfig.parse(job.config), run=job.run, data_root=job.data_root)
    elif folder.read_record().get("state") != "finished":
        resume_pixelda(job.run, data_root=job.data_root)


def _launch_here(jobs: Sequence[Job]) -> None:
    for job in jobs:
        try:
            run_job(job)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(STOPPED) from None
        except Exception:  # noqa: BLE001 - the reason is written next to the run folder, and the other jobs still run
            continue


def _executor(logs: Path, options: LaunchOptions) -> Any:
    import submitit

    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor = submitit.AutoExecutor(folder=logs, cluster=options.cluster)
    executor.update_parameters(name="pixelscope-ablate", timeout_min=LIMIT)
    if options.cluster == "slurm":
        given = {f"slurm_{key}": value for key, value in (options.slurm or {}).items()}
        executor.update_parameters(slurm_array_parallelism=options.max_parallel, **given)
    return executor


def _with_threads(jobs: Sequence[Job], options: LaunchOptions) -> list[Job]:
    """Give local jobs their share of the cores, unless the grid sets the number of threads."""
    if options.cluster == "slurm":
        return list(jobs)
    share = max(1, (os.cpu_count() or 1) // (options.max_parallel if has_submitit() else 1))
    return [
        job if job.config["runtime"]["threads"] else replace(job, config=merge(job.config, {"runtime": {"threads": share}}))
        for job in jobs
    ]
