"""Schema of a refinement's evaluation.json, and its tables for a terminal."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from pixelscope.config import Config, Natural
from pixelscope.errors import plural
from pixelscope.pixelda.results import Point, SetResult
from pixelscope.runs.record import ResultFile

Kept = Literal["mean", "refined", "start"]

SELECTORS = {
    "cluster agreement": "adjusted mutual information of the predictions with k-means clusters of the features",
    "information maximisation": "entropy of the mean prediction minus the mean entropy of predictions, in nats",
    "source validation": "accuracy on held-out source images",
}
"""Description of each criterion that selects a checkpoint without target labels; the highest value is selected."""


class ClassShare(Config):
    """Frequency of a predicted class."""

    name: str
    source: float
    """Fraction of the source's training images with this label."""
    start: float
    """Fraction of target images for which the T it started from predicts the class."""
    refined: float


class Guard(Config):
    """Whether a refinement likely helps, and which classifier is kept."""

    kept: Kept
    """Classifier used by `classify` and `export`."""
    reasons: tuple[str, ...]
    """Why the refinement likely harms, one sentence each; empty if it does not."""
    remarks: tuple[str, ...] = ()
    """What to look at although it does not decide, one sentence each."""
    advice: str = ""
    """What to do about it, in a sentence; empty if there is no advice, or the refinement is not finished."""
    criteria: dict[str, tuple[float, float]]
    """Per criterion, the values of the T it started from and of the refined classifier."""
    agreement: float
    """Fraction of target images with the same prediction."""
    start_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Weight of the T it started from in the mean of both."""
    pseudo_label_rate: float
    """Fraction of target images for which the refined classifier exceeds `self_training.threshold`, adaptive or not."""
    classes: tuple[ClassShare, ...]
    images: Natural | None = None
    """Number of target images compared; None in a file of an earlier version."""

    def sentences(self) -> tuple[str, ...]:
        """Return the verdict, its reasons, remarks and the advice, one sentence each."""
        effect = "harms" if self.kept == "start" else "helps"
        advice = (self.advice,) if self.advice else ()
        return (
            f"The refinement likely {effect} (estimated without target labels).",
            *self.reasons,
            *self.remarks,
            *advice,
            *self._used(),
        )

    def _used(self) -> tuple[str, ...]:
        """Return which classifier is used, unless it is the refined one."""
        alone = "--checkpoint ema-last uses the refined one"
        return {
            "mean": (
                f"It and the T it started from give the same class to {self.agreement:.0%} of {self.basis()}.",
                f"classify and export use the mean of both, T with a weight of {self.start_weight:.2f}; {alone} alone.",
            ),
            "start": (f"classify and export use the T it started from; {alone}.",),
            "refined": (),
        }[self.kept]

    def basis(self) -> str:
        """Return how many target images were compared, as `1,000 target images`."""
        return "target images" if self.images is None else plural(self.images, "target image")

    def to_text(self) -> str:
        """Return lines for a terminal."""
        verdict, *others = self.sentences()
        lines = [verdict, *(f"  {sentence}" for sentence in others)]
        above = f"{self.pseudo_label_rate:.0%} are above the fixed threshold"
        lines.append(f"  Both agree on {self.agreement:.0%} of {self.basis()}; {above}.")
        lines += [f"  {name:<20} start {before:.3f}  refined {after:.3f}" for name, (before, after) in self.criteria.items()]
        one = max(self.classes, key=lambda share: abs(share.refined - share.start))
        lines.append(
            f"  Largest change in class frequency: {one.name}, source {one.source:.1%}, start {one.start:.1%}, "
            f"refined {one.refined:.1%}"
        )
        return "\n".join(lines)


class Selection(Config):
    """A selected checkpoint and its accuracy."""

    criterion: str
    """What selected it: `ema-last` (the end of the schedule), a criterion of `SELECTORS`, or the oracle."""
    images: Natural
    target_test: float | None
    """None if the target has no labels."""
    gap: float | None
    """Difference to the oracle's accuracy."""


class Snapshot(Point):
    """Accuracy of a stored average, and the value of each criterion."""

    model_config = ConfigDict(populate_by_name=True)

    target_test: float | None = None
    cluster_agreement: float = Field(validation_alias="cluster agreement", serialization_alias="cluster agreement")
    information: float = Field(validation_alias="information maximisation", serialization_alias="information maximisation")
    source_validation: float = Field(validation_alias="source validation", serialization_alias="source validation")

    def criteria(self) -> dict[str, float]:
        """Return the value of each criterion by its name in `SELECTORS`."""
        return self.model_dump(by_alias=True, exclude={"images", "target_test"})


class RefinementResult(ResultFile):
    """The result of a refinement; the content of evaluation.json."""

    system: Literal["refined"]
    run: str
    """The run that it started from."""
    images: Natural
    classes: list[str]
    checkpoint: str
    sets: dict[str, SetResult]
    """Results of that checkpoint."""
    before: dict[str, float]
    """Accuracy of the T that it started from, by set."""
    start_sha256: str = ""
    """SHA-256 of the weights of that T; empty in a file of an earlier version."""
    mean: dict[str, float] = Field(default_factory=dict)
    """Accuracy of the mean of both, by set; empty if the refinement went on from T's weights."""
    selections: list[Selection]
    curve: list[Snapshot]
    parameters: Natural
    guard: Guard
    """Whether it likely helps, estimated without target labels, and which classifier is used."""
    notes: tuple[str, ...] = ()
    """What could not be measured, with the reason."""

    @model_validator(mode="after")
    def _check_mean(self) -> "RefinementResult":
        if (self.mean or self.guard.kept == "mean") and self.mean.keys() != self.sets.keys():
            raise ValueError("mean has other sets of images than sets; evaluate the refinement again")
        return self

    def to_text(self) -> str:
        """Return tables for a terminal."""
        lines = [f"{self.system} from {self.run}: {self.images:,} images of each kind, {self.parameters:,} parameters"]
        for name, found in self.sets.items():
            others = {"before": self.before, "mean of both": self.mean}
            before = "".join(f", {which} {values[name]:.2%}" for which, values in others.items() if name in values)
            lines.append(
                f"{name}: {found.accuracy:.2%} +- {found.standard_error:.2%} ({found.correct:,} of {found.count:,}){before}"
            )
        choice = len(self.curve) > 1
        lines.append(f"target test split by checkpoint{'' if choice else '; one was stored, so that there was no choice'}")
        for one in self.selections:
            reached = "not known" if one.target_test is None else f"{one.target_test:.2%}"
            gap = "" if one.gap is None or not choice else f", {100 * one.gap:.2f} points below the oracle"
            lines.append(f"  {one.criterion:<36} {reached:>9} at {one.images:,} images{gap}")
        return "\n".join([*lines, *self.notes, self.guard.to_text()])
