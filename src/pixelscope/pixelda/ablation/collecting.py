"""What the runs of a grid have reached, over seeds."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pixelscope.engine.run import read_json, read_stats
from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.grid import Grid

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """A number over seeds: its mean, standard deviation and the 95% interval of the mean by Student's t."""

    mean: float
    std: float | None
    """None of one seed."""
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Describe values of at least one seed."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, None, None, None)
        std = float(np.std(values, ddof=1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * std / math.sqrt(len(values))
        return cls(mean, std, mean - half, mean + half)


@dataclass(frozen=True)
class Outcome:
    """One run of a cell."""

    seed: int
    run: str
    accuracy: float
    """On the target's test split, by the run's headline rule."""
    unsteadiness: float | None
    """Standard deviation of T's target accuracy over the last half of the evaluations; None of fewer than two."""
    source: float
    swapped: int
    """Classes that are most often taken for another one."""
    diversity: float | None
    """How much generated images vary with z, at the end; see `diagnostics.diversity`."""
    real: float | None
    generated: float | None
    """What D says of real and generated images, mean probability over the last tenth."""
    warnings: int
    curve: list[tuple[int, float]]
    """Images seen and target accuracy of the averaged classifier, or of T where no average is kept."""


@dataclass(frozen=True)
class Collected:
    """One cell over its seeds."""

    name: str
    claim: str
    outcomes: list[Outcome]
    missing: dict[int, str]
    """Why a seed is not among them."""
    accuracy: Spread | None
    unsteadiness: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def collect(grid: Grid, jobs: dict[tuple[str, int], Job]) -> list[Collected]:
    """Read what every run of a grid has reached."""
    return [_collected(grid, name, {seed: jobs[name, seed] for seed in grid.seeds}) for name in grid.cells]


def _collected(grid: Grid, name: str, jobs: dict[int, Job]) -> Collected:
    outcomes = [_outcome(seed, job) for seed, job in jobs.items() if job.state() == "done"]
    swings = [one.unsteadiness for one in outcomes if one.unsteadiness is not None]
    return Collected(
        name=name,
        claim=grid.cells[name].claim,
        outcomes=outcomes,
        missing={seed: job.why() for seed, job in jobs.items() if job.state() != "done"},
        accuracy=Spread.of([one.accuracy for one in outcomes]) if outcomes else None,
        unsteadiness=Spread.of(swings) if swings else None,
    )


def _outcome(seed: int, job: Job) -> Outcome:
    found = read_json(job.run / "evaluation.json")
    lines = read_stats(job.run / "stats.jsonl")
    target = found["sets"]["target_test"]
    counts = np.array(target["confusion"])
    curve = found["curve"]
    raw = [point["target_test"] for point in curve if "target_test" in point]
    late = raw[len(raw) // 2 :]
    averaged = "ema_target_test" if any("ema_target_test" in point for point in curve) else "target_test"
    return Outcome(
        seed=seed,
        run=str(job.run),
        accuracy=target["accuracy"],
        unsteadiness=float(np.std(late)) if len(late) > 1 else None,
        source=found["sets"]["source_test"]["accuracy"],
        swapped=int(((counts.argmax(1) != np.arange(len(counts))) & (counts.sum(1) > 0)).sum()),
        diversity=_last(lines, "diversity"),
        real=_mean_of_last(lines, "probability/real"),
        generated=_mean_of_last(lines, "probability/generated"),
        warnings=sum(line["kind"] == "warning" for line in lines),
        curve=[(int(point["images"]), point[averaged]) for point in curve if averaged in point],
    )


def _last(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return float(values[-1]) if values else None


def _mean_of_last(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if name in line]
    return float(np.mean(values[-max(1, len(values) // 10) :])) if values else None
