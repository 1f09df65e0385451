"""The loss and its two terms over the course of a training, and the learning rate that followed them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pixelscope.report.plotting import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SOLID,
    Panel,
    Series,
    Stroke,
    count_images,
    draw_line,
    panels,
    series,
    styled,
)

Lines = Sequence[Mapping[str, Any]]

TRAIN, VALIDATION = Stroke(GREY, DASHED, 1.6), Stroke(BLUE, SOLID, 2.2)
LEARNT = 0.05
"""Share of a training after which its losses decide the frame of a panel: at first they are far above."""


@styled
def loss_panels(
    train: Lines, evaluations: Lines, best: tuple[int, float] | None = None, take_off: float | None = None
) -> Figure | None:
    """Draw reconstruction, divergence, their sum and the learning rate, over images seen; what is lacking is left out.

    train, evaluations: lines of stats.jsonl; best: images and validation loss of the chosen checkpoint.
    take_off: divergence in nats from which the schedule counts.
    """
    parts: list[Panel] = []
    for name, title, draw in (
        ("reconstruction", "Reconstruction term", _reconstruction),
        ("kl", "KL term", partial(_divergence, take_off=take_off)),
        ("total", "Loss", partial(_total, best=best)),
    ):
        lines = series(train, f"loss/{name}"), series(evaluations, f"loss/validation_{name}")
        if any(line is not None for line in lines):
            parts.append((title, partial(draw, lines=lines, evaluations=evaluations)))
    rate = series(evaluations, "learning_rate")
    if rate is not None:
        parts.append(("Learning rate", partial(_learning_rate, rate=rate)))
    return panels(parts, 2, 320)


def falls(evaluations: Lines) -> list[int]:
    """Return the images seen at which a learning rate lower than before was first used."""
    rate = series(evaluations, "learning_rate")
    return [] if rate is None else [int(x) for x in rate.x[1:][np.diff(rate.y) < 0]]


def _reconstruction(axes: Axes, lines: tuple[Series | None, Series | None], evaluations: Lines) -> None:
    _both(axes, lines)
    _frame(axes, lines)
    axes.set_ylabel("nats an image")
    _finish(axes)


def _divergence(axes: Axes, lines: tuple[Series | None, Series | None], evaluations: Lines, take_off: float | None) -> None:
    _both(axes, lines)
    if take_off is not None:
        axes.axhline(take_off, color=GREY, linewidth=1.2, linestyle=DOTTED, label=f"take-off: KL {take_off:g}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("nats an image")
    _finish(axes)


def _total(axes: Axes, lines: tuple[Series | None, Series | None], evaluations: Lines, best: tuple[int, float] | None) -> None:
    _both(axes, lines)
    _frame(axes, lines)
    for number, at in enumerate(falls(evaluations)):
        label = "learning rate falls" if not number else "_fall"
        axes.axvline(at, color=ORANGE, linewidth=1, linestyle=DOTTED, label=label)
    if best is not None:
        axes.plot(*best, "*", color=GREEN, markersize=14, label=f"lowest: {best[1]:,.1f}", zorder=5)
    axes.set_ylabel("nats an image")
    _finish(axes)


def _learning_rate(axes: Axes, rate: Series) -> None:
    marker = "o" if len(rate.x) == 1 else None
    axes.step(rate.x, rate.y, where="post", color=PURPLE, linewidth=1.9, marker=marker, label="at each evaluation")
    axes.set_yscale("log")
    low, high = rate.y.min(), rate.y.max()
    axes.set_ylim(low / 1.6, high * 1.6)
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1,) if high / low > 50 else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e−")))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes)


def _both(axes: Axes, lines: tuple[Series | None, Series | None]) -> None:
    draw_line(axes, lines[0], "training", TRAIN)
    draw_line(axes, lines[1], "validation", VALIDATION, noisy=False)


def _frame(axes: Axes, lines: Sequence[Series | None]) -> None:
    """Spread what was learnt over the panel; the first moments may lie above it."""
    known = [line for line in lines if line is not None]
    start = LEARNT * max(line.x[-1] for line in known)
    values = np.concatenate([line.y[line.x >= start] for line in known])
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _finish(axes: Axes) -> None:
    count_images(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), borderaxespad=0, ncols=2, columnspacing=1.4)
