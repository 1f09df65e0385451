"""One cell and seed of a grid: a normal run folder, trained and evaluated by whatever process is told to."""

import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.evaluation import evaluate_pixelda
from pixelscope.pixelda.training import resume_pixelda, train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder

FAILURE = "failure.txt"
"""Beside a run folder that failed: why, in a sentence or a traceback."""

State = Literal["done", "failed", "begun", "new"]


@dataclass(frozen=True)
class Job:
    """What a process is told to do."""

    run: Path
    system: str
    config: dict[str, Any]
    data_root: Path | None

    @property
    def failure(self) -> Path:
        """Return where it is written why the job failed."""
        return self.run.with_name(f"{self.run.name}.{FAILURE}")

    def state(self) -> State:
        """Return how far it is, by what lies on disk."""
        if RunFolder(self.run).evaluation.is_file():
            return "done"
        if self.failure.is_file():
            return "failed"
        return "begun" if self.run.exists() else "new"

    def why(self) -> str:
        """Return in a sentence why it is not done."""
        if self.state() == "failed":
            return self.failure.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        return "its process ended without a word; see the logs" if self.state() == "begun" else "not run yet"


def do(job: Job) -> None:
    """Train one cell, or go on with it, and evaluate it; why it failed is written beside its folder."""
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


def _train(job: Job) -> None:
    folder = RunFolder(job.run)
    if job.run.exists() and not (folder.record.is_file() and folder.checkpoint_files()):
        shutil.rmtree(job.run)
    if not job.run.exists():
        if job.system == "baseline":
            train_baseline(BaselineConfig.parse(job.config), run=job.run, data_root=job.data_root)
        else:
            train_pixelda(PixelDAConfig.parse(job.config), run=job.run, data_root=job.data_root)
    elif folder.read_record().get("state") != "finished":
        resume_pixelda(job.run, data_root=job.data_root)
