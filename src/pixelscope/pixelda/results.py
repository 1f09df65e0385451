"""Schema of evaluation.json of PixelDA and its baseline, and its tables for a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pixelscope.config import Config, Natural
from pixelscope.errors import InputError, plural
from pixelscope.runs.folder import read_arrays
from pixelscope.runs.record import ResultFile

if TYPE_CHECKING:
    import numpy as np

ORACLE = "oracle: chosen with target labels"

UNFINISHED = "The training is not finished"
"""Begin of the note on an evaluation before the end of the training."""

LEFT_OUT = "images by their labels"
"""Part of the note of run.json on target images that --data.classes source has left out."""

DECIDES = "view information"
"""Criterion that decides the verdict, unless classes are swapped; the others are only shown."""

SWAPPED = 0.1
"""Maximum fraction of target images in swapped classes; above, adaptation harms."""

FEW = 500
"""Number of target images below which a verdict is uncertain."""

Better = Literal["adapted", "source only", "neither", "unknown"]
Choose = Literal["adapted", "auto"]
"""Classifier of a run to use: the adapted T, or the one that the verdict prefers."""

EFFECTS: dict[Better, str] = {
    "adapted": "adaptation likely helps",
    "source only": "adaptation likely harms",
    "neither": "adaptation likely makes no difference",
    "unknown": "whether adaptation helps is unknown",
}
"""What each verdict says."""


def chosen_by_labels(notes: Sequence[str]) -> bool:
    """Return whether labels chose the images of a domain, by its notes in run.json."""
    return any(LEFT_OUT in note for note in notes)


class ClassAccuracy(Config):
    """Accuracy on the images of one class."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(validation_alias="class", serialization_alias="class")
    count: Natural
    accuracy: float | None
    """None if the set has no image of the class."""


class SetResult(Config):
    """Accuracy on one set of labelled images."""

    title: str
    count: Natural
    correct: Natural
    accuracy: float
    standard_error: float
    """Binomial standard error of the accuracy."""
    per_class: tuple[ClassAccuracy, ...]
    confusion: list[list[Natural]]
    """Counts; rows are true classes, columns predicted ones."""

    @model_validator(mode="after")
    def _check_square(self) -> Self:
        if [len(row) for row in self.confusion] != [len(self.per_class)] * len(self.per_class):
            raise ValueError("the confusion matrix has other rows or columns than there are classes")
        return self


class Point(Config):
    """Measurements after a number of images; absent ones are omitted from the file."""

    images: Natural

    @model_serializer(mode="wrap")
    def _measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class CheckpointResult(Point):
    """Accuracy of a checkpoint by set."""

    source_test: float | None = None
    target_test: float | None = None
    target_test_partly_seen: float | None = None
    target_all: float | None = None

    def accuracies(self) -> dict[str, float]:
        """Return the measured accuracies by set."""
        return {name: value for name, value in self if name != "images" and value is not None}


class CurvePoint(Point):
    """Accuracies of the classifier stored at one point of the training; `ema` is its moving average."""

    step: Natural
    source_train: float | None = None
    source_test: float | None = None
    target_test: float | None = None
    ema_target_test: float | None = None


class Oracle(Config):
    """Best result of a selection by target labels."""

    label: str
    images: Natural
    target_test: float


class Verdict(Config):
    """Which classifier is likely more accurate on the target."""

    better: Better
    criteria: dict[str, tuple[float, float]]
    """Per criterion, the values of T of the source alone and of the adapted T."""
    agreement: float
    """Fraction of target images with the same prediction."""
    swapped: float
    """Fraction of target images in classes whose names the classifiers exchange, in [0, 1]."""
    images: Natural | None = None
    """Number of target images compared; None in a file of an earlier version."""
    source_images: Natural | None = None
    """Number of source images that the source accuracy is measured on."""
    unlearned: str = ""
    """Which T has not learned the source, so that there is no verdict; empty if both have."""

    def headline(self) -> str:
        """Return the verdict in one sentence."""
        effect = EFFECTS[self.better].capitalize()
        if self.better == "unknown":
            return (
                f"{effect}: {self.unlearned} has not learned the source, because its accuracy there is not clearly above "
                "chance. Train longer, check the labels, or give more source images."
            )
        more = ": T of the source alone is likely more accurate on the target" if self.better == "source only" else ""
        why = f"by {DECIDES}" if self.swapped <= SWAPPED else "as the adapted T swaps classes"
        return f"{effect}{more}, {why}; estimated without target labels."

    def basis(self) -> str:
        """Return on how many images the verdict is based, and whether they are few; empty if the numbers are not known."""
        if self.images is None or self.source_images is None:
            return ""
        few = f" With fewer than {FEW} target images the verdict is uncertain." if self.images < FEW else ""
        target, source = plural(self.images, "target image"), plural(self.source_images, "source image")
        return f"Measured on {target} and {source}.{few}"

    def contradicted_by(self, before: float, after: float, count: int, discordant: int | None = None) -> str:
        """Return a sentence if target labels contradict the verdict by more than two standard errors, else nothing.

        The accuracies are of the same images, so that the standard error of their difference is that of McNemar's test.

        Args:
            before: accuracy of T of the source alone on the target's test split.
            after: accuracy of the adapted T.
            count: number of test images.
            discordant: see `paired_error`.
        """
        gain, error = after - before, 2 * paired_error(before, after, count, discordant)
        found = "adapted" if gain > error else "source only" if gain < -error else None
        if found in (None, self.better) or self.better == "unknown":
            return ""
        return "The target labels contradict the verdict."

    def to_text(self) -> str:
        """Return lines for a terminal."""
        agreed = f"Both agree on {self.agreement:.0%} of images."
        lines = [" ".join(filter(None, (self.headline(), agreed))), *filter(None, [self.basis()])]
        lines += [
            f"  {name:<20} source only {before:.3f}  adapted {after:.3f}" for name, (before, after) in self.criteria.items()
        ]
        return "\n".join(lines)


class Evaluation(ResultFile):
    """Results of a run per checkpoint; the content of evaluation.json."""

    system: Literal["baseline", "pixelda"]
    images: Natural
    steps: Natural
    classes: list[str]
    checkpoint: str
    """Name of the checkpoint measured in `sets`."""
    checkpoints: dict[str, CheckpointResult]
    """Accuracies of the checkpoints; none of them is selected by target labels."""
    sets: dict[str, SetResult]
    oracle: Oracle | None
    """Best accuracy on the target's test split among the classifiers stored in training and the checkpoints."""
    curve: list[CurvePoint]
    """Accuracies of the classifiers stored in training."""
    notes: tuple[str, ...] = ()
    """What could not be measured, with the reason."""
    source_only: dict[str, float] | None = None
    """Accuracies of T of the source alone on the same sets, if the run trained one."""
    discordant: Natural | None = None
    """Number of images of `target_test` that only one of the two classifiers classifies correctly; None if it is not known."""
    verdict: Verdict | None = None
    """Whether adaptation likely helps, estimated without target labels; None without a T of the source alone."""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        names = tuple(self.classes)
        other = next((key for key, found in self.sets.items() if tuple(entry.name for entry in found.per_class) != names), None)
        if other is not None:
            raise ValueError(f"the set {other} has other classes")
        return self

    @property
    def measured_images(self) -> int:
        """Return the images seen at the newest checkpoint that was measured, which need not be the headline's."""
        return max([self.images, *(one.images for one in self.checkpoints.values())])

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.steps:,} steps; checkpoint {self.checkpoint}"
        tables = ["\n".join(_set_lines(name, result, self.classes)) for name, result in self.sets.items()]
        return "\n\n".join([head, *tables, "\n".join(self._checkpoint_lines()), *self.notes, *self._verdict_lines()])

    def _verdict_lines(self) -> list[str]:
        if self.verdict is None:
            return []
        lines = [self.verdict.to_text()]
        if "target_test" in self.sets and self.source_only is not None:
            before, after = self.source_only["target_test"], self.sets["target_test"].accuracy
            text = f"With target labels: source only {before:.2%}, adapted {after:.2%} on the target's test split."
            lines.append(f"{text} {self.contradiction()}".rstrip())
        return ["\n".join(lines)]

    def contradiction(self) -> str:
        """Return a sentence if target labels contradict the verdict; empty if they do not, or are not known."""
        if self.verdict is None or self.source_only is None or "target_test" not in self.sets:
            return ""
        after = self.sets["target_test"]
        return self.verdict.contradicted_by(self.source_only["target_test"], after.accuracy, after.count, self.discordant)

    def _checkpoint_lines(self) -> list[str]:
        lines = ["accuracy by checkpoint"]
        for name, result in self.checkpoints.items():
            found = result.accuracies()
            lines.append(f"  {name:<12} {'  '.join(f'{key} {found[key]:.2%}' for key in self.sets if key in found)}")
        if self.oracle is not None:
            lines.append(f"  {'oracle':<12} target_test {self.oracle.target_test:.2%}  (chosen with target labels)")
        return lines


def standard_error(accuracy: float, count: int) -> float:
    """Return the standard error of an accuracy on `count` images."""
    return (accuracy * (1 - accuracy) / count) ** 0.5


def paired_error(before: float, after: float, count: int, discordant: int | None = None) -> float:
    """Return the standard error of the difference of two accuracies on the same images, as in McNemar's test.

    Args:
        before, after: the accuracies.
        count: number of images.
        discordant: number of images that only one of both classifies correctly. None: as many as are expected if the errors of
            both are independent.
    """
    differing = before * (1 - after) + after * (1 - before) if discordant is None else discordant / count
    return (differing / count) ** 0.5


def read_samples(path: Path, dimensions: Mapping[str, int], classes: int) -> "dict[str, np.ndarray] | None":
    """Read sample images with their labels; None if the file is missing, or an array is empty.

    Args:
        path: a file in samples/ of a run folder.
        dimensions: number of dimensions of each array to read; labels and predictions are -1 where unknown.
        classes: number of classes of the run.

    Raises:
        InputError: the file is damaged, or a label names no class.
    """
    arrays = read_arrays(path, dimensions)
    for name, array in (arrays or {}).items():
        named = name.endswith(("labels", "predictions"))
        if named and (array.dtype.kind not in "iu" or array.min() < -1 or array.max() >= classes):
            raise InputError(f"{path} is damaged: its {name} are not of {plural(classes, 'class')}; evaluate the run again.")
    return arrays


TABLE_CLASSES = 12
"""Maximum number of classes of a confusion matrix in a terminal."""

CONFUSIONS = 10
"""Number of most frequent confusions listed instead."""


def _set_lines(name: str, result: SetResult, classes: list[str]) -> list[str]:
    head = (
        f"{name}: {result.accuracy:.2%} +- {result.standard_error:.2%} ({result.correct:,} of {result.count:,}), {result.title}"
    )
    return [head, *(_matrix(result, classes) if len(classes) <= TABLE_CLASSES else _most_frequent(result, classes))]


def _matrix(result: SetResult, classes: list[str]) -> list[str]:
    width = max(5, *(len(c) for c in classes), *(len(str(n)) for row in result.confusion for n in row))
    lines = ["  " + " ".join(f"{c:>{width}}" for c in ("true", "acc.", *classes))]
    for entry, row in zip(result.per_class, result.confusion, strict=True):
        accuracy = "-" if entry.accuracy is None else f"{entry.accuracy:.1%}"
        lines.append("  " + " ".join(f"{c:>{width}}" for c in (entry.name, accuracy, *row)))
    return lines


def _most_frequent(result: SetResult, classes: list[str]) -> list[str]:
    """Return the lowest class accuracies and the most frequent confusions; the result file has all."""
    known = sorted((entry for entry in result.per_class if entry.accuracy is not None), key=lambda entry: entry.accuracy or 0)
    lowest = ", ".join(f"{entry.name} {entry.accuracy:.0%}" for entry in known[:CONFUSIONS])
    wrong = [
        (count, f"{classes[true]} as {classes[predicted]}: {count:,}")
        for true, row in enumerate(result.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    most = ", ".join(text for _, text in sorted(wrong, key=lambda one: -one[0])[:CONFUSIONS])
    return [f"  lowest accuracy by class: {lowest}", f"  most frequent confusions: {most or 'none'}"]
