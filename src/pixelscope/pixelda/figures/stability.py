"""The numbers that show why a training is stable or not, with the warnings that were raised marked where they were."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelscope.report.plotting import (
    BLUE,
    DASH_DOT,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Panel,
    Stroke,
    count_decades,
    count_images,
    count_percent,
    draw_line,
    panels,
    series,
    shortened,
    styled,
)

Lines = Sequence[Mapping[str, Any]]

LABELLED = 24
"""Most classes whose names fit below the bars."""


@styled
def stability_panels(train: Lines, evaluations: Lines, warnings: Lines, classes: Sequence[str]) -> Figure | None:
    """Draw D's probabilities, the norms of G's gradients, the classes generated and the diversity; what is lacking is left out.

    train, evaluations, warnings: lines of stats.jsonl; classes: their names, in the order of the histograms.
    """
    parts: list[Panel] = []
    if series(train, "probability/real") or series(train, "probability/generated"):
        parts.append(("D's probability of “real”", partial(_probabilities, train=train, warnings=warnings)))
    if series(train, "gradient/generator_domain") or series(train, "gradient/generator_task"):
        parts.append(("Gradient norms", partial(_gradients, train=train, warnings=warnings)))
    histograms = class_histograms(train)
    if histograms is not None:
        parts.append(("Classes generated, as T sees them", partial(_histogram, histograms=histograms, classes=classes)))
    if series(train, "layout"):
        parts.append(("Content kept by redrawing", partial(_content, train=train, warnings=warnings)))
    if series(evaluations, "diversity"):
        parts.append(("Diversity over z", partial(_diversity, evaluations=evaluations, warnings=warnings)))
    return panels(parts, 2, 330)


def class_histograms(train: Lines) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the share of each class in the source and in the generated images, a mean over the last tenth of the lines."""
    known = [line for line in train if line.get("histogram/source") and line.get("histogram/generated")]
    if not known:
        return None
    last = known[-max(1, len(known) // 10) :]
    source, generated = (np.mean([line[f"histogram/{name}"] for line in last], axis=0) for name in ("source", "generated"))
    return source, generated


def _probabilities(axes: Axes, train: Lines, warnings: Lines) -> None:
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=DOTTED)
    draw_line(axes, series(train, "probability/real"), "of target images", Stroke(BLUE))
    draw_line(axes, series(train, "probability/generated"), "of generated images", Stroke(ORANGE, DASHED))
    _as_shares(axes, warnings, "overpowering discriminator")


def _content(axes: Axes, train: Lines, warnings: Lines) -> None:
    draw_line(axes, series(train, "accuracy/batch_generated"), "class, as T reads it", Stroke(BLUE))
    draw_line(axes, series(train, "accuracy/judge_generated"), "class, as the judge reads it", Stroke(ORANGE, DASHED))
    draw_line(axes, series(train, "layout"), "layout", Stroke(GREEN, DASH_DOT))
    _as_shares(axes, warnings, "content lost")


def _as_shares(axes: Axes, warnings: Lines, cause: str) -> None:
    """Give lines of values from 0 to 1 their scales, marks of the warnings with this cause, and a legend."""
    axes.set_ylim(-0.02, 1.06)
    _mark(axes, warnings, cause)
    count_percent(axes)
    count_images(axes)
    _legend(axes)


def _gradients(axes: Axes, train: Lines, warnings: Lines) -> None:
    draw_line(axes, series(train, "gradient/generator_domain"), "G, from D's verdict", Stroke(ORANGE))
    draw_line(axes, series(train, "gradient/generator_task"), "G, from T's loss", Stroke(PURPLE, DASHED))
    draw_line(axes, series(train, "gradient/generator_content"), "G, from content", Stroke(GREEN, DASH_DOT))
    draw_line(axes, series(train, "gradient/discriminator"), "D's own", Stroke(GREY, DOTTED, 1.4))
    axes.set_ylabel("norm, logarithmic")
    count_decades(axes)
    _mark(axes, warnings, "vanishing gradients")
    count_images(axes)
    _legend(axes)


def _histogram(axes: Axes, histograms: tuple[np.ndarray, np.ndarray], classes: Sequence[str]) -> None:
    source, generated = histograms
    at = np.arange(len(source))
    axes.bar(at - 0.2, source, 0.38, label="source labels", facecolor="none", edgecolor=BLUE, linewidth=1.4)
    axes.bar(at + 0.2, generated, 0.38, label="generated, predicted", color=ORANGE)
    axes.grid(visible=False, axis="x")
    names = [shortened(name, 12) for name in classes] if len(classes) == len(source) else [str(i) for i in at]
    every = -(-len(at) // LABELLED)
    crowded = len(at) * max(map(len, names)) > 60
    axes.set_xticks(at[::every], names[::every], rotation=90 if crowded else 0)
    axes.set_ylabel("share of images")
    count_percent(axes)
    _legend(axes)


def _diversity(axes: Axes, evaluations: Lines, warnings: Lines) -> None:
    draw_line(axes, series(evaluations, "diversity"), "standard deviation of a pixel over z", Stroke(GREEN), noisy=False)
    axes.set_ylim(0, max(axes.get_ylim()[1], 0.004) * 1.08)
    axes.set_ylabel("in units of [−1, 1]")
    _mark(axes, warnings, "collapse")
    count_images(axes)
    _legend(axes)


def _mark(axes: Axes, warnings: Lines, cause: str) -> None:
    """Mark the moments of a cause's warnings along the upper edge."""
    at = [line["images"] for line in warnings if line.get("cause") == cause]
    if at:
        # In height the axes' own coordinates, so that the marks stay at the edge whatever the scale.
        where = axes.get_xaxis_transform()
        axes.plot(
            at, [0.985] * len(at), "v", transform=where, color=RED, markersize=8, clip_on=False, label=f"warning: {cause}"
        )


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), borderaxespad=0, ncols=2, columnspacing=1.4, labelspacing=0.35)
