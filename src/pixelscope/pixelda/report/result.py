"""The sections "Result", "Does adaptation help?" and "Class by class": accuracies and confusions, from evaluation.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pixelscope.pixelda.report.data import FEW, ReportData, percent, points
from pixelscope.pixelda.results import SetResult
from pixelscope.reports.document import CaptionedFigure, Part, Row, Section, Table, present
from pixelscope.reports.plotting import (
    BLUE,
    FONT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    WIDTH,
    legend_above,
    padded_figure,
    shortened,
    styled,
)

CHECKPOINTS = {
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
    "best-source": "best-source: best on held-out source images",
}
"""Checkpoints chosen without target labels, as the table names them."""
MAX_ANNOTATED = 15
"""Largest number of classes at which every cell of a confusion matrix shows its numbers."""
MAX_NAMED = 40
"""Largest number of classes named along an axis."""
DEEP = "#2563a8"
"""The colour of a cell with all images of its row."""
CONFUSION_CAPTION = "Rows: true class. Columns: predicted class. Each cell: its share of the row, and the number of images."


def result_section(data: ReportData) -> Section:
    """Return accuracy by set, before and after adaptation, and by checkpoint."""
    parts = present(_accuracy_table(data), _checkpoint_table(data))
    return Section("Result", "result", prose=_result_prose(data), parts=parts)


def verdict_section(data: ReportData) -> Section:
    """Compare T of the source alone with the adapted T, without target labels."""
    numbers, title = data.numbers, "Does adaptation help?"
    if numbers is None or numbers.verdict is None:
        return Section(title, "verdict")
    rows = [Row((name, f"{before:.3f}", f"{after:.3f}")) for name, (before, after) in numbers.verdict.criteria.items()]
    truth = data.results("target_test")
    if numbers.source_only is not None and truth is not None and "target_test" in numbers.source_only:
        known = (percent(numbers.source_only["target_test"], truth.count), percent(truth.accuracy, truth.count))
        rows.append(Row(("accuracy on the target's test split, by its labels", *known), separate=True))
    agreed = f"Both classifiers predict the same class for {numbers.verdict.agreement:.0%} of the target images."
    text = " ".join(filter(None, (numbers.verdict.headline(), numbers.verdict.basis(), agreed, numbers.contradiction())))
    caption = f"Higher is better. {_label_caption(rows, 'Criteria')}"
    table = Table(caption, ("Criterion", "source alone", "adapted"), tuple(rows))
    return Section(title, "verdict", prose=(text,), parts=(table,))


def _result_prose(data: ReportData) -> tuple[str, ...]:
    numbers = data.numbers
    if numbers is None:
        return ()
    text = f"Measured at {numbers.images:,} images with the checkpoint {numbers.checkpoint}."
    if "target_all" in numbers.sets and data.adapted:
        text += " All target images include those that training used, without their labels."
    return (text,)


def _set_titles(data: ReportData) -> dict[str, str]:
    """Return the sets that an evaluation may hold, by name, with their titles."""
    source, target = data.names
    return {
        "source_test": f"{source}, test split",
        "target_test": f"{target}, test split",
        "target_all": f"{target}, all images",
    }


def _accuracy_table(data: ReportData) -> Table | None:
    """Return accuracy by set; a PixelDA run with a measured baseline also has the accuracy before, and the change."""
    header, caption, baseline = ("Accuracy", "images"), "± is one standard error.", None
    if data.adapted and data.before is not None:
        baseline = data.before.numbers
    if baseline is not None:
        header, caption = (*header, "before"), f"Before: the baseline, with the checkpoint {baseline.checkpoint}. {caption}"
    header = (*header, "after" if data.adapted else "accuracy", *(["change, points"] if baseline else []))
    rows = []
    for name, title in _set_titles(data).items():
        after, before = data.results(name), data.results_before(name)
        if after is not None:
            was = [_with_error(before) if before else ""] if baseline else []
            change = [points(after.accuracy - before.accuracy, after.count) if before else ""] if baseline else []
            rows.append(Row((title, f"{after.count:,}", *was, _with_error(after), *change)))
    return Table(caption, header, tuple(rows)) if rows else None


def _checkpoint_table(data: ReportData) -> Table | None:
    """Return accuracy by checkpoint, and separately the best checkpoint by target labels."""
    numbers = data.numbers
    if numbers is None or not numbers.checkpoints:
        return None
    sets = {name: title for name, title in _set_titles(data).items() if name in numbers.sets}
    rows = []
    for name, result in numbers.checkpoints.items():
        title, found = CHECKPOINTS.get(name, name) + (" (headline)" if name == numbers.checkpoint else ""), result.accuracies()
        cells = (percent(found[key], numbers.sets[key].count) if key in found else "" for key in sets)
        rows.append(Row((title, f"{result.images:,}", *cells)))
    if numbers.oracle is not None and "target_test" in sets:
        accuracy = percent(numbers.oracle.target_test, numbers.sets["target_test"].count)
        cells = (accuracy if name == "target_test" else "" for name in sets)
        rows.append(Row((numbers.oracle.label, f"{numbers.oracle.images:,}", *cells), separate=True))
    return Table(_label_caption(rows, "Checkpoints"), ("Checkpoint", "images seen", *sets.values()), tuple(rows))


def _label_caption(rows: list[Row], what: str) -> str:
    if rows[-1].separate:
        return f"{what} above the line use no target label; the row below it does, and is not a result."
    return f"{what} here use no target label."


def _with_error(result: SetResult) -> str:
    error = f"{100 * result.standard_error:.{1 if result.count <= FEW else 2}f}"
    return f"{percent(result.accuracy, result.count)} ± {error}"


def classes_section(data: ReportData) -> Section:
    """Return what each class is taken for: of a PixelDA run before and after on the target, of a baseline on both domains."""
    compared = _compared_sets(data)
    if not compared:
        return Section("Class by class", "classes")
    titles = ", ".join(title for title, _ in compared)
    matrices = [(f"{title}: {percent(result.accuracy, result.count)}", result.confusion) for title, result in compared]
    accuracies = [(title, [entry.accuracy for entry in result.per_class]) for title, result in compared]
    parts: list[Part] = []
    if (figure := confusion_matrices(matrices, data.classes)) is not None:
        parts.append(CaptionedFigure("confusion", figure, CONFUSION_CAPTION, f"Confusion matrices: {titles}."))
    if (figure := class_accuracies(accuracies, data.classes, (ORANGE, BLUE) if data.adapted else (BLUE, GREEN))) is not None:
        caption = f"Accuracy on each class: {titles}."
        parts.append(CaptionedFigure("classes", figure, caption))
    return Section("Class by class", "classes", prose=(_most_confused(*compared[-1], data.classes),), parts=tuple(parts))


@styled
def confusion_matrices(matrices: Sequence[tuple[str, Sequence[Sequence[int]]]], classes: Sequence[str]) -> Figure | None:
    """Draw confusion counts side by side, each under its title; rows are the true class, columns the predicted one.

    A cell's shade is its share of the row. With up to 15 classes, it shows this share in percent and the count below.
    """
    if not matrices:
        return None
    side = WIDTH / 2
    figure = padded_figure(side * len(matrices), side + 20)
    for index, (title, counts) in enumerate(matrices):
        axes = figure.add_subplot(1, len(matrices), index + 1)
        axes.set_title(title)
        _draw_matrix(axes, np.asarray(counts, float), classes)
    return figure


@styled
def class_accuracies(
    sets: Sequence[tuple[str, Sequence[float | None]]], classes: Sequence[str], colours: Sequence[str] = (GREY, BLUE)
) -> Figure | None:
    """Draw the accuracy on each class, in [0, 1], of one or two sets: one marker per set, joined by a line."""
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
    legend_above(axes)
    return figure


def _draw_matrix(axes: Axes, counts: np.ndarray, classes: Sequence[str]) -> None:
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(_shaded(shares), interpolation="none", aspect="equal")
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    every = -(-len(classes) // MAX_NAMED)
    names = [shortened(name, 14) for name in classes][::every]
    axes.set_xticks(range(0, len(classes), every), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(0, len(classes), every), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(classes) <= MAX_ANNOTATED:
        _annotate_cells(axes, counts.astype(int), shares)


def _shaded(shares: np.ndarray) -> np.ndarray:
    """Return a deep blue whose opacity is the share, so that an empty cell has the page's own colour, dark or light."""
    # The square root keeps shares of a few percent visible.
    return np.concatenate([np.broadcast_to(to_rgb(DEEP), (*shares.shape, 3)), np.sqrt(shares)[..., None]], axis=2)


def _annotate_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = min(FONT, 100 / len(counts) + 1.5)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = shares[row, column]
            look: dict[str, Any] = {"ha": "center", "va": "baseline", "color": "#ffffff" if share > 0.6 else INK}
            axes.text(column, row - 0.06, f"{100 * share:.0f}%" if share >= 0.005 else "<1%", fontsize=size, **look)
            axes.text(column, row + 0.32, f"{count:,}", fontsize=size - 2, **look)


def _compared_sets(data: ReportData) -> list[tuple[str, SetResult]]:
    source, target = data.names
    after = data.results("target_test")
    if not data.adapted:
        found = [(f"{source}, test", data.results("source_test")), (f"{target}, test", after)]
    elif after:
        found = [(f"{target}, before", data.results_before("target_test")), (f"{target}, after", after)]
    else:
        found = [(f"{source}, test split", data.results("source_test"))]
    return [(title, result) for title, result in found if result is not None and len(result.confusion) == len(data.classes)]


def _most_confused(title: str, result: SetResult, classes: list[str]) -> str:
    counts = np.array(result.confusion)
    np.fill_diagonal(counts, 0)
    if not counts.any():
        return f"{title}: all {result.count:,} images are classified correctly."
    true, predicted = np.unravel_index(counts.argmax(), counts.shape)
    return (
        f"{title}: {result.count - result.correct:,} of {result.count:,} images are misclassified, most often "
        f"{classes[true]} as {classes[predicted]} ({counts.max():,} times)."
    )
