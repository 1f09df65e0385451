"""What the runs of a grid have reached, over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.grid import Grid
from pixelscope.pixelda.ablation.results import ConditionResult, MeanStd, SeedResult
from pixelscope.pixelda.results import Evaluation
from pixelscope.runs.folder import RunFolder, read_stats

LEVEL = 0.95


def mean_std(values: Sequence[float]) -> MeanStd:
    """Describe values of at least one seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return MeanStd(mean=mean, std=None, low=None, high=None)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return MeanStd(mean=mean, std=std, low=mean - half, high=mean + half)


def collect(grid: Grid, jobs: dict[tuple[str, int], Job]) -> list[ConditionResult]:
    """Read what every run of a grid has reached."""
    return [_collected(grid, name, {seed: jobs[name, seed] for seed in grid.seeds}) for name in grid.cells]


def _collected(grid: Grid, name: str, jobs: dict[int, Job]) -> ConditionResult:
    outcomes = [_outcome(seed, job) for seed, job in jobs.items() if job.state() == "done"]
    swings = [one.unsteadiness for one in outcomes if one.unsteadiness is not None]
    return ConditionResult(
        name=name,
        claim=grid.cells[name].claim,
        outcomes=outcomes,
        missing={seed: job.why() for seed, job in jobs.items() if job.state() != "done"},
        accuracy=mean_std([one.accuracy for one in outcomes]) if outcomes else None,
        unsteadiness=mean_std(swings) if swings else None,
    )


def _outcome(seed: int, job: Job) -> SeedResult:
    folder = RunFolder(job.run)
    found, lines = Evaluation.load(folder.evaluation), read_stats(folder.stats)
    target = found.sets["target_test"]
    counts = np.array(target.confusion)
    raw = [(point.images, point.target_test) for point in found.curve if point.target_test is not None]
    averaged = [(point.images, point.ema_target_test) for point in found.curve if point.ema_target_test is not None]
    late = [accuracy for _, accuracy in raw[len(raw) // 2 :]]
    return SeedResult(
        seed=seed,
        run=str(job.run),
        accuracy=target.accuracy,
        unsteadiness=float(np.std(late)) if len(late) > 1 else None,
        source=found.sets["source_test"].accuracy,
        swapped=int(((counts.argmax(1) != np.arange(len(counts))) & (counts.sum(1) > 0)).sum()),
        diversity=_last(lines, "diversity"),
        real=_mean_of_last(lines, "probability/real"),
        generated=_mean_of_last(lines, "probability/generated"),
        warnings=sum(line["kind"] == "warning" for line in lines),
        curve=averaged or raw,
    )


def _last(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return float(values[-1]) if values else None


def _mean_of_last(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return float(np.mean(values[-max(1, len(values) // 10) :])) if values else None
