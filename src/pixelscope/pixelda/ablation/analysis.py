"""Reads the runs of a grid: results over seeds, whether a claim holds, and which trial of a search to continue with."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pixelscope.errors import InputError
from pixelscope.pixelda.ablation.grid import Condition, Expectation, Grid
from pixelscope.pixelda.ablation.jobs import Job
from pixelscope.pixelda.ablation.results import (
    MEASURES,
    Comparison,
    ConditionResult,
    Judgement,
    MeanStd,
    SeedResult,
    Trial,
)
from pixelscope.pixelda.data import DIGESTS
from pixelscope.pixelda.results import Evaluation
from pixelscope.runs.folder import RunFolder, read_stats

LEVEL = 0.95
"""Confidence level of the intervals."""

COUNTED = ("collapsed", "swapped_classes")
"""Measures that are counts, most of them 0 or 1."""

MOST_SIGNS = 2**16
"""Maximum number of changes of signs; all of up to 16 seeds."""


def mean_std(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> MeanStd:
    """Return mean, standard deviation and the interval of the mean by Student's t, of at least one value.

    The interval ends at `lowest` and `highest`, between which all possible values lie.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return MeanStd(mean=mean, std=None, low=None, high=None)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return MeanStd(mean=mean, std=std, low=max(mean - half, lowest), high=min(mean + half, highest))


def collect(grid: Grid, jobs: Mapping[tuple[str, int], Job]) -> list[ConditionResult]:
    """Return the results of every condition, read from its run folders."""
    return [_collect_condition(grid, name, {seed: jobs[name, seed] for seed in grid.seeds}) for name in grid.conditions]


def require_same_images(jobs: Iterable[Job]) -> None:
    """Check that finished runs with the same settings of their data have the same images.

    How many source images are held out for validation changes the source's training images alone: test images, and all images
    of the target, must be the same.

    Raises:
        InputError: the images of a source changed between two runs, so that their results cannot be compared.
    """
    seen: dict[str, tuple[Path, str]] = {}
    for job in jobs:
        if job.state() != "done":
            continue
        for domain, about in RunFolder(job.run).read_record().get("data", {}).items():
            data = job.config.get("data", {})
            shared = {name: value for name, value in data.items() if name != "validation_fraction"}
            for key in filter(about.get, DIGESTS.values()):
                settings = shared if domain == "target" or key == DIGESTS["test"] else data
                named = repr((domain, key, *(job.config.get(name) for name in ("source", "target")), settings))
                first, digest = seen.setdefault(named, (job.run, about[key]))
                if about[key] != digest:
                    raise InputError(
                        f"{job.run} is of other images than {first} (the SHA-256 in their run.json differ), so they cannot be "
                        "compared. Delete the run folder of the wrong images, and run the same command with --resume."
                    )


def compare_to_reference(grid: Grid, conditions: Sequence[ConditionResult]) -> list[Comparison]:
    """Return each condition compared with the reference, paired by seed: one comparison per expectation.

    A claim is supported or contradicted where the corrected p is below 5%.
    """
    reference = next(one for one in conditions if one.name == grid.reference)
    expected = [(one, expect) for one in conditions for expect in grid.conditions[one.name].expect or (None,)]
    compared = [_compare(one, reference, expect) for one, expect in expected]
    values = iter(holm([one.p for one in compared if one.p is not None]))
    corrected = [one if one.p is None else one.model_copy(update={"p": next(values)}) for one in compared]
    return [
        one if expect is None or one.difference is None else one.model_copy(update={"judgement": _judge(one, expect.direction)})
        for one, (_, expect) in zip(corrected, expected, strict=True)
    ]


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that 5% limits the risk of any false finding (Holm 1979)."""
    order = np.argsort(values)
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(np.sort(values) * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0).tolist()


def read_trial(name: str, condition: Condition, job: Job) -> Trial:
    """Return the result of one trial of a search, read from its run folder."""

    def trial(**measured: Any) -> Trial:
        return Trial(name=name, about=condition.claim, settings=condition.settings, run=str(job.run), **measured)

    folder = RunFolder(job.run)
    if job.state() != "done":
        return trial(failed=job.reason())
    found = Evaluation.load(folder.evaluation)
    if found.verdict is None or found.source_only is None:
        return trial(failed="It has no judge to compare with; leave judge on.")
    lost = [line for line in read_stats(folder.stats) if line.get("cause") == "content lost"]
    known = found.sets.get("target_test")
    truth = None if known is None else (found.source_only["target_test"], known.accuracy)
    count = None if known is None else known.count
    measured = {"with_target_labels": truth, "test_images": count, "discordant": found.discordant}
    return trial(verdict=found.verdict, content_warnings=len(lost), **measured)


def choose_trial(trials: Sequence[Trial]) -> tuple[str | None, str]:
    """Return the name of the trial to continue with, and the reason.

    The choice depends on verdicts alone, which use no target label. The name is None if no trial is likely better than T of
    the source alone.
    """
    judged = {trial.name: trial.verdict for trial in trials if trial.verdict is not None}
    better = [trial for trial in trials if trial.verdict is not None and trial.verdict.better == "adapted"]
    if judged and all(verdict.better == "unknown" for verdict in judged.values()):
        return None, (
            "No trial has learned the source, so none is chosen. Train the trials longer, with `training: {images: 40960}` in "
            "a file for --config, or check the labels of the source."
        )
    if not better:
        return None, (
            "Nothing better than T of the source alone was found (estimated without target labels). Use the baseline "
            "(`pixelscope pixelda baseline`), or make the two sources more similar (`pixelscope data info SOURCE TARGET`)."
        )
    best = max(better, key=lambda trial: trial.information[1])
    before, after = best.information
    return best.name, (
        f"Chosen: {best.name}. Of the trials that are likely better than T of the source alone, its predictions on the target "
        f"carry the most view information ({after:.3f} nats; source only {before:.3f}), estimated without target labels. "
        f"{judged[best.name].basis()}"
    ).rstrip()


def _collect_condition(grid: Grid, name: str, jobs: Mapping[int, Job]) -> ConditionResult:
    found = [_read_seed(seed, job) for seed, job in jobs.items() if job.state() == "done"]
    swings = [one.accuracy_swing for one in found if one.accuracy_swing is not None]
    return ConditionResult(
        name=name,
        claim=grid.conditions[name].claim,
        seeds=found,
        missing={seed: job.reason() for seed, job in jobs.items() if job.state() != "done"},
        accuracy=mean_std([one.accuracy for one in found], 0, 1) if found else None,
        accuracy_swing=mean_std(swings, 0) if swings else None,
    )


def _read_seed(seed: int, job: Job) -> SeedResult:
    folder = RunFolder(job.run)
    found, lines = Evaluation.load(folder.evaluation), read_stats(folder.stats)
    target = found.sets["target_test"]
    counts = np.array(target.confusion)
    raw = [(point.images, point.target_test) for point in found.curve if point.target_test is not None]
    averaged = [(point.images, point.ema_target_test) for point in found.curve if point.ema_target_test is not None]
    diversity, real, generated = (_values(lines, n) for n in ("diversity", "probability/real", "probability/generated"))
    return SeedResult(
        seed=seed,
        run=str(job.run),
        accuracy=target.accuracy,
        accuracy_swing=_swing(raw[len(raw) // 2 :]),
        collapsed=raw[-1][1] < max(accuracy for _, accuracy in raw) / 2 if raw else None,
        source_accuracy=found.sets["source_test"].accuracy,
        swapped_classes=int((counts.max(1) > counts.diagonal()).sum()),
        diversity=diversity[-1] if diversity else None,
        probability_real=_mean_of_last_tenth(real),
        probability_generated=_mean_of_last_tenth(generated),
        warnings=sum(line["kind"] == "warning" for line in lines),
        curve=averaged or raw,
    )


def _swing(curve: Sequence[tuple[int, float]]) -> float | None:
    """Return the standard deviation of accuracies around the line that fits them best; None for fewer than three."""
    if len(curve) < 3:
        return None
    images, accuracies = np.array(curve, float).T
    residuals = accuracies - np.polynomial.Polynomial.fit(images, accuracies, 1)(images)
    return float(np.sqrt(np.square(residuals).sum() / (len(curve) - 2)))


def _values(lines: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float(line[name]) for line in lines if name in line]


def _mean_of_last_tenth(values: Sequence[float]) -> float | None:
    return float(np.mean(values[-max(1, len(values) // 10) :])) if values else None


def _compare(one: ConditionResult, reference: ConditionResult, expect: Expectation | None) -> Comparison:
    measure = "accuracy" if expect is None else expect.measure
    pairs = _pairs(one, reference, measure)
    if one.name == reference.name or not pairs:
        judgement: Judgement = "reference" if one.name == reference.name else "not measured"
        return Comparison(condition=one.name, judgement=judgement, measure=measure)
    differences = [MEASURES[measure][1] * (value - other) for value, other in pairs]
    p = None if expect is None else _paired_p(differences, measure in COUNTED)
    return Comparison(
        condition=one.name,
        judgement="no claim" if expect is None else "undecided",
        measure=measure,
        difference=_interval(differences, 100 if MEASURES[measure][1] == 100 else math.inf),
        p=p,
        seeds=len(pairs),
    )


def _interval(differences: Sequence[float], largest: float) -> MeanStd:
    """Return the mean of differences, none of which exceeds `largest`; without an interval if all are equal."""
    found = mean_std(differences, -largest, largest)
    return found if found.std else found.model_copy(update={"low": None, "high": None})


def _paired_p(differences: Sequence[float], counted: bool) -> float | None:
    """Return the two-sided p-value of a mean of 0; None for fewer than two differences.

    Student's t of continuous numbers; of counts, and where all differences are equal, the exact test that changes signs. Of
    yes-or-no differences that are all 1, t could have a larger p than if one of them is 0.
    """
    if len(differences) < 2:
        return None
    if counted or np.allclose(differences, differences[0]):
        found = stats.permutation_test(
            (np.array(differences),), np.mean, permutation_type="samples", n_resamples=MOST_SIGNS, vectorized=True, rng=0
        )
        return float(found.pvalue)
    count = len(differences)
    t = float(np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(count)))
    return float(2 * stats.t.sf(abs(t), count - 1))


def _pairs(one: ConditionResult, reference: ConditionResult, measure: str) -> list[tuple[float, float]]:
    shared = {seed.seed for seed in one.seeds} & {seed.seed for seed in reference.seeds}
    mine, others = one.values(measure, shared), reference.values(measure, shared)
    return [(mine[seed], others[seed]) for seed in mine if seed in others]


def _judge(found: Comparison, direction: str) -> Judgement:
    if found.difference is None or found.p is None or found.p >= 1 - LEVEL:
        return "undecided"
    return "supported" if (found.difference.mean < 0) == (direction == "lower") else "contradicted"
