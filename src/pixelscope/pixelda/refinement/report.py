"""The report on a refinement."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pixelscope.pixelda.refinement.config import RefineConfig, read_refinement
from pixelscope.pixelda.refinement.guard import CRITERIA
from pixelscope.pixelda.refinement.results import SELECTORS, Guard, RefinementResult, Snapshot
from pixelscope.pixelda.report.result import CONFUSION_CAPTION, confusion_matrices
from pixelscope.pixelda.results import ORACLE, chosen_by_labels, standard_error
from pixelscope.reports.document import CaptionedFigure, Part, Row, Section, Table, record_section
from pixelscope.reports.plotting import (
    BLUE,
    DASHED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    count_images,
    count_percent,
    legend_below,
    padded_figure,
    series,
    styled,
)
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.record import RunRecord, parse_record

CLASSES = 20
"""Largest number of classes listed."""
ASSUMED = {
    "predicted": ", assuming the class frequencies that T predicted before",
    "source": ", assuming the source's class frequencies",
    "none": "",
}
"""What the page says of each `distribution_alignment`."""
SETS = {"target_test": "target test split", "target_all": "all target images", "source_test": "source test split"}


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on a refinement.

    Raises:
        InputError: `run` is not a refinement, or a file in it is damaged.
    """
    folder = RunFolder.open(run)
    stored = read_refinement(folder)
    config, record = stored.config, parse_record(stored.record, folder.record)
    numbers = RefinementResult.load(folder.evaluation) if folder.evaluation.is_file() else None
    lines = read_stats(folder.stats)
    middle = [_training(lines)]
    if numbers is not None:
        middle = [_result(numbers), _guard(numbers.guard), _choosing(numbers), _classes(numbers), *middle]
    warnings = sum(line["kind"] == "warning" for line in lines)
    return [
        _summary(config, numbers, record),
        *(section for section in middle if section.parts),
        record_section(folder, record, warnings),
    ]


def _summary(config: RefineConfig, numbers: RefinementResult | None, record: RunRecord) -> Section:
    stages = []
    if config.generated.enabled:
        stages.append("images generated from the source")
    if config.self_training.enabled:
        assumed = ASSUMED[config.self_training.distribution_alignment]
        start = " and the T that it started from" if config.self_training.start_weight else ""
        teacher = config.self_training.teacher or f"a moving average of the classifier{start}"
        stages.append(f"target images with confident pseudo-labels by {teacher}{assumed}")
    weights = config.regularization
    losses = {"entropy": weights.entropy, "virtual adversarial training": weights.virtual_adversarial}
    used = [name for name, weight in losses.items() if weight]
    if used:
        stages.append(f"target images without labels ({', '.join(used)})")
    listed = "; ".join(("the source", *stages))
    labels = "No target label was used in training."
    if "target" in record.data and chosen_by_labels(record.data["target"].notes):
        labels = "Target labels only left out images of classes that the source lacks (--data.classes source)."
    what = f"A classifier was trained on: {listed}. {labels}"
    if numbers is None:
        return Section("Refinement", "summary", prose=(what,), headline="Not evaluated yet, so no accuracy is known.")
    found, before = numbers.sets.get("target_test"), numbers.before.get("target_test")
    headline = "The target has no labels, so its accuracy is unknown."
    if found is not None and before is not None:
        headline = f"Target test: {_with_error(found.accuracy, found.count)}, before {before:.2%}."
        if numbers.guard.kept == "mean" and record.images == numbers.images:
            mean, alone = _with_error(numbers.mean["target_test"], found.count), f"{found.accuracy:.2%}"
            headline = f"Target test: {mean}, by the mean of T ({before:.2%}) and the refined classifier ({alone})."
    return Section("Refinement", "summary", prose=(what,), headline=headline, notes=_notes(numbers, record))


def _notes(numbers: RefinementResult, record: RunRecord) -> tuple[str, ...]:
    harm = " ".join(numbers.guard.sentences()) if numbers.guard.kept == "start" else ""
    outdated = ""
    if record.images > numbers.images:
        outdated = (
            f"The refinement continued to {record.images:,} images after it was evaluated at {numbers.images:,}; evaluate it "
            "again."
        )
    return tuple(filter(None, (harm, outdated, *numbers.notes)))


def _result(numbers: RefinementResult) -> Section:
    rows = [
        Row(
            (
                title,
                f"{found.count:,}",
                _percent(numbers.before.get(name)),
                _with_error(found.accuracy, found.count),
                *((_with_error(numbers.mean[name], found.count),) if numbers.mean else ()),
            )
        )
        for name, title in SETS.items()
        if (found := numbers.sets.get(name)) is not None
    ]
    caption = (
        f"Accuracy, ± one standard error. Refined: the moving average after {numbers.images:,} images of each kind, "
        f"{numbers.parameters:,} parameters."
    )
    header = ("Images", "count", "before", "refined", *(("mean of both",) if numbers.mean else ()))
    return Section("Result", "result", parts=(Table(caption, header, tuple(rows)),))


def _guard(found: Guard) -> Section:
    """Return the comparison of the refined classifier with the T before, without target labels."""
    share = f"the refined one is above the fixed threshold for pseudo-labels on {found.pseudo_label_rate:.0%}"
    prose = (
        " ".join(found.sentences()),
        f"Both classifiers predict the same class for {found.agreement:.0%} of {found.basis()}; {share}.",
    )
    criteria = tuple(Row((name, f"{before:.3f}", f"{after:.3f}")) for name, (before, after) in found.criteria.items())
    words = "; ".join(f"{name}: {CRITERIA[name]}" for name in found.criteria if name in CRITERIA)
    shares = tuple(
        Row((one.name, f"{one.source:.1%}", f"{one.start:.1%}", f"{one.refined:.1%}")) for one in found.classes[:CLASSES]
    )
    more = f" The first {CLASSES} of {len(found.classes)} classes." if len(found.classes) > CLASSES else ""
    tables = (
        Table(
            "Measured on images held out of the refinement. T before was trained on the source images among them, so its "
            f"accuracy there is too high. Higher is better. {words[:1].upper()}{words[1:]}.",
            ("Criterion", "T before", "refined"),
            criteria,
        ),
        Table(
            f"Frequency of each class in the source's training images, and in predictions for {found.basis()}.{more}",
            ("Class", "source", "T before", "refined"),
            shares,
        ),
    )
    return Section("Does refinement help?", "guard", prose=prose, parts=tables)


def _choosing(numbers: RefinementResult) -> Section:
    rows = [
        Row(
            (one.criterion, f"{one.images:,}", _percent(one.target_test), "" if one.gap is None else f"{100 * one.gap:.2f}"),
            separate=one.criterion == ORACLE,
        )
        for one in numbers.selections
    ]
    words = "; ".join(f"{name}: {text}" for name, text in SELECTORS.items())
    caption = f"The stored average that each criterion selects on images held out. {words[:1].upper()}{words[1:]}."
    header = ("Criterion", "images seen", "target test", "points below the oracle")
    parts: list[Part] = [Table(caption, header, tuple(rows))]
    if len(numbers.curve) > 1:
        about = "Accuracy over the training, and the value of each criterion without target labels, scaled to its range."
        parts.append(CaptionedFigure("criteria", _criteria_figure(numbers.curve), about))
    return Section("Choosing without target labels", "choosing", parts=tuple(parts))


@styled
def _criteria_figure(curve: Sequence[Snapshot]) -> Figure:
    figure = padded_figure(1040, 340)
    left, right = figure.subplots(1, 2)
    images = [point.images for point in curve]
    if curve[0].target_test is not None:
        values = [point.target_test for point in curve]
        left.plot(images, values, color=GREEN, marker="o", markersize=3, label=SETS["target_test"])
    values = [point.source_validation for point in curve]
    left.plot(images, values, color=GREY, marker="o", markersize=3, label="source, held out of training")
    for name, colour, dashes in zip(SELECTORS, (BLUE, ORANGE, GREY), ("-", DASHED, ":"), strict=True):
        values = np.array([point.criteria()[name] for point in curve])
        right.plot(images, (values - values.min()) / max(np.ptp(values), 1e-12), color=colour, linestyle=dashes, label=name)
    for axes, title in ((left, "Accuracy"), (right, "Criteria without target labels")):
        axes.set_title(title)
        count_images(axes)
        legend_below(axes, 0.2)
    count_percent(left)
    return figure


def _classes(numbers: RefinementResult) -> Section:
    found = numbers.sets.get("target_test")
    if found is None:
        return Section("Classes", "classes")
    figure = confusion_matrices([("target test split", found.confusion)], numbers.classes)
    caption = CONFUSION_CAPTION
    return Section("Classes", "classes", parts=(CaptionedFigure("confusion", figure, caption),) if figure else ())


def _training(lines: Sequence[dict]) -> Section:
    trained = [line for line in lines if line["kind"] == "train"]
    if len(trained) < 2:
        return Section("Training", "training")
    caption = "Losses per kind of image; fraction of target images with a pseudo-label, and agreement with it."
    return Section("Training", "training", parts=(CaptionedFigure("training", _training_figure(trained), caption),))


@styled
def _training_figure(lines: Sequence[dict]) -> Figure:
    figure = padded_figure(1040, 340)
    left, right = figure.subplots(1, 2)
    names = {
        "loss/source": ("source", GREY),
        "loss/generated": ("generated", BLUE),
        "loss/target": ("target", ORANGE),
        "loss/entropy": ("entropy", GREEN),
        "loss/virtual_adversarial": ("adversarial", PURPLE),
    }
    shares = {"pseudo_label_rate": ("pseudo-labelled", GREEN), "agreement": ("agreement", ORANGE)}
    for axes, drawn, title in ((left, names, "Loss"), (right, shares, "Target images")):
        for name, (label, colour) in drawn.items():
            points = series(lines, name)
            if points is not None:
                axes.plot(points.x, points.y, color=colour, label=label)
        axes.set_title(title)
        count_images(axes)
        if axes.lines:
            legend_below(axes, 0.2, 3)
    right.set_ylim(-0.02, 1.02)
    count_percent(right)
    return figure


def _with_error(accuracy: float, count: int) -> str:
    """Return an accuracy on `count` images, with one standard error."""
    return f"{accuracy:.2%} ± {standard_error(accuracy, count):.2%}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
