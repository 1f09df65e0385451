"""How much each latent dimension says of a frame."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pixelscope.endovae.figures.looks import filled, hatched
from pixelscope.report.plotting import BLUE, DOTTED, GREY, ORANGE, WIDTH, padded_figure, styled

NUMBERED = 24
"""Most dimensions that are all numbered."""
SPEAKING = 0.1
"""Divergence in nats under which a dimension says next to nothing."""


@styled
def divergence_bars(sets: Sequence[tuple[str, Sequence[float]]]) -> Figure | None:
    """Draw the mean divergence of each latent dimension in nats, one or two sets beside each other.

    The dimensions stand in the order of their divergence in the first set, largest first.
    """
    if not sets:
        return None
    order = np.argsort(-np.asarray(sets[0][1]), kind="stable")
    figure = padded_figure(min(WIDTH, 260 + 60 * len(order)), 300)
    axes = figure.add_subplot()
    at, width = np.arange(len(order)), 0.8 / len(sets)
    looks = (filled(BLUE), hatched(ORANGE))
    for number, ((title, kl), look) in enumerate(zip(sets, looks, strict=False)):
        axes.bar(at + width * (number - (len(sets) - 1) / 2), np.asarray(kl)[order], 0.92 * width, label=title, **look)
    axes.axhline(SPEAKING, color=GREY, linewidth=1.2, linestyle=DOTTED)
    axes.grid(visible=False, axis="x")
    if len(order) <= NUMBERED:
        axes.set_xticks(at, [f"z {dimension + 1}" for dimension in order])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set(xlabel="latent dimension, largest first", ylabel="KL, nats")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def speaking(kl: Sequence[float]) -> int:
    """Return how many dimensions say something."""
    return int((np.asarray(kl) >= SPEAKING).sum())
