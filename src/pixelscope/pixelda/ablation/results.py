"""What ablation.json and search.json say: their schemas, and their tables for a terminal."""

from typing import Any, ClassVar, Literal

from pixelscope.config import Config
from pixelscope.pixelda.results import DECIDES, Verdict
from pixelscope.runs.record import ResultFile

Judgement = Literal["supported", "contradicted", "undecided", "not measured", "reference"]

HEADER = ("trial", "likely better", "information", "same classes", "content warnings", "accuracy with target labels")
"""Columns of the table of trials; information and accuracy are those of T of the source alone and of the adapted T."""


class MeanStd(Config):
    """A number over seeds: its mean, standard deviation and the 95% interval of the mean by Student's t."""

    mean: float
    std: float | None
    """None of one seed."""
    low: float | None
    high: float | None


class SeedResult(Config):
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


class ConditionResult(Config):
    """One cell over its seeds."""

    name: str
    claim: str
    outcomes: list[SeedResult]
    missing: dict[int, str]
    """Why a seed is not among them."""
    accuracy: MeanStd | None
    unsteadiness: MeanStd | None

    def to_text(self) -> str:
        """Return its row of the table for a terminal."""
        found, swing = self.accuracy, self.unsteadiness
        accuracy = "-" if found is None else f"{found.mean:.2%}"
        if found is not None and found.std is not None and found.low is not None and found.high is not None:
            accuracy += f" +- {found.std:.2%} [{found.low:.2%}, {found.high:.2%}]"
        swings = "-" if swing is None else f"{100 * swing.mean:.2f}"
        return f"{self.name:<24}{len(self.outcomes):>6}  {accuracy:<48}{swings:>14}"


class ClaimVerdict(Config):
    """A judgement on a claim."""

    cell: str
    judgement: Judgement
    words: str
    """A sentence or two, made from the numbers."""
    difference: MeanStd | None = None
    """Cell less reference, paired by seed, in points of percent."""


class AblationResult(ResultFile):
    """What a grid came to; the content of ablation.json."""

    remedy: ClassVar[str] = "run the ablation again with --resume"

    out: str
    grid: str
    cells: list[ConditionResult]
    verdicts: list[ClaimVerdict]

    def to_text(self) -> str:
        """Return a table and the verdicts for a terminal."""
        lines = [f"{'cell':<24}{'seeds':>6}  {'target accuracy, mean +- std [95% of the mean]':<48}{'swing, points':>14}"]
        lines += [cell.to_text() for cell in self.cells]
        lines += [f"{cell.name}, seed {seed}: {why}" for cell in self.cells for seed, why in cell.missing.items()]
        lines += ["", *(f"{one.cell}: {one.judgement}. {one.words}" for one in self.verdicts if one.judgement != "reference")]
        return "\n".join(lines)


class Trial(Config):
    """One setting, tried."""

    name: str
    about: str
    """What it is, a sentence."""
    settings: dict[str, Any]
    """What tells it apart from the other trials; everything is in its run's config.yaml."""
    run: str
    verdict: Verdict | None = None
    """T of the source alone next to the adapted T, without target labels; None where the trial failed."""
    content_warnings: int = 0
    """Warnings that G changes what images show."""
    with_target_labels: tuple[float, float] | None = None
    """True accuracies of both on the target's test split, where its labels are known. They choose nothing."""
    failed: str = ""
    """Why it failed; empty where it did not."""

    @property
    def information(self) -> tuple[float, float]:
        """Return what the choice goes by, of T of the source alone and of the adapted T; a failed trial has none."""
        return (0.0, 0.0) if self.verdict is None else self.verdict.rules[DECIDES]


class SearchResult(ResultFile):
    """What a search came to; the content of search.json."""

    remedy: ClassVar[str] = "run the search again with --resume"

    out: str
    grid: str
    trials: list[Trial]
    chosen: str | None
    """Name of the trial to go on with; None where no trial is likely better than T of the source alone."""
    why: str
    command: str | None
    """The command that trains the chosen settings in full size."""

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of each trial's row under `HEADER`."""
        return [_row(trial, trial.name == self.chosen) for trial in self.trials]

    def to_text(self) -> str:
        """Return a table, the choice and how to go on for a terminal."""
        rows = [HEADER, *self.rows()]
        widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADER))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]
        lines += ["", *(f"{trial.name} failed: {trial.failed}" for trial in self.trials if trial.failed), self.why]
        return "\n".join([*lines, *([] if self.command is None else ["Go on in full size:", f"  {self.command}"])])


def _row(trial: Trial, chosen: bool) -> tuple[str, ...]:
    name = f"{trial.name} (chosen)" if chosen else trial.name
    if trial.verdict is None:
        return (name, "failed", *[""] * (len(HEADER) - 2))
    before, after = trial.information
    known = trial.with_target_labels
    return (
        name,
        trial.verdict.better,
        f"{before:.3f} -> {after:.3f}",
        f"{trial.verdict.same_classes:.0%}",
        str(trial.content_warnings),
        "not known" if known is None else f"{known[0]:.2%} -> {known[1]:.2%}",
    )
