"""The sections "The two domains" and "What G generates": galleries of images, with T's predictions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pixelscope.pixelda.report.data import ReportData
from pixelscope.reports.document import CaptionedFigure, Section, present
from pixelscope.reports.plotting import FONT, GREY, RED, WIDTH, Canvas, evenly_spaced, fitted, styled, text_width

MARGIN = 84.0
"""Room at the left for the names of the rows."""
LINE = 14.0
"""Height of a line of text."""
GAP = 8.0
LARGEST, SMALLEST = 96.0, 54.0
"""Sides of a tile."""
WIDEST = 112.0
"""Largest side of a tile with space for the text above it."""
TEXT_SIZE = 11.0
"""Font size of the text above a tile."""
MAX_ROWS = 12
"""Largest number of points of a training that the progress gallery shows."""
UNKNOWN = -1
"""The label of an image whose class is not known."""


def domains_section(data: ReportData) -> Section:
    """Return corresponding images of both domains, where the run has such pairs."""
    pairs = data.samples("pairs")
    source, target = data.names
    parts = ()
    if pairs is not None:
        figure = pairs_gallery(pairs["source"], pairs["target"], pairs["labels"], data.classes)
        shown = ", ".join(data.classes[label] for label in pairs["labels"])
        alt = f"Pairs of corresponding images of {source} and {target}; their classes: {shown}."
        caption = (
            f"Corresponding images of {source} (top) and {target} (bottom), with their class. Training does not pair them."
        )
        parts = (CaptionedFigure("pairs", figure, caption, alt),)
    return Section("The two domains", "domains", parts=parts)


def generated_section(data: ReportData) -> Section:
    """Return the images that G generates from source images: with T's predictions, for several z, and over the training."""
    parts = present(_gallery(data), _styles(data), _progress(data))
    return Section("What G generates", "generated", prose=_gallery_prose(data), parts=parts)


@styled
def pairs_gallery(source: np.ndarray, target: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw corresponding images of both domains below each other, their class above.

    Args:
        source: images, uint8 (K, H, W, 3).
        target: the corresponding images, uint8 (K, H, W, 3).
        labels: positions in `classes`, int (K,).
        classes: names of the classes.
    """
    names = [classes[int(label)] for label in labels]
    columns, side = _columns(len(names), names)
    block = LINE + 6 + 2 * (side + GAP) + 8
    canvas = _canvas(columns, side, block * -(-len(names) // columns))
    for first in range(0, len(names), columns):
        part, top = slice(first, first + columns), first // columns * block
        for column, name in enumerate(names[part]):
            canvas.text(_middle(column, side), top + LINE, fitted(name, side, FONT), fontsize=FONT, fontweight="bold")
        for row, (title, images) in enumerate((("source", source), ("target", target))):
            _row(canvas, title, images[part], top + LINE + 6 + row * (side + GAP), side)
    return canvas.figure


@styled
def adapted_gallery(rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], classes: Sequence[str]) -> Figure:
    """Draw rows of images with "Real: y" and "Pred: y'" above each; a wrong prediction is framed, crossed and bold.

    Args:
        rows: per row its name, uint8 images (K, H, W, 3), int labels (K,) with -1 for unknown, and int predictions (K,).
        classes: names of the classes.
    """
    count = min(len(images) for _, images, _, _ in rows)
    shown = {int(i) for _, _, labels, predictions in rows for i in (*labels[:count], *predictions[:count]) if i != UNKNOWN}
    columns, side = _columns(count, [f"Pred: {classes[i]}" for i in shown])
    height = 2 * LINE + side + GAP + 6
    block = len(rows) * height + 10
    canvas = _canvas(columns, side, block * -(-count // columns))
    for first in range(0, count, columns):
        for index, (title, images, labels, predictions) in enumerate(rows):
            top, part = first // columns * block + index * height, slice(first, min(first + columns, count))
            _row(canvas, title, images[part], top + 2 * LINE + 4, side)
            for column, (label, prediction) in enumerate(zip(labels[part], predictions[part], strict=True)):
                _prediction(canvas, column, top, side, int(label), int(prediction), classes)
    return canvas.figure


@styled
def named_rows(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Draw rows of images, uint8 (K, H, W, 3) each, with their names on the left."""
    margin = max(MARGIN, *(text_width(name, TEXT_SIZE) + 20 for name, _ in rows))
    side = min(64.0, (WIDTH - margin) / max(len(images) for _, images in rows) - GAP / 2)
    step = side + GAP / 2
    canvas = Canvas.of(margin + max(len(images) for _, images in rows) * step, GAP + len(rows) * step)
    for row, (name, images) in enumerate(rows):
        canvas.text(margin - 10, GAP + row * step + side / 2, name, ha="right", va="center", fontsize=TEXT_SIZE)
        canvas.tiles(images, margin, GAP + row * step, side, GAP / 2)
    return canvas.figure


@styled
def styles_gallery(source: np.ndarray, generated: np.ndarray) -> Figure:
    """Draw each source image and, next to it, its translations by G with Z values of z.

    Args:
        source: uint8 (R, H, W, 3).
        generated: uint8 (R, Z, H, W, 3).
    """
    draws = generated.shape[1]
    group_gap = 2 * GAP
    side = max(SMALLEST, min(LARGEST, (WIDTH - group_gap) / (draws + 1) - GAP))
    width = (draws + 1) * (side + GAP) + group_gap
    canvas = Canvas.of(width, LINE + 8 + len(source) * (side + GAP))
    canvas.text(side / 2 + GAP / 2, LINE - 2, "source", fontweight="bold")
    left = GAP / 2 + side + GAP + group_gap
    for draw in range(draws):
        canvas.text(left + draw * (side + GAP) + side / 2, LINE - 2, f"z {draw + 1}")
    for row, (image, drawn) in enumerate(zip(source, generated, strict=True)):
        top = LINE + 8 + row * (side + GAP)
        canvas.tiles(image[None], GAP / 2, top, side, GAP)
        canvas.tiles(drawn, left, top, side, GAP)
    canvas.axes.axvline(GAP / 2 + side + GAP / 2 + group_gap / 2, color=GREY, linewidth=1)
    return canvas.figure


@styled
def progress_gallery(images: np.ndarray, generated: np.ndarray, source: np.ndarray) -> Figure:
    """Draw the translations of the same source images over the training: one row per point, at most 12, the sources on top.

    Args:
        images: images seen at each point, int (S,).
        generated: uint8 (S, K, H, W, 3).
        source: uint8 (K, H, W, 3).
    """
    chosen = evenly_spaced(len(images), MAX_ROWS)
    side = max(SMALLEST, min(76.0, (WIDTH - MARGIN) / len(source) - 4))
    step = side + 4
    canvas = Canvas.of(MARGIN + len(source) * step + 4, (len(chosen) + 1) * step + 12)
    _row(canvas, "source", source, 2, side, 4)
    canvas.axes.axhline(step + 4, color=GREY, linewidth=1)
    for row, point in enumerate(chosen):
        _row(canvas, f"{int(images[point]):,}\nimages", generated[point], (row + 1) * step + 8, side, 4)
    return canvas.figure


def _columns(count: int, words: Sequence[str]) -> tuple[int, float]:
    """Return the number of tiles per row and their side, given the texts above them."""
    side = min(WIDEST, max(SMALLEST, *(text_width(text, TEXT_SIZE) for text in words)))
    fitting = max(1, int((WIDTH - MARGIN) // (side + GAP)))
    columns = -(-count // -(-count // min(fitting, 10)))
    return columns, max(side, min(LARGEST, (WIDTH - MARGIN) / columns - GAP))


def _canvas(columns: int, side: float, height: float) -> Canvas:
    return Canvas.of(MARGIN + columns * (side + GAP), height)


def _middle(column: int, side: float) -> float:
    return MARGIN + column * (side + GAP) + side / 2


def _row(canvas: Canvas, title: str, images: np.ndarray, top: float, side: float, gap: float = GAP) -> None:
    canvas.text(MARGIN - 10, top + side / 2, title, ha="right", va="center")
    canvas.tiles(images, MARGIN, top, side, gap)


def _prediction(
    canvas: Canvas, column: int, top: float, side: float, label: int, prediction: int, classes: Sequence[str]
) -> None:
    wrong = label not in (UNKNOWN, prediction)
    weight, x = ("bold" if wrong else "normal"), _middle(column, side)
    words = (f"Real: {'?' if label == UNKNOWN else classes[label]}", f"Pred: {classes[prediction]}")
    for line, text in enumerate(words, 1):
        canvas.text(x, top + line * LINE - 2, fitted(text, side + 2, TEXT_SIZE), fontsize=TEXT_SIZE, fontweight=weight)
    if wrong:
        left, upper = x - side / 2, top + 2 * LINE + 4
        canvas.axes.add_patch(Rectangle((left, upper), side, side, fill=False, edgecolor=RED, linewidth=3.5, label="_wrong"))
        at = (left + side - 9, upper + 9)
        canvas.axes.plot(*at, "s", color=RED, markersize=16)
        canvas.axes.plot(*at, "x", color="white", markersize=8, markeredgewidth=2)


def _gallery(data: ReportData) -> CaptionedFigure | None:
    gallery = data.samples("gallery")
    if gallery is None:
        return None
    own = gallery["source_labels"]
    rows = [
        ("source", gallery["source"], own, gallery["source_predictions"]),
        ("generated", gallery["generated"], own, gallery["generated_predictions"]),
        ("target", gallery["target"], gallery["target_labels"], gallery["target_predictions"]),
    ]
    wrong = [f"{name} {_count_wrong(labels, predictions)}" for name, _, labels, predictions in rows]
    unknown = " The target's labels are unknown." if (gallery["target_labels"] == UNKNOWN).all() else ""
    alt = (
        f"{len(own)} source images, their translations by G, and as many target images; wrong predictions: {', '.join(wrong)}."
    )
    caption = (
        "Top: source images. Middle: the translation of each by G. Bottom: unrelated target images. Real: the class. Pred: T's "
        f"prediction; a wrong one is framed, crossed and bold.{unknown}"
    )
    return CaptionedFigure("gallery", adapted_gallery(rows, data.classes), caption, alt)


def _gallery_prose(data: ReportData) -> tuple[str, ...]:
    gallery = data.samples("gallery")
    if gallery is None:
        return ()
    wrong = _count_wrong(gallery["source_labels"], gallery["generated_predictions"])
    text = f"T misclassifies {wrong or 'none'} of the {len(gallery['source'])} generated images shown"
    known = int((gallery["target_labels"] != UNKNOWN).sum())
    if known:
        missed = _count_wrong(gallery["target_labels"], gallery["target_predictions"])
        text += f", and {missed or 'none'} of the {known} target images"
    return (f"{text}.",)


def _count_wrong(labels: np.ndarray, predictions: np.ndarray) -> int:
    return int(((labels != predictions) & (labels != UNKNOWN)).sum())


def _styles(data: ReportData) -> CaptionedFigure | None:
    styles = data.samples("styles")
    if styles is None:
        return None
    rows, draws = styles["generated"].shape[:2]
    alt = f"{rows} source images, and the translations of each by G with {draws} values of the noise z."
    caption = "One row per source image, one column per z. G ignores z where all images of a row are equal."
    return CaptionedFigure("styles", styles_gallery(styles["source"], styles["generated"]), caption, alt)


def _progress(data: ReportData) -> CaptionedFigure | None:
    progress = data.samples("progress")
    if progress is None:
        return None
    images = progress["images"]
    seen = f"from {images[0]:,} to {images[-1]:,} images seen"
    alt = f"Translations of the same source images by G at {len(images)} points, {seen}."
    caption = f"The same source images and z over the training, up to {images[-1]:,} images seen."
    return CaptionedFigure("progress", progress_gallery(images, progress["generated"], progress["source"]), caption, alt)
