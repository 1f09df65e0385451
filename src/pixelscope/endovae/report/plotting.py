"""The looks that EndoVAE's charts share, and rows of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pixelscope.reports.document import CaptionedFigure
from pixelscope.reports.plotting import BLUE, ORANGE, WIDTH, Canvas, fitted, text_width

KIND_COLOURS = {"normal": BLUE, "abnormal": ORANGE}
KIND_MARKERS = {"normal": "o", "abnormal": "D"}

LINE = 14.0
"""Height of a line of text."""
GAP = 6.0
TILE = 96.0
"""Maximum side of a tile."""
GROUP_GAP = 26.0
"""Gap between two groups of tiles."""
MARGIN, MAX_MARGIN = 76.0, 170.0
"""Width of the row names on the left, at least and at most."""
NAME_SIZE = 11.0
"""Font size of the row names."""


def filled(colour: str) -> dict[str, Any]:
    """Return the look of a filled bar."""
    return {"color": colour}


def hatched(colour: str) -> dict[str, Any]:
    """Return the look of a hatched bar, which differs from a filled one without colour too."""
    return {"facecolor": "none", "edgecolor": colour, "hatch": "////", "linewidth": 1.4}


def kind_bar(kind: str) -> dict[str, Any]:
    """Return the look of the bars of a kind of frame."""
    return (filled if kind == "normal" else hatched)(KIND_COLOURS[kind])


def captioned(name: str, figure: Figure | None, caption: str, alt: str = "") -> CaptionedFigure | None:
    """Return a figure with its caption; None without a figure."""
    return None if figure is None else CaptionedFigure(name, figure, caption, alt)


def margin_for(names: Sequence[str]) -> float:
    """Return the width that the row names need."""
    return min(MAX_MARGIN, max([MARGIN, *(text_width(name.split("\n")[0], NAME_SIZE) + 20 for name in names)]))


def tile_side(columns: int, margin: float = MARGIN, gaps: float = 0.0) -> float:
    """Return the side of a tile for `columns` tiles next to the row names, with `gaps` pixels between groups."""
    return min(TILE, (WIDTH - margin - gaps) / columns - GAP)


def draw_row(canvas: Canvas, name: str, images: np.ndarray, top: float, side: float, margin: float = MARGIN) -> None:
    """Draw a named row of uint8 images (K, H, W, 3)."""
    canvas.text(margin - 10, top + side / 2, name, ha="right", va="center", fontsize=NAME_SIZE)
    canvas.tiles(images, margin, top, side, GAP)


def rows_gallery(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Draw named rows of uint8 images (K, H, W, 3), of any number each."""
    margin = margin_for([name for name, _ in rows])
    columns = max(len(images) for _, images in rows)
    side = tile_side(columns, margin)
    canvas = Canvas.of(margin + columns * (side + GAP), GAP + len(rows) * (side + GAP))
    for row, (name, images) in enumerate(rows):
        draw_row(canvas, fitted(name, margin - 14, NAME_SIZE), images, GAP + row * (side + GAP), side, margin)
    return canvas.figure
