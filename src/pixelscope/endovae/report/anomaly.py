"""The section "Anomaly scores": how scores separate abnormal from healthy frames, next to trivial baselines, and heat maps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from pixelscope.endovae.anomaly.baselines import BASELINES, SHORTCUTS
from pixelscope.endovae.anomaly.scores import SCORES
from pixelscope.endovae.report.data import KINDS, ReportData
from pixelscope.endovae.report.plotting import GAP, GROUP_GAP, LINE, captioned, draw_row, margin_for, tile_side
from pixelscope.endovae.results import RESEARCH, Anomaly, ScoreSeparation, ViewResult
from pixelscope.errors import plural
from pixelscope.reports.document import CaptionedFigure, Row, Section, Table, present
from pixelscope.reports.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Canvas, legend_above, padded_figure, styled

Point = tuple[float, float, float]
"""A value, and the low and high end of its interval."""

COLOURS = (INK, BLUE, ORANGE, GREEN, PURPLE, GREY)
MARKERS = ("D", "o", "s", "^", "v", "P")
ROW_HEIGHT = 30


class HeatMaps(NamedTuple):
    """Frames of one kind, uint8 (K, H, W, 3), their heat maps of the same shape, lesions, bool (K, H, W), p-values, (K,)."""

    title: str
    frames: np.ndarray
    overlays: np.ndarray
    lesions: np.ndarray
    p: np.ndarray


def anomaly_section(data: ReportData) -> Section:
    """Return how anomaly scores separate abnormal from healthy test frames; empty if that was not measured."""
    found = None if data.numbers is None else data.numbers.anomaly
    if found is None:
        return Section("Anomaly scores", "anomaly")
    draws = (_separation, _score_table, _camera_table)
    views = [draw(view, one) for view, one in found.ordered.items() for draw in draws]
    return Section(
        "Anomaly scores",
        "anomaly",
        prose=(
            f"{RESEARCH} The first numbers are of the view {found.headline}.",
            VIEW_TEXT,
            *(_selection(view, one, found.rate) for view, one in found.ordered.items()),
        ),
        parts=present(*views, _definitions(found), _heatmaps(data), _localization(found)),
        notes=(
            *found.warnings,
            *(warning for one in found.ordered.values() for warning in one.warnings),
            *(f"Test frames on the view {view} {line}." for view, one in found.ordered.items() for line in one.left_out),
        ),
    )


VIEW_TEXT = (
    "The view centre is one square for all frames, without border, insets and margin; the view full is the whole prepared "
    "frame. Border, insets and size differ between data sets, and say nothing about tissue. Scores of the latent vector are "
    "of the whole frame on both views."
)


def _selection(view: str, found: ViewResult, rate: float) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found.flagged.items())
    shares = shares or f"not measured, with {found.calibration_count} calibration frames"
    flagged = f"Flagged at a calibrated false-positive rate of {rate:.0%}: {shares}."
    if not found.selection_auroc:
        return f"View {view}: the score is {found.selected}, the default without abnormal frames to select on. {flagged}"
    kinds = " and ".join(f"{count:,} {kind}" for kind, count in found.selection_counts.items())
    return (
        f"View {view}: the score {found.selected} was selected on {kinds} validation frames "
        f"(AUROC {found.selection_auroc[found.selected]:.3f}), and calibrated on "
        f"{plural(found.calibration_count, 'healthy frame')}. "
        f"The frames below are other frames. {flagged}"
    )


def _separation(view: str, found: ViewResult) -> CaptionedFigure | None:
    scores, baselines = (
        {name: _points(by, found.groups) for name, by in table.items()} for table in (found.scores, found.baselines)
    )
    caption = (
        f"View {view}: AUROC with 95% bootstrap interval, {found.counts['abnormal']:,} abnormal against healthy test frames, "
        f"by class; whole clusters are resampled. Scores of the model above the line, trivial baselines below. "
        f"The selected score is {found.selected}."
    )
    return captioned(f"separation-{view}", separation_panel(scores, baselines, found.selected), caption)


def _points(by: Mapping[str, ScoreSeparation], groups: Mapping[str, str]) -> dict[str, Point]:
    return {title: (by[key].auroc.value, by[key].auroc.low, by[key].auroc.high) for key, title in groups.items()}


def _score_table(view: str, found: ViewResult) -> Table:
    groups = found.groups
    rows = [_row(f"{name} (selected)" if name == found.selected else name, by, groups) for name, by in found.scores.items()]
    rows += [_row(name, by, groups, separate=True) for name, by in found.baselines.items()]
    rows.append(Row(("best of them", *(found.leads[key].baseline for key in groups), ""), separate=True))
    rows.append(Row(("lead over it", *(str(found.leads[key].difference) for key in groups), ""), separate=True))
    if found.shortcuts is not None:
        tests = {"without tissue": found.shortcuts.shortcuts, "mean colour": found.shortcuts.mean_colour}
        rows += [Row((f"shortcut test, {name}", *(str(by[key]) for key in groups), "")) for name, by in tests.items()]
    heads = [f"{title} ({found.counts[key]:,})" for key, title in groups.items()]
    caption = (
        f"View {view}: AUROC per class of healthy frames, and average precision against all of them, with 95% bootstrap "
        "intervals. The lead is paired: both scores on the same resampled frames. The shortcut tests are classifiers, "
        "cross-validated on all frames, whole clusters held out; the first is defined below."
    )
    return Table(caption, ("Score", *heads, "average precision"), tuple(rows))


def _camera_table(view: str, found: ViewResult) -> Table | None:
    if not found.cameras:
        return None
    rows = [Row((name, f"{one.count:,}", f"{one.flagged:.1%}")) for name, one in found.cameras.items()]
    return Table(f"View {view}: healthy test frames by class and original size.", ("Camera", "frames", "flagged"), tuple(rows))


def _row(name: str, by: Mapping[str, ScoreSeparation], groups: Mapping[str, str], separate: bool = False) -> Row:
    found = [by[key].auroc for key in groups] + [by[next(iter(groups))].average_precision]
    return Row((name, *map(str, found)), separate)


def _definitions(found: Anomaly) -> Table:
    shown = {name for one in found.views.values() for name in (*one.scores, *one.baselines)}
    rows = [Row((name, text)) for name, text in (SCORES | BASELINES).items() if name in shown]
    rows += [
        Row((f"shortcut test without tissue, {view}", "; ".join(f"{name}: {text}" for name, text in SHORTCUTS[view].items())))
        for view, one in found.ordered.items()
        if one.shortcuts is not None
    ]
    return Table("Definitions of the scores.", ("Score", "definition"), tuple(rows), numeric=False)


def _heatmaps(data: ReportData) -> CaptionedFigure | None:
    groups = []
    for kind in KINDS:
        arrays = data.samples(f"heatmaps-{kind}")
        if arrays is not None:
            groups.append(HeatMaps(kind, arrays["frames"], arrays["overlays"], arrays["lesions"] > 0, arrays["p"]))
    if not groups:
        return None
    caption = (
        "Random test frames above their heat maps, with known lesions outlined in white. Brighter means a larger squared error "
        "of the reconstruction; all maps have the same scale. p: fraction of healthy calibration frames that "
        "score as high, on the view centre."
    )
    return captioned("heat-maps", heatmap_gallery(groups), caption)


def _localization(found: Anomaly) -> Table | None:
    if found.localization is None:
        return None
    rows = [Row((name, f"{one.auroc:.3f}", f"{one.dice:.3f}")) for name, one in found.localization.maps.items()]
    caption = (
        f"How well maps separate lesion pixels ({found.localization.lesion_share:.1%}) from the others in "
        f"{found.localization.frames:,} abnormal test frames, insets ignored. The threshold of the best Dice was chosen on "
        "these masks."
    )
    return Table(caption, ("Map", "pixel AUROC", "best Dice"), tuple(rows))


@styled
def separation_panel(
    scores: Mapping[str, Mapping[str, Point]], baselines: Mapping[str, Mapping[str, Point]], selected: str
) -> Figure:
    """Draw AUROC with its interval, one row per score and one marker per class of healthy frames, baselines below a line.

    Args:
        scores: by score, then by class.
        baselines: likewise, with the same classes.
        selected: the score printed in bold.
    """
    rows = {**scores, **baselines}
    figure = padded_figure(820, 110 + ROW_HEIGHT * len(rows))
    axes = figure.add_subplot()
    groups = list(next(iter(rows.values())))
    for number, group in enumerate(groups):
        at = [row + 0.66 * ((number + 0.5) / len(groups) - 0.5) for row in range(len(rows))]
        _draw_points(axes, at, [by[group] for by in rows.values()], group, number)
    axes.axhline(len(scores) - 0.5, color=GREY, linewidth=1)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.get_yticklabels()[list(rows).index(selected)].set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(right=1.0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("AUROC; 0.5 is chance")
    legend_above(axes, min(4, len(groups)))
    return figure


def _draw_points(axes: Axes, at: list[float], points: list[Point], group: str, number: int) -> None:
    values, lows, highs = (list(column) for column in zip(*points, strict=True))
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.hlines(at, lows, highs, color=colour, linewidth=1.4)
    axes.plot(values, at, linestyle="none", marker=marker, markersize=5, color=colour, label=group)


@styled
def heatmap_gallery(groups: Sequence[HeatMaps]) -> Figure:
    """Draw frames with outlined lesions above their heat maps and p-values, one pair of rows per group."""
    margin = margin_for([group.title for group in groups])
    columns = max(len(group.frames) for group in groups)
    side = tile_side(columns, margin)
    height = 2 * (side + GAP) + LINE + GROUP_GAP
    canvas = Canvas.of(margin + columns * (side + GAP), len(groups) * height - GROUP_GAP + GAP + 4)
    for number, group in enumerate(groups):
        top = GAP + number * height
        below = top + 2 * (side + GAP) + LINE - 3
        draw_row(canvas, group.title, outlined(group.frames, group.lesions), top, side, margin)
        draw_row(canvas, "heat map", group.overlays, top + side + GAP, side, margin)
        canvas.text(margin - 10, below, "p", ha="right")
        for column, p in enumerate(group.p):
            canvas.text(margin + column * (side + GAP) + side / 2, below, f"{p:.3f}")
    return canvas.figure


def outlined(frames: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Return uint8 frames (K, H, W, 3) with a white line inside the edge of `lesions`, bool (K, H, W)."""
    inner = np.stack([np.asarray(ndimage.binary_erosion(lesion, border_value=1), bool) for lesion in lesions])
    drawn = frames.copy()
    drawn[lesions & ~inner] = 255
    return drawn
