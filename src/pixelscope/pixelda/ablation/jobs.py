"""Runs of a grid as jobs: in this process one after another, or with submitit in local processes or as an array on SLURM."""

import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pixelscope.config import merge
from pixelscope.engine.distributed import share_of_cores
from pixelscope.errors import InputError, Interrupted, MissingExtra, has_extra
from pixelscope.files import write_text
from pixelscope.pixelda.checkpoints import default_checkpoint
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.evaluation import evaluate_pixelda
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.training import resume_pixelda, train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.progress import ProgressCallback

Cluster = Literal["local", "slurm"]
State = Literal["done", "failed", "started", "new"]

POLL = 1.0
"""Seconds between two checks of the jobs."""
LIMIT = 7 * 24 * 60
"""Minutes after which a local job is ended."""
PATIENCE = 60.0
"""Seconds after which cancelled local jobs are no longer waited for."""
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
        """Return the state of the job by the files on disk; it is done if the run is finished and was evaluated since."""
        if self._is_evaluated():
            return "done"
        if self.failure.is_file():
            return "failed"
        return "started" if self.run.exists() else "new"

    def _is_evaluated(self) -> bool:
        """Return whether the run is finished, and its evaluation is of its end and of the checkpoint of all runs."""
        folder = RunFolder(self.run)
        if not (folder.evaluation.is_file() and folder.record.is_file()):
            return False
        record, found = folder.read_record(), Evaluation.load(folder.evaluation)
        finished = record.get("state") == "finished" and found.measured_images >= record.get("images", 0)
        return finished and found.checkpoint == self._checkpoint(folder)

    def _checkpoint(self, folder: RunFolder) -> str:
        """Return the checkpoint that an evaluation measures unless another one is named."""
        config = (BaselineConfig if self.system == "baseline" else PixelDAConfig).parse(self.config)
        averages = ("ema-last",) if config.training.ema_half_life else ()
        best = ("best-source",) if (folder.checkpoints / "best.safetensors").is_file() else ()
        return default_checkpoint("auto", "baseline" if self.system == "baseline" else "pixelda", ("last", *averages, *best))

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
    slurm: Mapping[str, str | int] | None = None
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
        write_text(job.failure, f"{str(error) or 'interrupted'}\n")
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
    if not has_extra("ablate"):
        return _launch_here(waiting)
    executor, running, ended = _executor(logs, options), [], 0
    try:
        while waiting or running:
            room = len(waiting) if options.cluster == "slurm" else max(0, options.max_parallel - len(running))
            started, waiting = waiting[:room], waiting[room:]
            with _interrupts_held():
                running += executor.map_array(_run_in_process, started) if started else []
            time.sleep(POLL)
            alive = [job for job in running if not job.done()]
            if len(alive) < len(running) and options.progress is not None:
                ended += len(running) - len(alive)
                options.progress(ended, len(jobs))
            running = alive
    except (KeyboardInterrupt, Interrupted):
        _cancel(running, options.cluster)
        raise Interrupted(STOPPED) from None


def check_options(options: LaunchOptions) -> None:
    """Check the options before anything is written.

    Raises:
        InputError: `max_parallel` is below 1, submitit is needed and not installed, there is no SLURM, or there are options of
            SLURM without it.
    """
    if options.slurm and options.cluster != "slurm":
        given = ", ".join(f"--slurm.{name}" for name in options.slurm)
        raise InputError(f"{given} needs --cluster slurm, which starts the runs as SLURM jobs; give it, or drop {given}.")
    if options.max_parallel < 1:
        raise InputError(f"--max-parallel must be at least 1, got {options.max_parallel}.")
    if not has_extra("ablate"):
        if options.cluster == "slurm" or options.max_parallel > 1:
            raise MissingExtra("SLURM and parallel runs", "ablate")
        return
    import submitit

    if options.cluster == "slurm" and submitit.AutoExecutor.which() != "slurm":
        raise InputError("There is no SLURM on this machine (no srun found); use --cluster local, or a machine that has it.")


def _run_in_process(job: Job) -> None:
    """Run a job in a process that `_cancel` ends with SIGTERM; submitit ignores the signal otherwise."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_job(job)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile never receive it.

    A terminal sends Ctrl-C to all of them at once. The processes of submitit between this one and the jobs would print a
    traceback, and kill the jobs while these save.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cancel(running: Sequence[Any], cluster: Cluster) -> None:
    """Stop jobs, and wait until local ones have saved what is trained."""
    if cluster == "slurm":
        for job in running:
            job.cancel()
        return
    for job in running:
        with suppress(ProcessLookupError):
            os.kill(int(job.job_id), signal.SIGTERM)
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends and not all(job.done() for job in running):
        time.sleep(POLL / 10)


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
    share = max(1, share_of_cores(1) // (options.max_parallel if has_extra("ablate") else 1))
    return [
        job if job.config["runtime"]["threads"] else replace(job, config=merge(job.config, {"runtime": {"threads": share}}))
        for job in jobs
    ]
