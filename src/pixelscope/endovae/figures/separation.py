"""How scores separate abnormal from healthy frames, as points with their intervals."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelscope.report.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, padded_figure, styled

Point = tuple[float, float, float]
"""A value, and the low and high end of its interval."""

COLOURS = (INK, BLUE, ORANGE, GREEN, PURPLE, GREY)
MARKS = ("D", "o", "s", "^", "v", "P")
ROW = 30
"""Height of a score's row."""


@styled
def separation_panel(
    scores: Mapping[str, Mapping[str, Point]], baselines: Mapping[str, Mapping[str, Point]], chosen: str
) -> Figure:
    """Draw AUROC with its interval, a row a score and a mark a class of healthy frames; trivial scores below a line.

    scores, baselines: by score, then by class, the same classes everywhere; chosen: the score that stands in bold.
    """
    rows = {**scores, **baselines}
    figure = padded_figure(820, 110 + ROW * len(rows))
    axes = figure.add_subplot()
    groups = list(next(iter(rows.values())))
    for number, group in enumerate(groups):
        at = [row + 0.66 * ((number + 0.5) / len(groups) - 0.5) for row in range(len(rows))]
        _points(axes, at, [by[group] for by in rows.values()], group, number)
    axes.axhline(len(scores) - 0.5, color=GREY, linewidth=1)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.get_yticklabels()[list(rows).index(chosen)].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(right=1.0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("AUROC; 0.5 is chance")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(groups)), borderaxespad=0.2)
    return figure


def _points(axes: Axes, at: list[float], points: list[Point], group: str, number: int) -> None:
    values, lows, highs = (list(column) for column in zip(*points, strict=True))
    colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
    axes.hlines(at, lows, highs, color=colour, linewidth=1.4)
    axes.plot(values, at, linestyle="none", marker=mark, markersize=5, color=colour, label=group)
