"""Losses and accuracies over the course of a training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pixelscope.report.plotting import (
    BLUE,
    DASH_DOT,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SOLID,
    Panel,
    Series,
    Stroke,
    count_decades,
    count_images,
    count_percent,
    draw_line,
    panels,
    series,
    styled,
)

Lines = Sequence[Mapping[str, Any]]

UNDECIDED = 2 * float(np.log(2))
"""D's loss when it gives every image a half."""

ACCURACIES = {
    "source_train": ("source, train", Stroke(GREY, DASHED)),
    "source_test": ("source, test", Stroke(BLUE, DASH_DOT)),
    "target_test": ("target, test", Stroke(ORANGE, DOTTED)),
    "ema_target_test": ("target, test, EMA of T", Stroke(GREEN, SOLID, 2.4)),
}


@styled
def baseline_curves(train: Lines, evaluations: Lines, accuracies: Mapping[str, Series], epoch: int | None) -> Figure | None:
    """Draw the baseline's loss and accuracy, on training and test images, in two panels.

    train, evaluations: lines of stats.jsonl; accuracies: by name, in [0, 1]; epoch: images in one, None to count images.
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
    """Draw the report's three panels: G against D; G, D and T together; the accuracies. A panel without numbers is left out.

    before: the baseline's accuracy on the target's test split.
    """
    parts: list[Panel] = []
    if series(train, "loss/generator_domain") or series(train, "loss/discriminator"):
        parts.append(("(a) G against D", partial(_game, train=train)))
    if series(train, "loss/classifier"):
        parts.append(("(b) G, D and T", partial(_all_losses, train=train)))
    if accuracies:
        parts.append(("(c) Accuracy of T", partial(_accuracies, lines=accuracies, before=before)))
    return panels(parts, 3, 380)


def _game(axes: Axes, train: Lines) -> None:
    draw_line(axes, series(train, "loss/discriminator"), "D, real and generated", Stroke(BLUE))
    draw_line(axes, series(train, "loss/generator_domain"), "G, for fooling D", Stroke(ORANGE, DASHED))
    axes.axhline(UNDECIDED, color=GREY, linewidth=1.2, linestyle=DOTTED, label="D undecided: 2 ln 2")
    axes.set_ylabel("cross-entropy, unweighted")
    count_images(axes)
    _legend_below(axes)


def _all_losses(axes: Axes, train: Lines) -> None:
    draw_line(axes, series(train, "loss/discriminator"), "D, real and generated", Stroke(BLUE))
    draw_line(axes, series(train, "loss/classifier"), "T, on all that it sees", Stroke(PURPLE, DASH_DOT))
    draw_line(axes, series(train, "loss/generator"), "G, weighted sum that it minimises", Stroke(ORANGE, DASHED))
    axes.set_ylabel("loss, logarithmic")
    count_decades(axes)
    count_images(axes)
    _legend_below(axes)


def _accuracies(axes: Axes, lines: Mapping[str, Series], before: float | None) -> None:
    for name, (label, stroke) in ACCURACIES.items():
        draw_line(axes, lines.get(name), _with_last(label, lines.get(name)), stroke, noisy=False)
    if before is not None:
        axes.axhline(before, color=GREY, linewidth=1.2, linestyle=DOTTED, label=f"target, test, baseline: {before:.1%}")
    _frame_accuracies(axes, lines, before)
    axes.set_ylabel("accuracy")
    count_images(axes)
    _legend_below(axes)


def _frame_accuracies(axes: Axes, lines: Mapping[str, Series], before: float | None) -> None:
    """Spread what was learnt over the panel: an untrained network's first point may lie below its frame."""
    values = [before] if before is not None else []
    for line in lines.values():
        values += line.y[line.x > 0].tolist() or line.y.tolist()
    low = min(values)
    axes.set_ylim(max(0.0, low - 0.08 * (1.02 - low)), 1 + 0.03 * (1 - low) + 0.001)
    count_percent(axes)


def _with_last(label: str, line: Series | None) -> str:
    return label if line is None else f"{label}: {line.y[-1]:.1%}"


def _baseline_losses(axes: Axes, batches: Series | None, losses: Mapping[str, Series | None], epoch: int | None) -> None:
    draw_line(axes, _in_epochs(batches, epoch), "training batches", Stroke(GREY, SOLID, 1.2))
    draw_line(axes, _in_epochs(losses["source_train"], epoch), "source, train", Stroke(BLUE, DASHED), noisy=False)
    draw_line(axes, _in_epochs(losses["source_test"], epoch), "source, test", Stroke(ORANGE), noisy=False)
    axes.set_ylabel("loss, logarithmic")
    count_decades(axes)
    _count_epochs(axes, epoch)
    _legend_below(axes)


def _baseline_accuracies(axes: Axes, lines: Mapping[str, Series], epoch: int | None) -> None:
    strokes = {
        "source_train": ("source, train", Stroke(BLUE, DASHED)),
        "source_test": ("source, test", Stroke(ORANGE)),
        "target_test": ("target, test: never trained on", Stroke(GREEN, DASH_DOT)),
    }
    for name, (label, stroke) in strokes.items():
        line = _in_epochs(lines.get(name), epoch)
        draw_line(axes, line, _with_last(label, line), stroke, noisy=False)
    _frame_accuracies(axes, lines, None)
    axes.set_ylabel("accuracy")
    _count_epochs(axes, epoch)
    _legend_below(axes)


def _in_epochs(line: Series | None, epoch: int | None) -> Series | None:
    return line if line is None or not epoch else Series(line.x / epoch, line.y)


def _count_epochs(axes: Axes, epoch: int | None) -> None:
    count_images(axes)
    if epoch:
        axes.set_xlabel(f"epochs of {epoch:,} images")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend_below(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), borderaxespad=0, labelspacing=0.35)
