"""How frames become small squares, in the report's five stages."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixelscope.data.frames.preprocess import Stages
from pixelscope.imaging.box import Box
from pixelscope.report.plotting import DASHED, DOTTED, SOLID, WIDTH, Canvas, fitted, styled, text_width

MOST = 6
"""Most frames shown."""
LINE = 14.0
GAP = 10.0
WIDEST = 170.0
"""Most room for the names of the rows."""
HIGHEST = 1.0
"""Height of a cell at most, as a share of its width."""
FINAL = 0.62
"""Width of the last stage's cell, as a share of the others'."""
OUTLINE, AREA = "#62f0a0", "#7cc4ff"
"""Colours of Otsu's contour and of the area used: unlike tissue, and bright, for they lie on pictures."""
HEADS = ("original", "grey", "Otsu's mask", "contour and area used")


@styled
def stages_figure(frames: Sequence[tuple[str, Stages]], size: int) -> Figure | None:
    """Draw one row a frame: original, grey, Otsu's mask, its contour and the area used, and the square that is left.

    frames: a name each, and the stages; size: side of the prepared frames. Of more than 6 frames 6 are drawn, evenly spread.
    """
    shown = [frames[i] for i in chosen_frames(len(frames))]
    if not shown:
        return None
    margin = min(WIDEST, max((text_width(name, 11) for name, _ in shown if name), default=0) + 20)
    width = (WIDTH - margin - GAP) / (len(HEADS) + FINAL) - GAP
    heights = [_height(one.original, width) for _, one in shown]
    top = LINE + 10
    canvas = Canvas.of(WIDTH, top + sum(heights) + GAP * len(shown))
    for column, head in enumerate((*HEADS, f"final {size} × {size}")):
        canvas.text(margin + column * (width + GAP), LINE, head, ha="left", fontweight="bold")
    for (name, one), height in zip(shown, heights, strict=True):
        canvas.text(margin - 10, top + height / 2, fitted(name, margin - 14, 11), ha="right", va="center")
        _draw_stages(canvas, one, (margin, top), (width, height), size)
        top += height + GAP
    return canvas.figure


def chosen_frames(count: int) -> list[int]:
    """Return the positions of at most 6 of `count` frames, at equal distances."""
    return [i * count // min(count, MOST) for i in range(min(count, MOST))]


def final_square(one: Stages, size: int) -> np.ndarray:
    """Return the last stage, uint8 (size, size, 3): the square in the middle of the area used."""
    cut = one.original[_square(one).slices]
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.LANCZOS))


def _square(one: Stages) -> Box:
    return Box(*(round(float(value)) for value in one.box)).centre_square()


def _height(original: np.ndarray, width: float) -> float:
    return width * min(HIGHEST, original.shape[0] / original.shape[1])


def _draw_stages(canvas: Canvas, one: Stages, corner: tuple[float, float], cell: tuple[float, float], size: int) -> None:
    (left, top), (width, height) = corner, cell
    mask = 255 * one.mask
    for column, image in enumerate((one.original, one.grey, mask, one.original)):
        scale = _place(canvas, image, left + column * (width + GAP), top, cell)
    _label(canvas, f"threshold {one.threshold:.0f}", left + 2 * (width + GAP), top + height)
    _outline(canvas, one, left + 3 * (width + GAP), top, scale)
    last = left + 4 * (width + GAP)
    side = min(height, FINAL * width)
    _place(canvas, final_square(one, size), last, top + (height - side) / 2, (side, side))


def _place(canvas: Canvas, image: np.ndarray, left: float, top: float, cell: tuple[float, float]) -> float:
    """Place an image, as large as the cell allows, and return the factor from its pixels to the figure's."""
    scale = min(cell[0] / image.shape[1], cell[1] / image.shape[0])
    width, height = scale * image.shape[1], scale * image.shape[0]
    if scale < 1:
        image = np.asarray(Image.fromarray(image).resize((round(width), round(height)), Image.Resampling.BOX))
    look = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    canvas.axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="none", aspect="auto", **look)
    return scale


def _outline(canvas: Canvas, one: Stages, left: float, top: float, scale: float) -> None:
    if len(one.contour):
        points = np.concatenate([one.contour, one.contour[:1]]) * scale
        canvas.axes.plot(left + points[:, 0], top + points[:, 1], color=OUTLINE, linewidth=1.1, label="_contour")
    square = _square(one)
    inner = (square.left, square.top, square.width, square.height)
    for box, colour, dashes in ((one.otsu_box, OUTLINE, DASHED), (one.box, AREA, SOLID), (inner, AREA, DOTTED)):
        x, y, width, height = (float(value) * scale for value in box)
        corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)])
        canvas.axes.plot(left + corners[:, 0], top + corners[:, 1], color=colour, linestyle=dashes, linewidth=1.8)


def _label(canvas: Canvas, words: str, left: float, bottom: float) -> None:
    look = {"boxstyle": "square,pad=0.25", "facecolor": "black", "edgecolor": "none", "alpha": 0.75}
    canvas.text(left + 5, bottom - 7, words, ha="left", color="white", bbox=look)
