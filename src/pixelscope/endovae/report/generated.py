"""The sections "Reconstructions" and "Generated frames and latent space": images from samples/, and KL per dimension."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pixelscope.endovae.report.data import KINDS, RECONSTRUCTIONS, ReportData
from pixelscope.endovae.report.plotting import (
    GAP,
    GROUP_GAP,
    LINE,
    MARGIN,
    NAME_SIZE,
    TILE,
    captioned,
    draw_row,
    filled,
    hatched,
    tile_side,
)
from pixelscope.errors import plural
from pixelscope.reports.document import CaptionedFigure, Section, present
from pixelscope.reports.plotting import BLUE, DOTTED, GREY, ORANGE, WIDTH, Canvas, fitted, legend_above, padded_figure, styled

MAX_NUMBERED = 24
"""Maximum number of latent dimensions that are all numbered in a chart."""
_DIMENSIONS_CAPTION = (
    "One latent dimension per row, set to values from −3 to 3 standard deviations of the prior while the others are 0, with "
    "its mean KL in nats. A dimension with a higher KL encodes more. If a row does not change, the decoder does not use the "
    "dimension."
)
_AXES_CAPTION = (
    "One principal component of the training frames' codes per row, from −3 to 3 standard deviations while the others are at "
    "their mean. The components are in the order of their variance."
)
ACTIVE = 0.1
"""Mean KL in nats below which a latent dimension counts as inactive."""


class Reconstructions(NamedTuple):
    """Frames of one set and their reconstructions, uint8 (K, H, W, 3), with their quality, (K,)."""

    title: str
    originals: np.ndarray
    reconstructions: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray


def reconstructions_section(data: ReportData) -> Section:
    """Return frames above their reconstructions: random ones, the worst and the best."""
    parts = [_reconstructions(data, "random", [(kind, "random") for kind in KINDS])]
    parts += [_reconstructions(data, kind, [(kind, "worst"), (kind, "best")]) for kind in KINDS]
    return Section("Reconstructions", "reconstructions", parts=present(*parts))


def latent_section(data: ReportData) -> Section:
    """Return generated frames, and what the latent dimensions encode."""
    parts = present(_generated(data), _interpolation(data), _traversal(data), _divergence(data))
    return Section("Generated frames and latent space", "latent", parts=parts)


def _reconstructions(data: ReportData, name: str, wanted: list[tuple[str, str]]) -> CaptionedFigure | None:
    groups = []
    for kind, which in wanted:
        arrays = data.samples(f"reconstructions-{kind}-{which}")
        if arrays is not None:
            groups.append(Reconstructions(f"{data.set_name(kind)}, {which}", *(arrays[key] for key in RECONSTRUCTIONS)))
    if not groups:
        return None
    ranges = [f"{group.title}, {group.psnr.min():.1f} to {group.psnr.max():.1f} dB" for group in groups]
    caption = f"Frames above their reconstructions from the posterior mean: {'; '.join(ranges)}."
    return captioned(f"reconstructions-{name}", reconstruction_gallery(groups), caption)


def _generated(data: ReportData) -> CaptionedFigure | None:
    arrays = data.samples("generated")
    if arrays is None:
        return None
    drawn = "z ~ N(0, I)" if data.config.model.kind == "global" else "points along the principal components of training codes"
    caption = f"{plural(len(arrays['generated']), 'generated frame')}, decoded from random {drawn}, without selection."
    return captioned("generated", generated_gallery(arrays["generated"]), caption)


def _interpolation(data: ReportData) -> CaptionedFigure | None:
    arrays = data.samples("interpolation")
    if arrays is None:
        return None
    rows, steps = arrays["frames"].shape[:2]
    caption = (
        f"{plural(rows, 'interpolation')} between the posterior means of two frames, in {steps - 1} equal steps. A frame "
        "differs from its reconstruction next to it by what the latent vector does not encode."
    )
    return captioned("interpolation", interpolation_gallery(arrays["ends"], arrays["frames"]), caption)


def _traversal(data: ReportData) -> CaptionedFigure | None:
    arrays = data.samples("traversal")
    if arrays is None:
        return None
    values = arrays["values"]
    caption = _AXES_CAPTION if data.config.model.kind == "spatial" else _DIMENSIONS_CAPTION
    figure = traversal_gallery(arrays["frames"], values, arrays["dimensions"], arrays["kl"])
    return captioned("traversal", figure, caption, f"Frames decoded at {plural(len(values), 'value')} each. {caption}")


def _divergence(data: ReportData) -> CaptionedFigure | None:
    sets = [(data.set_name(kind), found.kl) for kind, found in data.sets.items()]
    spatial = data.config.model.kind == "spatial"
    unit, of = ("channel", " of the code, summed over its positions") if spatial else ("latent dimension", "")
    totals = [f"{sum(kl):.2f} nats, {active_dimensions(kl)} of {len(kl)} {unit}s active ({title})" for title, kl in sets]
    caption = f"Mean KL per {unit}{of}: {'; '.join(totals)}. Active: at least {ACTIVE:g} nats (dotted line)."
    return captioned("divergence", divergence_bars(sets, unit), caption)


def active_dimensions(kl: Sequence[float]) -> int:
    """Return the number of latent dimensions with a mean KL of at least `ACTIVE` nats."""
    return int((np.asarray(kl) >= ACTIVE).sum())


@styled
def reconstruction_gallery(groups: Sequence[Reconstructions]) -> Figure:
    """Draw originals above their reconstructions, with PSNR and SSIM, one or two groups next to each other."""
    gaps = GROUP_GAP * (len(groups) - 1)
    columns = sum(len(group.originals) for group in groups)
    side = tile_side(columns, gaps=gaps)
    top = LINE + 10
    below = top + 2 * (side + GAP)
    canvas = Canvas.of(MARGIN + columns * (side + GAP) + gaps, below + 2 * LINE + 6)
    for y, name in ((0.0, "original"), (side + GAP, "EndoVAE")):
        canvas.text(MARGIN - 10, top + y + side / 2, name, ha="right", va="center")
    for y, name in ((1, "PSNR, dB"), (2, "SSIM")):
        canvas.text(MARGIN - 10, below + y * LINE, name, ha="right")
    left = MARGIN
    for group in groups:
        width = len(group.originals) * (side + GAP)
        canvas.text(left, LINE, fitted(group.title, width, NAME_SIZE), ha="left", fontweight="bold", fontsize=NAME_SIZE)
        canvas.tiles(group.originals, left, top, side, GAP)
        canvas.tiles(group.reconstructions, left, top + side + GAP, side, GAP)
        for column, (psnr, ssim) in enumerate(zip(group.psnr, group.ssim, strict=True)):
            x = left + column * (side + GAP) + side / 2
            canvas.text(x, below + LINE, f"{psnr:.1f}")
            canvas.text(x, below + 2 * LINE, f"{ssim:.3f}")
        left += width + GROUP_GAP
    return canvas.figure


@styled
def generated_gallery(generated: np.ndarray) -> Figure:
    """Draw generated frames, uint8 (K, H, W, 3), in rows."""
    columns = min(len(generated), int((WIDTH - GAP) // (TILE + GAP)))
    canvas = Canvas.of(columns * (TILE + GAP) + GAP, -(-len(generated) // columns) * (TILE + GAP) + GAP)
    for row, first in enumerate(range(0, len(generated), columns)):
        canvas.tiles(generated[first : first + columns], GAP, GAP + row * (TILE + GAP), TILE, GAP)
    return canvas.figure


@styled
def interpolation_gallery(ends: np.ndarray, frames: np.ndarray) -> Figure:
    """Draw interpolations, one per row, between the two frames at their ends.

    Args:
        ends: uint8 (R, 2, H, W, 3).
        frames: decoded, uint8 (R, steps, H, W, 3).
    """
    steps = frames.shape[1]
    side = min(TILE, (WIDTH - 2 * GROUP_GAP) / (steps + 2) - GAP)
    left, top = GAP + side + GROUP_GAP, LINE + 10
    right = left + steps * (side + GAP) + GROUP_GAP - GAP
    canvas = Canvas.of(right + side + GAP, top + len(frames) * (side + GAP))
    for x, words in ((GAP, "frame"), (left, "decoded, from one frame's posterior mean to the other's"), (right, "frame")):
        canvas.text(x, LINE, words, ha="left", fontweight="bold")
    for row, (both, between) in enumerate(zip(ends, frames, strict=True)):
        y = top + row * (side + GAP)
        canvas.tiles(both[:1], GAP, y, side, GAP)
        canvas.tiles(between, left, y, side, GAP)
        canvas.tiles(both[1:], right, y, side, GAP)
    for x in (left - GAP / 2, right + GAP / 2):
        canvas.axes.axvline(x - GROUP_GAP / 2, color=GREY, linewidth=1)
    return canvas.figure


@styled
def traversal_gallery(frames: np.ndarray, values: np.ndarray, dimensions: np.ndarray, kl: np.ndarray) -> Figure:
    """Draw decoded frames while one latent dimension varies and the others are 0, one row per dimension.

    Args:
        frames: uint8 (D, K, H, W, 3).
        values: of the dimension, (K,).
        dimensions: int (D,), from 0.
        kl: mean KL in nats, (D,); NaN for principal components.
    """
    side = tile_side(len(values))
    canvas = Canvas.of(MARGIN + len(values) * (side + GAP), LINE + 10 + len(frames) * (side + GAP))
    for column, value in enumerate(values):
        words = f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-6 else "0"
        canvas.text(MARGIN + column * (side + GAP) + side / 2, LINE, words)
    for row, (drawn, dimension, divergence) in enumerate(zip(frames, dimensions, kl, strict=True)):
        name = f"axis {int(dimension) + 1}" if np.isnan(divergence) else f"z {int(dimension) + 1}\nKL {divergence:.2f}"
        draw_row(canvas, name, drawn, LINE + 10 + row * (side + GAP), side)
    return canvas.figure


@styled
def divergence_bars(sets: Sequence[tuple[str, Sequence[float]]], unit: str = "latent dimension") -> Figure | None:
    """Draw the mean KL in nats per `unit`, one or two sets next to each other, sorted by the first set."""
    if not sets:
        return None
    order = np.argsort(-np.asarray(sets[0][1]), kind="stable")
    figure = padded_figure(min(WIDTH, 260 + 60 * len(order)), 300)
    axes = figure.add_subplot()
    at, width = np.arange(len(order)), 0.8 / len(sets)
    for number, ((title, kl), look) in enumerate(zip(sets, (filled(BLUE), hatched(ORANGE)), strict=False)):
        axes.bar(at + width * (number - (len(sets) - 1) / 2), np.asarray(kl)[order], 0.92 * width, label=title, **look)
    axes.axhline(ACTIVE, color=GREY, linewidth=1.2, linestyle=DOTTED)
    axes.grid(visible=False, axis="x")
    if len(order) <= MAX_NUMBERED:
        axes.set_xticks(at, [f"{'z' if unit == 'latent dimension' else unit} {one + 1}" for one in order])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set(xlabel=f"{unit}, by decreasing KL", ylabel="KL, nats")
    legend_above(axes)
    return figure
