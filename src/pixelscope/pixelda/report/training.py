"""The sections "The baseline and the gap", "Training" and "Stability": numbers over the course of a training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pixelscope.errors import plural
from pixelscope.pixelda.report.data import Lines, ReportData, percent, points
from pixelscope.reports.document import CaptionedFigure, Part, Row, Section, Table
from pixelscope.reports.plotting import (
    BLUE,
    DASH_DOT,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SOLID,
    Panel,
    Series,
    Stroke,
    count_decades,
    count_images,
    count_percent,
    draw_line,
    legend_below,
    panels,
    series,
    shortened,
    styled,
)

UNDECIDED = 2 * float(np.log(2))
"""D's loss if it predicts a probability of one half for every image."""

MAX_LABELLED = 24
"""Largest number of classes whose names fit below the bars."""

ACCURACIES = {
    "source_train": ("source, train", Stroke(GREY, DASHED)),
    "source_test": ("source, test", Stroke(BLUE, DASH_DOT)),
    "target_test": ("target, test", Stroke(ORANGE, DOTTED)),
    "ema_target_test": ("target, test, EMA of T", Stroke(GREEN, SOLID, 2.4)),
}
BASELINE_ACCURACIES = {
    "source_train": ("source, train", Stroke(BLUE, DASHED)),
    "source_test": ("source, test", Stroke(ORANGE)),
    "target_test": ("target, test: not trained on", Stroke(GREEN, DASH_DOT)),
}

TRAINING_CAPTION = (
    "Noisy curves: running mean, raw values faint behind it. In (a), D and G are balanced while D's loss stays near 2 ln 2 and "
    "neither loss falls to zero. In (b), G's loss is small because it is weighted."
)
NO_LOSSES = "The training was too short for curves of the losses."
STABILITY_CAPTION = (
    "Missing convergence: D's two probabilities are far apart. Vanishing gradients: a curve falls by orders of magnitude. "
    "Collapse: classes are missing, or the diversity is near zero. Lost content: layout and classes are low together. Red "
    "markers at the upper edge are warnings."
)


def baseline_section(data: ReportData) -> Section:
    """Return how a baseline was trained, and the accuracy it loses on the target."""
    source, accuracies = data.record.data.get("source"), data.accuracies()
    figure = baseline_curves(data.train, data.evaluations, accuracies, source.train if source else None)
    alt = f"Loss and accuracy of the baseline over its training. {_last_values(accuracies)}"
    caption = "The baseline's loss and accuracy. The target is measured only, never trained on."
    if "target_test" not in accuracies:
        caption = "The baseline's loss and accuracy on its own domain."
    parts = () if figure is None else (CaptionedFigure("baseline", figure, caption, alt),)
    return Section("The baseline and the gap", "baseline", prose=(_gap_sentence(data),), parts=parts)


def training_section(data: ReportData) -> Section:
    """Return losses and accuracies of G, D and T."""
    accuracies, before = data.accuracies(), data.results_before("target_test")
    figure = training_panels(data.train, accuracies, before.accuracy if before else None)
    alt = f"Losses of G, D and T, and accuracies of T, over the images seen. {_last_values(accuracies)}"
    parts = () if figure is None else (CaptionedFigure("training", figure, TRAINING_CAPTION if data.train else NO_LOSSES, alt),)
    speed = data.record.images_per_second
    prose = f"{data.steps:,} steps, each of D and T together, then of G" + (
        f"; {speed:,.0f} images per second." if speed else "."
    )
    return Section("Training", "training", prose=(prose,), parts=parts)


def stability_section(data: ReportData) -> Section:
    """Return the diagnostics of a training and the warnings that it raised."""
    parts: list[Part] = []
    figure = stability_panels(data.train, data.evaluations, data.warnings, data.classes)
    if figure is not None:
        alt = "D's probabilities, norms of G's gradients, generated classes and diversity over z, over the images seen."
        parts.append(CaptionedFigure("stability", figure, STABILITY_CAPTION, alt))
    if data.warnings:
        parts.append(_warnings_table(data.warnings))
    count = len(data.warnings)
    text = f"Training raised {plural(count, 'warning')}." if count else "Training raised no warning."
    return Section("Stability", "stability", prose=(text + _last_probabilities(data),), parts=tuple(parts))


@styled
def baseline_curves(train: Lines, evaluations: Lines, accuracies: Mapping[str, Series], epoch: int | None) -> Figure | None:
    """Draw the baseline's loss and accuracy, on training and test images, in two panels.

    Args:
        train: lines of stats.jsonl of the kind `train`.
        evaluations: lines of stats.jsonl of the kind `evaluation`.
        accuracies: values in [0, 1] by name.
        epoch: images per epoch; None counts images.

    Returns:
        The figure; None if there are no numbers.
    """
    losses = {name: series(evaluations, f"loss/{name}") for name in ("source_train", "source_test")}
    batches = series(train, "loss/classifier")
    parts: list[Panel] = []
    if batches is not None or any(line is not None for line in losses.values()):
        parts.append(("Loss of T (cross-entropy)", partial(_baseline_losses, batches=batches, losses=losses, epoch=epoch)))
    if accuracies:
        parts.append(("Accuracy of T", partial(_baseline_accuracies, lines=accuracies, epoch=epoch)))
    return panels(parts, 2, 330)


@styled
def training_panels(train: Lines, accuracies: Mapping[str, Series], before: float | None = None) -> Figure | None:
    """Draw the three panels of the reference study: G against D; G, D and T together; the accuracies.

    Args:
        train: lines of stats.jsonl of the kind `train`.
        accuracies: values in [0, 1] by name.
        before: the baseline's accuracy on the target's test split.

    Returns:
        The figure, panels without numbers left out; None if there are no numbers.
    """
    parts: list[Panel] = []
    if series(train, "loss/generator_domain") or series(train, "loss/discriminator"):
        parts.append(("(a) G against D", partial(_game, train=train)))
    if series(train, "loss/classifier"):
        parts.append(("(b) G, D and T", partial(_all_losses, train=train)))
    if accuracies:
        parts.append(("(c) Accuracy of T", partial(_accuracies, lines=accuracies, before=before)))
    return panels(parts, 3, 380)


@styled
def stability_panels(train: Lines, evaluations: Lines, warnings: Lines, classes: Sequence[str]) -> Figure | None:
    """Draw D's probabilities, the norms of G's gradients, the generated classes and the diversity.

    Args:
        train: lines of stats.jsonl of the kind `train`.
        evaluations: lines of stats.jsonl of the kind `evaluation`.
        warnings: lines of stats.jsonl of the kind `warning`.
        classes: names of the classes, in the order of the histograms.

    Returns:
        The figure, panels without numbers left out; None if there are no numbers.
    """
    parts: list[Panel] = []
    if series(train, "probability/real") or series(train, "probability/generated"):
        parts.append(("D's probability of “real”", partial(_probabilities, train=train, warnings=warnings)))
    if series(train, "gradient/generator_domain") or series(train, "gradient/generator_task"):
        parts.append(("Gradient norms", partial(_gradients, train=train, warnings=warnings)))
    histograms = class_histograms(train)
    if histograms is not None:
        parts.append(("Generated classes, as predicted by T", partial(_histogram, histograms=histograms, classes=classes)))
    if series(train, "layout"):
        parts.append(("Content kept by G", partial(_content, train=train, warnings=warnings)))
    if series(evaluations, "diversity"):
        parts.append(("Diversity over z", partial(_diversity, evaluations=evaluations, warnings=warnings)))
    return panels(parts, 2, 330)


def class_histograms(train: Lines) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the share of each class in the source and in the generated images: the mean over the last tenth of the lines."""
    known = [line for line in train if line.get("histogram/source") and line.get("histogram/generated")]
    pairs = [(line["histogram/source"], line["histogram/generated"]) for line in known[-max(1, len(known) // 10) :]]
    # A damaged line may lack a class.
    whole = [pair for pair in pairs if {len(one) for one in pair} == {len(pairs[-1][0])}]
    if not whole:
        return None
    source, generated = np.mean(whole, axis=0)
    return source, generated


def _last_values(accuracies: Mapping[str, Series]) -> str:
    values = (f"{name.replace('_', ' ')} {line.y[-1]:.1%}" for name, line in accuracies.items())
    return f"Last accuracies: {', '.join(values)}."


def _gap_sentence(data: ReportData) -> str:
    own, other = data.results("source_test"), data.results("target_test")
    source, target = data.names
    if own is None or other is None:
        return f"T is trained on {source} alone."
    gap = points(abs(other.accuracy - own.accuracy), other.count).lstrip("+")
    return (
        f"T, trained on {source} alone, reaches {percent(own.accuracy, own.count)} on that domain's test split and "
        f"{percent(other.accuracy, other.count)} on the test split of {target}: {gap} points "
        f"{'more' if other.accuracy > own.accuracy else 'less'}."
    )


def _last_probabilities(data: ReportData) -> str:
    lines = [series(data.train, f"probability/{name}") for name in ("real", "generated")]
    if lines[0] is None or lines[1] is None:
        return ""
    real, generated = (line.y[-max(1, len(line.y) // 10) :].mean() for line in lines if line is not None)
    return (
        f" D's mean probability of “real” in the last tenth: {real:.2f} for target images, {generated:.2f} for generated ones."
    )


def _warnings_table(warnings: Lines) -> Table:
    """Return the warnings that a training raised, by cause."""
    by_cause: dict[str, Lines] = {}
    for line in warnings:
        by_cause.setdefault(str(line.get("cause", "unknown")), []).append(line)
    rows = []
    for cause, raised in by_cause.items():
        first, last = raised[0]["images"], raised[-1]["images"]
        when = f"at {first:,} images" if first == last else f"from {first:,} to {last:,} images"
        rows.append(Row((cause, f"{len(raised):,}", when, str(raised[-1].get("text", "")))))
    header = ("Cause", "times", "when", "last message")
    return Table("Warnings raised in training.", header, tuple(rows), numeric=False)


def _game(axes: Axes, train: Lines) -> None:
    draw_line(axes, series(train, "loss/discriminator"), "D, real and generated", Stroke(BLUE))
    draw_line(axes, series(train, "loss/generator_domain"), "G, from D's output", Stroke(ORANGE, DASHED))
    axes.axhline(UNDECIDED, color=GREY, linewidth=1.2, linestyle=DOTTED, label="D undecided: 2 ln 2")
    axes.set_ylabel("cross-entropy, unweighted")
    _finish(axes)


def _all_losses(axes: Axes, train: Lines) -> None:
    draw_line(axes, series(train, "loss/discriminator"), "D, real and generated", Stroke(BLUE))
    draw_line(axes, series(train, "loss/classifier"), "T, all of its inputs", Stroke(PURPLE, DASH_DOT))
    draw_line(axes, series(train, "loss/generator"), "G, weighted sum", Stroke(ORANGE, DASHED))
    axes.set_ylabel("loss, logarithmic")
    count_decades(axes)
    _finish(axes)


def _accuracies(axes: Axes, lines: Mapping[str, Series], before: float | None) -> None:
    _accuracy_lines(axes, ACCURACIES, lines)
    if before is not None:
        axes.axhline(before, color=GREY, linewidth=1.2, linestyle=DOTTED, label=f"target, test, baseline: {before:.1%}")
    _fit_accuracies(axes, lines, before)
    _finish(axes)


def _baseline_accuracies(axes: Axes, lines: Mapping[str, Series], epoch: int | None) -> None:
    _accuracy_lines(axes, BASELINE_ACCURACIES, {name: _in_epochs(line, epoch) for name, line in lines.items()})
    _fit_accuracies(axes, lines, None)
    _finish(axes, epoch)


def _accuracy_lines(axes: Axes, strokes: Mapping[str, tuple[str, Stroke]], lines: Mapping[str, Series | None]) -> None:
    for name, (label, stroke) in strokes.items():
        line = lines.get(name)
        draw_line(axes, line, label if line is None else f"{label}: {line.y[-1]:.1%}", stroke, noisy=False)
    axes.set_ylabel("accuracy")


def _fit_accuracies(axes: Axes, lines: Mapping[str, Series], before: float | None) -> None:
    """Scale the y-axis to the trained part of the curves; the first point may be clipped."""
    values = [before] if before is not None else []
    for line in lines.values():
        values += line.y[line.x > 0].tolist() or line.y.tolist()
    low = min(values)
    axes.set_ylim(max(0.0, low - 0.08 * (1.02 - low)), 1 + 0.03 * (1 - low) + 0.001)
    count_percent(axes)


def _baseline_losses(axes: Axes, batches: Series | None, losses: Mapping[str, Series | None], epoch: int | None) -> None:
    draw_line(axes, _in_epochs(batches, epoch), "training batches", Stroke(GREY, SOLID, 1.2))
    draw_line(axes, _in_epochs(losses["source_train"], epoch), "source, train", Stroke(BLUE, DASHED), noisy=False)
    draw_line(axes, _in_epochs(losses["source_test"], epoch), "source, test", Stroke(ORANGE), noisy=False)
    axes.set_ylabel("loss, logarithmic")
    count_decades(axes)
    _finish(axes, epoch)


def _in_epochs(line: Series | None, epoch: int | None) -> Series | None:
    return line if line is None or not epoch else Series(line.x / epoch, line.y)


def _probabilities(axes: Axes, train: Lines, warnings: Lines) -> None:
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=DOTTED)
    draw_line(axes, series(train, "probability/real"), "target images", Stroke(BLUE))
    draw_line(axes, series(train, "probability/generated"), "generated images", Stroke(ORANGE, DASHED))
    _fit_shares(axes, warnings, "overpowering discriminator")


def _content(axes: Axes, train: Lines, warnings: Lines) -> None:
    draw_line(axes, series(train, "accuracy/batch_generated"), "class, by T", Stroke(BLUE))
    draw_line(axes, series(train, "accuracy/judge_generated"), "class, by the judge", Stroke(ORANGE, DASHED))
    draw_line(axes, series(train, "layout"), "layout", Stroke(GREEN, DASH_DOT))
    _fit_shares(axes, warnings, "content lost")


def _fit_shares(axes: Axes, warnings: Lines, cause: str) -> None:
    axes.set_ylim(-0.02, 1.06)
    count_percent(axes)
    _mark_warnings(axes, warnings, cause)
    _finish(axes, columns=2)


def _gradients(axes: Axes, train: Lines, warnings: Lines) -> None:
    draw_line(axes, series(train, "gradient/generator_domain"), "G, from D's output", Stroke(ORANGE))
    draw_line(axes, series(train, "gradient/generator_task"), "G, from T's loss", Stroke(PURPLE, DASHED))
    draw_line(axes, series(train, "gradient/generator_content"), "G, from content", Stroke(GREEN, DASH_DOT))
    draw_line(axes, series(train, "gradient/discriminator"), "D", Stroke(GREY, DOTTED, 1.4))
    axes.set_ylabel("norm, logarithmic")
    count_decades(axes)
    _mark_warnings(axes, warnings, "vanishing gradients")
    _finish(axes, columns=2)


def _diversity(axes: Axes, evaluations: Lines, warnings: Lines) -> None:
    draw_line(axes, series(evaluations, "diversity"), "standard deviation of a pixel over z", Stroke(GREEN), noisy=False)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.004) * 1.08)
    axes.set_ylabel("in units of [−1, 1]")
    _mark_warnings(axes, warnings, "collapse")
    _finish(axes, columns=2)


def _histogram(axes: Axes, histograms: tuple[np.ndarray, np.ndarray], classes: Sequence[str]) -> None:
    source, generated = histograms
    at = np.arange(len(source))
    axes.bar(at - 0.2, source, 0.38, label="source labels", facecolor="none", edgecolor=BLUE, linewidth=1.4)
    axes.bar(at + 0.2, generated, 0.38, label="generated, predicted", color=ORANGE)
    axes.grid(visible=False, axis="x")
    names = [shortened(name, 12) for name in classes] if len(classes) == len(source) else [str(i) for i in at]
    every = -(-len(at) // MAX_LABELLED)
    crowded = len(at) * max(map(len, names)) > 60
    axes.set_xticks(at[::every], names[::every], rotation=90 if crowded else 0)
    axes.set_ylabel("share of images")
    count_percent(axes)
    legend_below(axes, 0.2)


def _mark_warnings(axes: Axes, warnings: Lines, cause: str) -> None:
    """Mark where a cause's warnings were raised, along the upper edge."""
    at = [line["images"] for line in warnings if line.get("cause") == cause]
    if at:
        # The axes' own vertical coordinates keep the markers at the edge, whatever the scale.
        look: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": RED, "markersize": 8, "clip_on": False}
        axes.plot(at, [0.985] * len(at), "v", label=f"warning: {cause}", **look)


def _finish(axes: Axes, epoch: int | None = None, columns: int = 1) -> None:
    """Label the x-axis, in images seen or in epochs of `epoch` images, and add the legend."""
    count_images(axes)
    if epoch:
        axes.set_xlabel(f"epochs of {epoch:,} images")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    legend_below(axes, 0.2, columns)
