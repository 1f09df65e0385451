"""The style of all figures: lines distinct without colour, rows of images, axes in images seen.

Figures are transparent and in mid-tones, readable on white and black. INK becomes the text colour of the page.
"""

import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

INK = "#1f2933"
GREY = "#868d97"
BLUE = "#3f83c8"
ORANGE = "#d6782b"
GREEN = "#2f9d71"
PURPLE = "#986fce"
RED = "#d5524f"

WIDTH = 1040
"""Width of a full figure; one unit is one CSS pixel, or one point in print."""
FONT = 12.0
TILE_PIXELS = 96
"""Maximum side of an image embedded in a gallery."""

STYLE: dict[Any, Any] = {
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "auto",
    "font.size": FONT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.solid_capstyle": "round",
    "hatch.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "pixelscope",
}

P = ParamSpec("P")
R = TypeVar("R")
Panel = tuple[str, Callable[[Axes], None]]
"""A title and the function that draws into the axes."""


@contextmanager
def style() -> Iterator[None]:
    """Apply the style within the block, whatever the user's matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to draw in the style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return draw(*args, **kwargs)

    return drawn


class Series(NamedTuple):
    """Finite values `y` measured at `x`, in order."""

    x: np.ndarray
    y: np.ndarray


def series(lines: Sequence[Mapping[str, Any]], name: str) -> Series | None:
    """Return the finite values `name` of the lines over images seen; None if there are none."""
    known = [line for line in lines if isinstance(line.get(name), int | float) and np.isfinite(line[name])]
    pairs = [(line["images"], line[name]) for line in known]
    return Series(*np.array(pairs, float).T) if pairs else None


@dataclass(frozen=True)
class Stroke:
    """Style of a line; colour and dashes both distinguish it."""

    colour: str
    dashes: str | tuple[float, tuple[float, ...]] = "-"
    width: float = 1.9


SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (5, 2.5)), (0, (1.5, 2)), (0, (6, 2, 1.5, 2))

NOISY = 24
"""Minimum number of points of a smoothed line, whose raw values are drawn faintly."""
DRAWN = 1500
"""Maximum number of raw points drawn per line; more would only enlarge the page."""


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return the centred running mean over about a fifteenth of the values, over fewer values near the ends."""
    half = max(1, len(values) // 30)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def draw_line(axes: Axes, line: Series | None, label: str, stroke: Stroke, noisy: bool = True) -> None:
    """Draw a line; a long, noisy one is smoothed over its faint raw values, a short one has a dot per value."""
    if line is None:
        return
    many = len(line.x) >= NOISY
    look = {"color": stroke.colour, "linestyle": stroke.dashes, "linewidth": stroke.width, "label": label}
    if many and noisy:
        every = -(-len(line.x) // DRAWN)
        axes.plot(line.x[::every], line.y[::every], color=stroke.colour, linewidth=0.8, alpha=0.4, label="_raw")
        axes.plot(line.x[::every], smoothed(line.y)[::every], **look)
    else:
        axes.plot(line.x, line.y, marker="" if many else "o", markersize=4, **look)


def padded_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in pixels, with space for axis labels."""
    return Figure(figsize=(width / 72, height / 72), layout=ConstrainedLayoutEngine(w_pad=10 / 72, h_pad=8 / 72))


def panels(parts: Sequence[Panel], columns: int, height: float) -> Figure | None:
    """Draw panels in rows of `columns`, each `height` high; None if there are no panels."""
    if not parts:
        return None
    columns = min(columns, len(parts))
    rows = -(-len(parts) // columns)
    width = min(WIDTH, 560 * columns)
    figure = padded_figure(width, rows * height)
    for index, (title, draw) in enumerate(parts):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(title)
        draw(axes)
    return figure


def legend_above(axes: Axes, columns: int = 2) -> None:
    """Place the legend above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2)


def legend_below(axes: Axes, offset: float = 0.17, columns: int = 2) -> None:
    """Place the legend below the label of the horizontal axis, `offset` axes heights down."""
    place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -offset), "borderaxespad": 0}
    axes.legend(**place, ncols=columns, columnspacing=1.4, labelspacing=0.35)


ROUND = (1, 2, 2.5, 5, 10)
"""Steps between ticks."""


def count_images(axes: Axes) -> None:
    """Label the horizontal axis in images seen, from 0; call it after all lines are drawn."""
    axes.set_xlabel("images seen")
    last = max([1.0, *(float(np.max(line.get_xdata())) for line in axes.lines if line.get_transform() == axes.transData)])
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def count_decades(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at its ticks."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    narrow = high / low < 50
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def count_percent(axes: Axes) -> None:
    """Label the vertical axis, a fraction in [0, 1], in percent."""
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}%"))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` positions, the first and the last among them."""
    return sorted({round(float(position)) for position in np.linspace(0, count - 1, min(count, most))})


def short_count(number: float) -> str:
    """Return a count as an axis label: 800, 56k, 1.12M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:.4g}"


def shortened(name: str, longest: int) -> str:
    """Return `name` in at most `longest` characters, with an ellipsis if it is cut."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Return the approximate width in pixels of `text` in bold letters of `size`."""
    if not text.strip():
        return 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        measured = TextPath((0, 0), text, size=size, prop=FontProperties(family="DejaVu Sans", weight="bold"), usetex=False)
    # Letters that matplotlib's font lacks are as wide as they are high.
    lacking = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return float(measured.get_extents().width) + 0.4 * size * lacking


def fitted(text: str, width: float, size: float) -> str:
    """Return `text`, cut with an ellipsis to fit into `width` pixels."""
    longest = len(text)
    while longest > 1 and text_width(shortened(text, longest), size) > width:
        longest -= 1
    return shortened(text, longest)


@dataclass(frozen=True)
class Canvas:
    """A figure without axes, for rows of images; positions are in pixels from the top left corner."""

    figure: Figure
    axes: Axes

    @classmethod
    def of(cls, width: float, height: float) -> "Canvas":
        """Return an empty canvas."""
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        axes.axis("off")
        return cls(figure, axes)

    def tiles(self, images: np.ndarray, left: float, top: float, side: float, gap: float) -> None:
        """Draw uint8 images (K, H, W, 3) in a row of tiles `side` wide."""
        for column, image in enumerate(images):
            x = left + column * (side + gap)
            extent = (x, x + side, top + side * image.shape[0] / image.shape[1], top)
            # "none" embeds the pixels as they are; any other value would resample them at the figure's resolution.
            self.axes.imshow(_embedded(image), extent=extent, interpolation="none", aspect="auto")

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        """Write `text`, centred at `x`, with its baseline at `y`."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "baseline", "fontsize": 11, **look})


def _embedded(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= TILE_PIXELS:
        return image
    small = Image.fromarray(image)
    small.thumbnail((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS)
    return np.asarray(small)
