"""Rows of images: what there was, what was made of it, and what T says of it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pixelscope.report.plotting import FONT, GREY, RED, WIDTH, Canvas, fitted, styled, text_width

MARGIN = 84.0
"""Room at the left for the names of the rows."""
LINE = 14.0
"""Height of a line of text."""
GAP = 8.0
LARGEST, SMALLEST = 96.0, 54.0
"""Sides of a tile."""
WIDEST = 112.0
"""Side to which a tile grows for the words above it."""
WORDS = 11.0
"""Size of the letters above a tile."""
MOMENTS = 12
"""Most moments of a training shown."""
UNKNOWN = -1


@styled
def pairs_gallery(source: np.ndarray, target: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw corresponding images of both domains below each other, the class above.

    source, target: uint8 (K, H, W, 3); labels: int (K,).
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
def adapted_gallery(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], classes: Sequence[str], most: int = 16
) -> Figure:
    """Draw rows of images with "Real: y" and "Pred: y'" above each; a wrong prediction is framed, crossed and bold.

    rows: name, uint8 images (K, H, W, 3), labels int (K,) with -1 for unknown, predictions int (K,).
    """
    count = min(most, *(len(images) for _, images, _, _ in rows))
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
                _verdict(canvas, column, top, side, int(label), int(prediction), classes)
    return canvas.figure


@styled
def named_rows(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Draw rows of images, uint8 (K, H, W, 3) each, with their names at the left."""
    margin = max(MARGIN, *(text_width(name, WORDS) + 20 for name, _ in rows))
    side = min(64.0, (WIDTH - margin) / max(len(images) for _, images in rows) - GAP / 2)
    step = side + GAP / 2
    canvas = Canvas.of(margin + max(len(images) for _, images in rows) * step, GAP + len(rows) * step)
    for row, (name, images) in enumerate(rows):
        canvas.text(margin - 10, GAP + row * step + side / 2, name, ha="right", va="center", fontsize=WORDS)
        canvas.tiles(images, margin, GAP + row * step, side, GAP / 2)
    return canvas.figure


@styled
def styles_gallery(source: np.ndarray, generated: np.ndarray) -> Figure:
    """Draw each source image and, beside it, what G makes of it with one z a column.

    source: uint8 (R, H, W, 3); generated: uint8 (R, Z, H, W, 3).
    """
    draws = generated.shape[1]
    apart = 2 * GAP
    side = max(SMALLEST, min(LARGEST, (WIDTH - apart) / (draws + 1) - GAP))
    width = (draws + 1) * (side + GAP) + apart
    canvas = Canvas.of(width, LINE + 8 + len(source) * (side + GAP))
    canvas.text(side / 2 + GAP / 2, LINE - 2, "source", fontweight="bold")
    left = GAP / 2 + side + GAP + apart
    for draw in range(draws):
        canvas.text(left + draw * (side + GAP) + side / 2, LINE - 2, f"z {draw + 1}")
    for row, (image, drawn) in enumerate(zip(source, generated, strict=True)):
        top = LINE + 8 + row * (side + GAP)
        canvas.tiles(image[None], GAP / 2, top, side, GAP)
        canvas.tiles(drawn, left, top, side, GAP)
    canvas.axes.axvline(GAP / 2 + side + GAP / 2 + apart / 2, color=GREY, linewidth=1)
    return canvas.figure


@styled
def progress_gallery(images: np.ndarray, generated: np.ndarray, source: np.ndarray) -> Figure:
    """Draw the same source images as G redrew them at moments of the training, one row a moment, the sources above.

    images: int (S,), images seen; generated: uint8 (S, K, H, W, 3); source: uint8 (K, H, W, 3). Of more than 12 moments
    12 are drawn, evenly spread, the first and the last among them.
    """
    chosen = chosen_moments(len(images))
    side = max(SMALLEST, min(76.0, (WIDTH - MARGIN) / len(source) - 4))
    step = side + 4
    canvas = Canvas.of(MARGIN + len(source) * step + 4, (len(chosen) + 1) * step + 12)
    _row(canvas, "source", source, 2, side, 4)
    canvas.axes.axhline(step + 4, color=GREY, linewidth=1)
    for row, moment in enumerate(chosen):
        _row(canvas, f"{int(images[moment]):,}\nimages", generated[moment], (row + 1) * step + 8, side, 4)
    return canvas.figure


def chosen_moments(count: int) -> list[int]:
    """Return the positions of at most 12 of `count` moments, evenly spread, the first and the last among them."""
    return sorted({round(float(p)) for p in np.linspace(0, count - 1, min(count, MOMENTS))})


def _columns(count: int, words: Sequence[str]) -> tuple[int, float]:
    """Return how many tiles stand in a row, and their side, for such words above them."""
    side = min(WIDEST, max(SMALLEST, *(text_width(text, WORDS) for text in words)))
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


def _verdict(canvas: Canvas, column: int, top: float, side: float, label: int, prediction: int, classes: Sequence[str]) -> None:
    wrong = label not in (UNKNOWN, prediction)
    weight, x = ("bold" if wrong else "normal"), _middle(column, side)
    words = (f"Real: {'?' if label == UNKNOWN else classes[label]}", f"Pred: {classes[prediction]}")
    for line, text in enumerate(words, 1):
        canvas.text(x, top + line * LINE - 2, fitted(text, side + 2, WORDS), fontsize=WORDS, fontweight=weight)
    if wrong:
        left, upper = x - side / 2, top + 2 * LINE + 4
        canvas.axes.add_patch(Rectangle((left, upper), side, side, fill=False, edgecolor=RED, linewidth=3.5, label="_wrong"))
        at = (left + side - 9, upper + 9)
        canvas.axes.plot(*at, "s", color=RED, markersize=16)
        canvas.axes.plot(*at, "x", color="white", markersize=8, markeredgewidth=2)
