"""What evaluation.json of a refinement says: its schema, and its tables for a terminal."""

from typing import Literal

from pydantic import ConfigDict, Field

from pixelscope.config import Config
from pixelscope.pixelda.results import Point, SetResult
from pixelscope.runs.record import ResultFile

Kept = Literal["refined", "start"]


class ClassShare(Config):
    """How often a class is answered."""

    name: str
    source: float
    """Share of the source's training images."""
    start: float
    """Share of target images that the T it started from takes for it."""
    refined: float


class Guard(Config):
    """What tells whether a refinement helps, and which classifier is kept."""

    kept: Kept
    """Which one `classify` and `export` use."""
    reasons: tuple[str, ...]
    """Why the refined one likely harms; empty where it does not."""
    rules: dict[str, tuple[float, float]]
    """By rule: the value of the T it started from, and of the refined classifier."""
    agreement: float
    """Share of target images to which both give the same answer."""
    trusted: float
    """Share of target images of which the refined classifier is sure enough to teach itself."""
    classes: tuple[ClassShare, ...]

    def to_text(self) -> str:
        """Return it in lines for a terminal."""
        what = "The refinement likely helps"
        if self.kept == "start":
            what = f"The refinement likely harms: {'; '.join(self.reasons)}"
        lines = [f"{what}; told without target labels."]
        if self.kept == "start":
            lines.append("classify and export use the T it started from; --rule ema-last takes the refined one all the same.")
        lines.append(f"  Both agree on {self.agreement:.0%} of target images; {self.trusted:.0%} are trusted.")
        lines += [f"  {rule:<20} start {before:.3f}  refined {after:.3f}" for rule, (before, after) in self.rules.items()]
        one = max(self.classes, key=lambda share: abs(share.refined - share.source))
        lines.append(
            f"  Furthest from its share of the source, {one.source:.1%}: class {one.name}, start {one.start:.1%}, "
            f"refined {one.refined:.1%}"
        )
        return "\n".join(lines)


class Selection(Config):
    """The checkpoint that a rule chooses, and what it reaches."""

    rule: str
    images: int
    target_test: float | None
    """None where the target has no labels to measure by."""
    gap: float | None
    """By how much the oracle is better."""


class Snapshot(Point):
    """What a stored average reaches, and the value of each rule that needs no target label."""

    model_config = ConfigDict(populate_by_name=True)

    target_test: float | None = None
    cluster_agreement: float = Field(validation_alias="cluster agreement", serialization_alias="cluster agreement")
    information: float = Field(validation_alias="information maximisation", serialization_alias="information maximisation")
    source_validation: float = Field(validation_alias="source validation", serialization_alias="source validation")

    def rules(self) -> dict[str, float]:
        """Return the value of each rule, by its name in `SELECTORS`."""
        return self.model_dump(by_alias=True, exclude={"images", "target_test"})


class RefinementResult(ResultFile):
    """What a refinement reaches; the content of evaluation.json."""

    system: Literal["refined"]
    run: str
    """The run that it started from."""
    images: int
    classes: list[str]
    rule: str
    sets: dict[str, SetResult]
    """By the headline rule."""
    before: dict[str, float]
    """Accuracy of the T that it started from, by set."""
    rules: list[Selection]
    curve: list[Snapshot]
    parameters: int
    guard: Guard
    """Whether it likely helps, told without target labels, and which classifier is used."""
    notes: tuple[str, ...] = ()
    """What was given and not measured, with the reason."""

    def to_text(self) -> str:
        """Return tables for a terminal."""
        lines = [f"{self.system} from {self.run}: {self.images:,} images of each kind, {self.parameters:,} parameters"]
        for name, found in self.sets.items():
            before = f", before {self.before[name]:.2%}" if name in self.before else ""
            lines.append(
                f"{name}: {found.accuracy:.2%} +- {found.standard_error:.2%} ({found.correct:,} of {found.count:,}){before}"
            )
        lines.append("target test by the rule that chose the checkpoint")
        for one in self.rules:
            reached = "not known" if one.target_test is None else f"{one.target_test:.2%}"
            gap = "" if one.gap is None else f", {100 * one.gap:.2f} points under the oracle"
            lines.append(f"  {one.rule:<36} {reached:>9} at {one.images:,} images{gap}")
        return "\n".join([*lines, *self.notes, self.guard.to_text()])
