"""The schemas of ablation.json and search.json, and their tables for a terminal and for the report."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from pixelscope.config import Config, Natural
from pixelscope.pixelda.results import DECIDES, Verdict
from pixelscope.runs.record import ResultFile

Judgement = Literal["supported", "contradicted", "undecided", "no claim", "not measured", "reference"]
Cells = tuple[str, ...]

HEADER = ("condition", "seeds", "mean", "std", "95% of the mean", "swing, points", "swapped classes", "collapsed")
"""Columns of the table of conditions; mean, std and interval are of the target accuracy, swapped classes of each seed."""

COMPARISON_HEADER = ("condition", "claim", "outcome", "measure", "difference", "95% interval", "p", "seeds")
"""Columns of the table of claims; the difference is condition less reference, and p is corrected (Holm)."""

TRIAL_HEADER = ("trial", "likely better", DECIDES, "swapped classes", "content warnings", "accuracy with target labels")
"""Columns of the table of trials; view information and accuracy are those of T of the source alone and of the adapted T."""

ABLATION, SEARCH = "ablation.json", "search.json"
"""The result files in a folder of runs."""

RUNS, SAMPLES = "conditions", "samples.npz"
"""The run folders in a folder of runs, and the arrays of images that its report shows."""

MEASURES = {
    "accuracy": ("target accuracy, points", 100),
    "accuracy_deviation": ("deviation over seeds, points", 100),
    "accuracy_swing": ("swing, points", 100),
    "swapped_classes": ("swapped classes", 1),
    "collapsed": ("collapsed runs, %", 100),
}
"""What is compared: its title, and the factor to the title's unit."""


class MeanStd(Config):
    """A number over seeds: its mean, standard deviation and the 95% interval of the mean by Student's t."""

    mean: float
    std: float | None
    """None for one seed."""
    low: float | None
    high: float | None


class SeedResult(Config):
    """The result of one run."""

    seed: int
    run: str
    accuracy: float
    """On the target's test split, by the run's headline checkpoint."""
    accuracy_swing: float | None
    """Standard deviation of T's target accuracy around a line, over the last half of the evaluations; None for fewer than
    three."""
    collapsed: bool | None
    """Whether T's last target accuracy is less than half of its best of this run; None if no curve was measured."""
    source_accuracy: float
    swapped_classes: Natural
    """Number of classes that are most often predicted as another one."""
    diversity: float | None
    """Variation of generated images over z at the end; see `diagnostics.diversity`."""
    probability_real: float | None
    """D's mean probability of `real` for target images, over the last tenth of the training."""
    probability_generated: float | None
    """The same for generated images."""
    warnings: Natural
    curve: list[tuple[Natural, float]]
    """Images seen and target accuracy of the averaged classifier, or of T where no average is kept."""


class ConditionResult(Config):
    """The results of one condition over its seeds."""

    name: str
    claim: str
    seeds: list[SeedResult]
    missing: dict[int, str]
    """Seeds without a result, with the reason."""
    accuracy: MeanStd | None
    accuracy_swing: MeanStd | None

    def values(self, measure: str, seeds: Collection[int]) -> dict[int, float]:
        """Return what is measured by `measure`, one of `MEASURES`, by seed, of some seeds."""
        some = [one for one in self.seeds if one.seed in seeds]
        if measure == "accuracy_deviation":
            median = float(np.median([one.accuracy for one in some])) if some else 0.0
            return {one.seed: abs(one.accuracy - median) for one in some}
        return {one.seed: value for one in some if (value := getattr(one, measure)) is not None}

    def row(self, reference: str) -> Cells:
        """Return the cells under `HEADER`."""
        name = f"{self.name} (reference)" if self.name == reference else self.name
        found, swing = self.accuracy, self.accuracy_swing
        if found is None:
            return (name, "0", *[""] * (len(HEADER) - 2))
        return (
            name,
            str(len(self.seeds)),
            f"{found.mean:.2%}",
            "" if found.std is None else f"{100 * found.std:.2f}",
            "" if found.low is None or found.high is None else f"{found.low:.2%} to {found.high:.2%}",
            "" if swing is None else f"{100 * swing.mean:.2f}",
            ", ".join(str(seed.swapped_classes) for seed in self.seeds),
            _collapsed(self.seeds),
        )


class Comparison(Config):
    """A condition compared with the reference: does its difference support its claim?"""

    condition: str
    judgement: Judgement
    measure: str
    difference: MeanStd | None = None
    """Condition minus reference, paired by seed, in the unit of `MEASURES`."""
    p: float | None = None
    """Probability of a difference at least this large if there is no effect: a paired t-test, or for counts
    an exact test of signs, corrected for all tests of the grid (Holm 1979). None for fewer than two seeds."""
    seeds: Natural = 0
    """Number of seeds that both have."""

    def row(self, claim: str) -> Cells:
        """Return the cells under `COMPARISON_HEADER`."""
        found = self.difference
        mean = "" if found is None else _signed(found.mean)
        interval = (
            "" if found is None or found.low is None or found.high is None else f"{_signed(found.low)} to {_signed(found.high)}"
        )
        p = "" if self.p is None else "<0.001" if self.p < 0.001 else f"{self.p:.3f}"
        return (self.condition, claim, self.judgement, MEASURES[self.measure][0], mean, interval, p, str(self.seeds))


class AblationResult(ResultFile):
    """The result of an ablation; the content of ablation.json."""

    remedy: ClassVar[str] = "run the ablation again with --resume"

    out: str
    grid: str
    reference: str
    """The condition that the others are compared with."""
    conditions: list[ConditionResult]
    comparisons: list[Comparison]

    @property
    def missing(self) -> list[str]:
        """Return a sentence per seed without a result."""
        return [f"{one.name}, seed {seed}: {reason}" for one in self.conditions for seed, reason in one.missing.items()]

    def rows(self) -> list[Cells]:
        """Return the rows under `HEADER`."""
        return [one.row(self.reference) for one in self.conditions]

    def comparison_rows(self) -> list[Cells]:
        """Return the rows under `COMPARISON_HEADER`."""
        claims = {one.name: one.claim for one in self.conditions}
        return [one.row(claims[one.condition]) for one in self.comparisons if one.judgement != "reference"]

    def to_text(self) -> str:
        """Return tables for a terminal."""
        claims = [(row[0], *row[2:], row[1]) for row in (COMPARISON_HEADER, *self.comparison_rows())]
        return "\n".join([*_columns([HEADER, *self.rows()]), *self.missing, "", *_columns(claims)])


class Trial(Config):
    """One condition of a search, trained for a short time."""

    name: str
    about: str
    """What it is, in a sentence."""
    settings: dict[str, Any]
    """The settings in which it differs from the other trials; its run's config.yaml has all."""
    run: str
    verdict: Verdict | None = None
    """T of the source alone compared with the adapted T, without target labels; None if the trial failed."""
    content_warnings: Natural = 0
    """Number of warnings that G changes what images show."""
    with_target_labels: tuple[float, float] | None = None
    """Accuracies of both on the target's test split, where its labels are known. They choose nothing."""
    test_images: Natural | None = None
    """Number of labelled images of the target's test split; None if there are none."""
    discordant: Natural | None = None
    """Number of them that only one of both classifies correctly; None if it is not known."""
    failed: str = ""
    """Why it failed; empty if it did not."""

    @property
    def information(self) -> tuple[float, float]:
        """Return the value that decides, of T of the source alone and of the adapted T; zeros for a failed trial."""
        return (0.0, 0.0) if self.verdict is None else self.verdict.criteria[DECIDES]

    @property
    def contradiction(self) -> str:
        """Return a sentence if target labels contradict the verdict; empty if they do not, or are not known."""
        if self.verdict is None or self.with_target_labels is None or not self.test_images:
            return ""
        return self.verdict.contradicted_by(*self.with_target_labels, self.test_images, self.discordant)

    def row(self, chosen: bool) -> Cells:
        """Return the cells under `TRIAL_HEADER`."""
        name = f"{self.name} (chosen)" if chosen else self.name
        if self.verdict is None:
            return (name, "failed", *[""] * (len(TRIAL_HEADER) - 2))
        before, after = self.information
        known = self.with_target_labels
        return (
            name,
            self.verdict.better,
            f"{before:.3f} -> {after:.3f}",
            f"{self.verdict.swapped:.0%}",
            str(self.content_warnings),
            "not known" if known is None else f"{known[0]:.2%} -> {known[1]:.2%}",
        )


class SearchResult(ResultFile):
    """The result of a search; the content of search.json."""

    remedy: ClassVar[str] = "run the search again with --resume"

    out: str
    grid: str
    trials: list[Trial]
    chosen: str | None
    """Name of the trial to continue with; None if no trial is likely better than T of the source alone."""
    reason: str
    command: str | None
    """The command that trains the chosen settings in full size."""
    kept: tuple[str, ...] = ()
    """Settings of the grid's base and of the user that settings.yaml keeps, by dotted name."""
    left_out: tuple[str, ...] = ()
    """Settings of the trials that settings.yaml leaves out, because they make trials small or short."""

    @property
    def failed(self) -> list[str]:
        """Return a sentence per trial that failed."""
        return [f"{trial.name} failed: {trial.failed}" for trial in self.trials if trial.failed]

    @property
    def contradictions(self) -> list[str]:
        """Return a sentence per trial whose verdict the target labels contradict."""
        return [f"{trial.name}: {trial.contradiction}" for trial in self.trials if trial.contradiction]

    def rows(self) -> list[Cells]:
        """Return the rows under `TRIAL_HEADER`."""
        return [trial.row(trial.name == self.chosen) for trial in self.trials]

    def to_text(self) -> str:
        """Return a table, the choice and the next command for a terminal."""
        command = [] if self.command is None else ["To train it in full size:", f"  {self.command}", *self.about_settings()]
        table = _columns([TRIAL_HEADER, *self.rows()])
        return "\n".join([*table, "", *self.failed, *self.contradictions, self.reason, *command])

    def about_settings(self) -> list[str]:
        """Return sentences on what settings.yaml keeps and leaves out."""
        kept = [f"Its settings keep {', '.join(self.kept)}."] if self.kept else []
        return kept + ([f"They leave out {', '.join(self.left_out)}, which make trials short."] if self.left_out else [])


def _collapsed(seeds: Sequence[SeedResult]) -> str:
    known = [seed.collapsed for seed in seeds if seed.collapsed is not None]
    return f"{sum(known)} of {len(known)}" if known else ""


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _columns(rows: Sequence[Cells]) -> list[str]:
    """Return rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
