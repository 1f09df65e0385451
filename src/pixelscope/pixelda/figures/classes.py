"""What is taken for what: confusion matrices and accuracy class by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pixelscope.report.plotting import BLUE, FONT, GREY, INK, WIDTH, padded_figure, shortened, styled

WRITTEN = 15
"""Most classes for which every cell of a confusion matrix holds its numbers."""
NAMED = 40
"""Most classes named along an axis."""
DEEP = "#2563a8"
"""The colour of a cell that holds its whole row."""


@styled
def confusion_matrices(matrices: Sequence[tuple[str, Sequence[Sequence[int]]]], classes: Sequence[str]) -> Figure | None:
    """Draw confusion counts side by side, each under its title; rows are the true class, columns the predicted one.

    A cell's shade is its share of the row; up to 15 classes it holds that share in percent and the count below.
    """
    if not matrices:
        return None
    side = WIDTH / 2
    figure = padded_figure(side * len(matrices), side + 20)
    for index, (title, counts) in enumerate(matrices):
        axes = figure.add_subplot(1, len(matrices), index + 1)
        axes.set_title(title)
        _matrix(axes, np.asarray(counts, float), classes)
    return figure


@styled
def class_accuracies(
    sets: Sequence[tuple[str, Sequence[float | None]]], classes: Sequence[str], colours: Sequence[str] = (GREY, BLUE)
) -> Figure | None:
    """Draw the accuracy on each class, in [0, 1], of one or two sets or moments, one mark each, a line between them."""
    if not sets:
        return None
    figure = padded_figure(720, 110 + 26 * len(classes))
    axes = figure.add_subplot()
    at = np.arange(len(classes))
    values = np.array([[np.nan if v is None else v for v in accuracies] for _, accuracies in sets])
    axes.hlines(at, values.min(0), values.max(0), color=GREY, linewidth=1.6, alpha=0.7)
    for (title, _), row, colour, marker in zip(sets, values, colours[-len(sets) :], "Do"[-len(sets) :], strict=True):
        axes.plot(row, at, marker, color=colour, markersize=8, label=title)
    axes.set_yticks(at, [shortened(name, 24) for name in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    axes.set_xlabel("accuracy on the images of the class")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _matrix(axes: Axes, counts: np.ndarray, classes: Sequence[str]) -> None:
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(_shaded(shares), interpolation="none", aspect="equal")
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    every = -(-len(classes) // NAMED)
    names = [shortened(name, 14) for name in classes][::every]
    axes.set_xticks(range(0, len(classes), every), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(0, len(classes), every), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(classes) <= WRITTEN:
        _write_cells(axes, counts.astype(int), shares)


def _shaded(shares: np.ndarray) -> np.ndarray:
    """Return a deep blue whose opacity is the share, so that an empty cell is the page's own colour, dark or light."""
    # The square root keeps the few percent that are confused in sight.
    return np.concatenate([np.broadcast_to(to_rgb(DEEP), (*shares.shape, 3)), np.sqrt(shares)[..., None]], axis=2)


def _write_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = min(FONT, 100 / len(counts) + 1.5)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = shares[row, column]
            look: dict[str, Any] = {"ha": "center", "color": "#ffffff" if share > 0.6 else INK}
            axes.text(
                column, row - 0.06, f"{100 * share:.0f}%" if share >= 0.005 else "<1%", va="baseline", fontsize=size, **look
            )
            axes.text(column, row + 0.32, f"{count:,}", va="baseline", fontsize=size - 2, **look)
