"""The section "Training": loss, its two terms and the learning rate over images seen, and images drawn in between."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from PIL import Image

from pixelscope.endovae.report.data import ReportData, short_number
from pixelscope.endovae.report.plotting import GAP, GROUP_GAP, LINE, captioned, draw_row, margin_for
from pixelscope.errors import plural
from pixelscope.reports.document import CaptionedFigure, Section, present
from pixelscope.reports.plotting import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SOLID,
    WIDTH,
    Canvas,
    Panel,
    Series,
    Stroke,
    count_images,
    draw_line,
    evenly_spaced,
    legend_below,
    panels,
    series,
    styled,
)

Lines = Sequence[Mapping[str, Any]]
TrainAndValidation = tuple[Series | None, Series | None]

TRAIN, VALIDATION = Stroke(GREY, DASHED, 1.6), Stroke(BLUE, SOLID, 2.2)
WARM_UP = 0.05
"""Fraction of a training whose losses may be clipped: at first they are far above the rest."""
FOOLED = 1
"""Hinge loss of a discriminator that judges all images alike."""
MAX_ROWS = 8
"""Maximum number of rows in the gallery of a training's progress."""
SMALL = 64
"""Maximum side in pixels of its images, so that very many do not swell the page."""


def training_section(data: ReportData) -> Section:
    """Return the course of the loss, and images drawn during the training."""
    best = data.best
    marked = None if best is None else (best.images, best.total)
    figure = loss_panels(data.train, data.evaluations, marked, data.config.schedule.start_kl, data.unit)
    caption = (
        "The loss and its two terms, in separate panels because their scales differ. A noisy line is a running mean over its "
        "faint raw values. The y-axis is scaled to the trained part of the curve; the first values may be clipped."
    )
    course = _course(data)
    warnings = dict.fromkeys(f"Warning, {line.get('cause', 'unknown')}: {line.get('text', '')}" for line in data.warnings)
    return Section(
        "Training",
        "training",
        prose=tuple(filter(None, (course, _adversarial(data), data.record.ended))),
        parts=present(captioned("training", figure, caption, f"{caption} {course}"), _progress(data)),
        notes=tuple(warnings),
    )


def _course(data: ReportData) -> str:
    best = data.best
    if best is None:
        return ""
    drops, weight = lr_drops(data.evaluations), data.config.losses.kl
    rates = f"The learning rate was lowered {plural(len(drops), 'time')}." if drops else "The learning rate was never lowered."
    total, reconstruction = (short_number(value, 1) for value in (best.total, best.reconstruction))
    return (
        f"The validation loss was lowest at {data.epochs_at(best.images)}: {total} = {reconstruction} reconstruction + "
        f"{best.kl:.1f} KL{'' if weight == 1 else f' × {weight:g}'}. {_start(data)} {rates}"
    )


def _start(data: ReportData) -> str:
    level = data.config.schedule.start_kl
    reached = [line["images"] for line in data.evaluations if line.get("loss/validation_kl", -1.0) >= level]
    if not reached:
        return f"KL has not reached {level:g}, where the learning-rate schedule starts."
    return f"KL first reached {level:g}, where the learning-rate schedule starts, at {data.epochs_at(reached[0])}."


def _adversarial(data: ReportData) -> str:
    """Return when the adversarial loss began, and what then was trained; empty before that."""
    from pixelscope.endovae.task import DECODER_RATE

    if series(data.train, "loss/discriminator") is None:
        return ""
    return (
        f"After {plural(data.config.losses.adversarial_from, 'epoch')}, the decoder alone was trained, against a "
        f"discriminator, at {DECODER_RATE:g} times the learning rate that is drawn. The loss that is drawn is without the "
        "discriminator's output."
    )


@styled
def loss_panels(
    train: Lines,
    evaluations: Lines,
    best: tuple[int, float] | None = None,
    start_kl: float | None = None,
    unit: str = "nats",
) -> Figure | None:
    """Draw the terms of the loss, their sum and the learning rate over images seen; panels without values are left out.

    Args:
        train: lines of stats.jsonl.
        evaluations: lines of stats.jsonl.
        best: images and validation loss of the best evaluation.
        start_kl: KL in nats at which the schedule starts.
        unit: of the loss and its reconstruction term.
    """
    draws = {
        "reconstruction": ("Reconstruction term", unit, _reconstruction),
        "kl": ("KL term", "nats", partial(_divergence, start_kl=start_kl)),
        "total": ("Loss", unit, partial(_total, best=best, drops=lr_drops(evaluations))),
    }
    parts: list[Panel] = []
    for name, (title, of, draw) in draws.items():
        lines = series(train, f"loss/{name}"), series(evaluations, f"loss/validation_{name}")
        if any(line is not None for line in lines):
            parts.append((title, partial(_loss, lines=lines, draw=draw, unit=of)))
    opponent = series(train, "loss/discriminator")
    if opponent is not None:
        parts.append(("Discriminator", partial(_discriminator, loss=opponent)))
    rate = series(evaluations, "learning_rate")
    if rate is not None:
        parts.append(("Learning rate", partial(_learning_rate, rate=rate)))
    return panels(parts, 2, 320)


def lr_drops(evaluations: Lines) -> list[int]:
    """Return the images seen at which the learning rate was lowered: an evaluation states that of the epoch before it."""
    rate = series(evaluations, "learning_rate")
    return [] if rate is None else [int(x) for x in rate.x[:-1][np.diff(rate.y) < 0]]


def _loss(axes: Axes, lines: TrainAndValidation, draw: Any, unit: str) -> None:
    draw_line(axes, lines[0], "training", TRAIN)
    draw_line(axes, lines[1], "validation", VALIDATION, noisy=False)
    draw(axes, lines)
    axes.set_ylabel(f"{unit} per image")
    _finish(axes)


def _reconstruction(axes: Axes, lines: TrainAndValidation) -> None:
    """Scale the y-axis to the trained part of the curve; the first values may be clipped."""
    known = [line for line in lines if line is not None]
    start = WARM_UP * max(line.x[-1] for line in known)
    values = np.concatenate([line.y[line.x >= start] for line in known])
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _divergence(axes: Axes, lines: TrainAndValidation, start_kl: float | None) -> None:
    if start_kl is not None:
        axes.axhline(start_kl, color=GREY, linewidth=1.2, linestyle=DOTTED, label=f"schedule starts: KL {start_kl:g}")
    axes.set_ylim(bottom=0)


def _total(axes: Axes, lines: TrainAndValidation, best: tuple[int, float] | None, drops: list[int]) -> None:
    _reconstruction(axes, lines)
    for number, at in enumerate(drops):
        label = "learning rate lowered" if not number else "_lowered"
        axes.axvline(at, color=ORANGE, linewidth=1, linestyle=DOTTED, label=label)
    if best is not None:
        axes.plot(*best, "*", color=GREEN, markersize=14, label=f"lowest: {short_number(best[1], 1)}", zorder=5)


def _discriminator(axes: Axes, loss: Series) -> None:
    draw_line(axes, loss, "training", TRAIN)
    axes.axhline(FOOLED, color=GREY, linewidth=1.2, linestyle=DOTTED, label="tells nothing apart")
    axes.set_ylim(0, 1.1 * max(FOOLED, float(loss.y.max())))
    axes.set_ylabel("hinge loss")
    _finish(axes)


def _learning_rate(axes: Axes, rate: Series) -> None:
    marker = "o" if len(rate.x) == 1 else None
    axes.step(rate.x, rate.y, where="pre", color=PURPLE, linewidth=1.9, marker=marker, label="until each evaluation")
    axes.set_yscale("log")
    axes.set_ylim(rate.y.min() / 1.6, rate.y.max() * 1.6)
    rates = np.unique(rate.y)
    axes.yaxis.set_major_locator(FixedLocator(rates[evenly_spaced(len(rates), MAX_ROWS)].tolist()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.minorticks_off()
    _finish(axes)


def _finish(axes: Axes) -> None:
    count_images(axes)
    legend_below(axes, 0.2)


def _progress(data: ReportData) -> CaptionedFigure | None:
    arrays = data.samples("progress")
    if arrays is None:
        return None
    images = arrays["images"]
    shown = len(evenly_spaced(len(images), MAX_ROWS))
    caption = (
        f"Reconstructions of the same validation frames, and frames decoded from the same random latent vectors, at "
        f"{plural(shown, 'point')} of the training, from {images[0]:,} to {images[-1]:,} images seen."
    )
    if data.config.model.kind == "spatial":
        caption += " Random numbers in every position of a spatial code decode to texture; a prior draws whole frames."
    figure = progress_gallery(images, arrays["originals"], arrays["reconstructions"], arrays["generated"])
    return CaptionedFigure("progress", figure, caption, f"{caption} The first row shows the originals.")


@styled
def progress_gallery(images: np.ndarray, originals: np.ndarray, reconstructions: np.ndarray, generated: np.ndarray) -> Figure:
    """Draw reconstructions and decoded random latent vectors, one row per point of the training, at most 8.

    Args:
        images: int (M,), images seen.
        originals: uint8 (K, H, W, 3).
        reconstructions: uint8 (M, K, H, W, 3).
        generated: uint8 (M, Z, H, W, 3).
    """
    chosen = evenly_spaced(len(images), MAX_ROWS)
    frames, draws = len(originals), generated.shape[1]
    names = [f"{int(images[row]):,}\nimages" for row in chosen]
    margin = margin_for(names)
    side = min(SMALL, (WIDTH - margin - GROUP_GAP) / (frames + draws) - GAP)
    right = margin + frames * (side + GAP) + GROUP_GAP
    top = LINE + 10
    canvas = Canvas.of(right + draws * (side + GAP), top + (len(chosen) + 1) * (side + GAP) + GAP)
    canvas.text(margin, LINE, "validation frames, reconstructed", ha="left", fontweight="bold")
    canvas.text(right, LINE, "random z, decoded", ha="left", fontweight="bold")
    draw_row(canvas, "original", shrunk(originals), top, side, margin)
    for row, (index, name) in enumerate(zip(chosen, names, strict=True), 1):
        y = top + row * (side + GAP) + GAP
        draw_row(canvas, name, shrunk(reconstructions[index]), y, side, margin)
        canvas.tiles(shrunk(generated[index]), right, y, side, GAP)
    return canvas.figure


def shrunk(images: np.ndarray) -> np.ndarray:
    """Return uint8 images (K, H, W, 3) with sides of at most 64 pixels."""
    if max(images.shape[1:3]) <= SMALL:
        return images
    height, width = (max(1, round(length * SMALL / max(images.shape[1:3]))) for length in images.shape[1:3])
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)) for image in images])
