"""The report's findings as figures: blur, regions, one kind against the other, the size of the originals."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from pixelscope.endovae.figures.looks import KIND_COLOURS, KIND_MARKS, kind_bar
from pixelscope.report.plotting import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    INK,
    PURPLE,
    SOLID,
    Panel,
    Stroke,
    count_percent,
    padded_figure,
    panels,
    shortened,
    styled,
    text_width,
)

SPECTRUM_STROKES = {
    "original": Stroke(INK, SOLID, 2.2),
    "endovae": Stroke(GREEN, SOLID, 2.2),
    "pca": Stroke(PURPLE, DASHED),
    "mean image": Stroke(GREY, DOTTED),
}
BINS = 24
MEGAPIXEL = 1e6
NAMED = 0.01
"""Share of the frames from which on a size is named."""


class ClassQuality(NamedTuple):
    """PSNR of one class's reconstructions, in dB."""

    name: str
    kind: str
    count: int
    mean: float
    std: float


class SizeQuality(NamedTuple):
    """Mean PSNR in dB of frames of one kind and original size."""

    kind: str
    width: int
    height: int
    count: int
    psnr: float


@styled
def spectra_panels(
    sets: Sequence[tuple[str, Mapping[str, Sequence[float]]]], names: Mapping[str, str], fine: int
) -> Figure | None:
    """Draw mean energy by spatial frequency of originals and reconstructions, a panel a set.

    sets: a title and spectra, by `original` and method, each from 0 cycles a frame on; names: of the methods.
    fine: cycles a frame from which detail counts as fine.
    """
    parts: list[Panel] = [
        (title, partial(_spectra, spectra=spectra, names={"original": "originals", **names}, fine=fine))
        for title, spectra in sets
    ]
    return panels(parts, 2, 360)


@styled
def region_bars(errors: Mapping[str, Mapping[str, float]], shares: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Draw the mean squared error in each region of the frame, with the region's share of all pixels.

    errors, shares: by kind, then by region.
    """
    regions = list(dict.fromkeys(region for found in errors.values() for region in found))
    if not regions:
        return None
    figure = padded_figure(820, 110 + 34 * len(regions) * len(errors))
    axes = figure.add_subplot()
    height = 0.76 / len(errors)
    for number, (kind, found) in enumerate(errors.items()):
        at = np.array([regions.index(region) for region in found]) + height * (number - (len(errors) - 1) / 2)
        axes.barh(at, list(found.values()), 0.9 * height, label=kind, **kind_bar(kind))
        for y, region in zip(at, found, strict=True):
            words = f"{found[region]:.4f}, {shares[kind][region]:.1%} of pixels"
            axes.annotate(words, (found[region], y), (6, 0), textcoords="offset points", va="center", fontsize=10.5)
    largest = max(max(found.values()) for found in errors.values())
    axes.set_xlim(0, 1.42 * largest)
    axes.set_yticks(range(len(regions)), regions)
    axes.set_ylim(len(regions) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean squared error, values in [0, 1]")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@styled
def kinds_panels(psnr: Mapping[str, np.ndarray], classes: Sequence[ClassQuality]) -> Figure | None:
    """Draw how PSNR in dB is spread over the frames of each kind, and its mean and standard deviation in each class."""
    parts: list[Panel] = []
    if any(np.isfinite(values).any() for values in psnr.values()):
        parts.append(("PSNR of the frames, by kind", partial(_histograms, psnr=psnr)))
    if classes:
        parts.append(("Mean PSNR, by class", partial(_classes, classes=classes)))
    return panels(parts, 2, 380)


@styled
def size_panel(sizes: Sequence[SizeQuality]) -> Figure | None:
    """Draw mean PSNR in dB against the size of the originals; the area of a mark grows with the number of frames."""
    if not sizes:
        return None
    figure = padded_figure(820, 380)
    axes = figure.add_subplot()
    most = max(size.count for size in sizes)
    for kind in dict.fromkeys(size.kind for size in sizes):
        own = [size for size in sizes if size.kind == kind]
        axes.scatter(
            [size.width * size.height / MEGAPIXEL for size in own],
            [size.psnr for size in own],
            s=[24 + 420 * size.count / most for size in own],
            marker=KIND_MARKS[kind],
            facecolor=KIND_COLOURS[kind],
            edgecolor=KIND_COLOURS[kind],
            alpha=0.5,
            label=f"{kind} frames",
        )
    _count_megapixels(axes, [size.width * size.height / MEGAPIXEL for size in sizes])
    _name_sizes(axes, sizes)
    axes.set_ylabel("mean PSNR, dB")
    legend = axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=2, borderaxespad=0)
    for handle in legend.legend_handles:
        handle.set(sizes=[70])  # pyright: ignore[reportOptionalMemberAccess]
    return figure


def _spectra(axes: Axes, spectra: Mapping[str, Sequence[float]], names: Mapping[str, str], fine: int) -> None:
    for name, stroke in SPECTRUM_STROKES.items():
        energy = np.asarray(spectra.get(name, ()), float)[1:]
        if len(energy):
            look = {"color": stroke.colour, "linestyle": stroke.dashes, "linewidth": stroke.width}
            axes.plot(np.arange(1, len(energy) + 1), np.where(energy > 0, energy, np.nan), label=names[name], **look)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    last = max(len(values) for values in spectra.values()) - 1
    axes.axvspan(fine, last, color=GREY, alpha=0.12, linewidth=0)
    axes.text((fine + last) / 2, 0.96, "fine detail", transform=axes.get_xaxis_transform(), ha="center", va="top")
    axes.set_xlim(0, last)
    axes.set(xlabel="cycles a frame", ylabel="energy, logarithmic")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.17), ncols=2, borderaxespad=0, columnspacing=1.4)


def power_of_ten(value: float) -> str:
    """Return a power of ten as it is written at an axis: 10³."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(round(float(np.log10(value)))).translate(digits)


def _histograms(axes: Axes, psnr: Mapping[str, np.ndarray]) -> None:
    finite = {kind: values[np.isfinite(values)] for kind, values in psnr.items() if np.isfinite(values).any()}
    together = np.concatenate(list(finite.values()))
    edges = np.histogram_bin_edges(together, BINS)
    for kind, values in finite.items():
        shares = np.histogram(values, edges)[0] / len(values)
        look: dict[str, Any] = (
            {"facecolor": BLUE, "alpha": 0.45} if kind == "normal" else {"facecolor": "none", "hatch": "////"}
        )
        axes.stairs(
            shares, edges, fill=True, edgecolor=KIND_COLOURS[kind], linewidth=1.5, label=f"{kind}, {len(values):,}", **look
        )
        dashes = SOLID if kind == "normal" else DASHED
        words = f"mean {values.mean():.2f} dB"
        axes.axvline(values.mean(), color=KIND_COLOURS[kind], linestyle=dashes, linewidth=1.8, label=words)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="PSNR of a reconstruction, dB", ylabel="share of frames")
    count_percent(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=2, borderaxespad=0, columnspacing=1.4)


def _classes(axes: Axes, classes: Sequence[ClassQuality]) -> None:
    for row, one in enumerate(classes):
        look = {"color": KIND_COLOURS[one.kind], "fmt": KIND_MARKS[one.kind], "markersize": 8, "capsize": 4, "linewidth": 1.8}
        axes.errorbar(one.mean, row, xerr=one.std, **look)
        axes.annotate(f"{one.mean:.2f}", (one.mean, row), (0, 9), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(classes)), [f"{shortened(one.name, 22)}\n{one.count:,}" for one in classes])
    axes.set_ylim(len(classes) - 0.4, -0.7)
    axes.set_xlabel("PSNR, dB: mean ± standard deviation")


def _count_megapixels(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    axes.set_xscale("log")
    room = max(1.25, (high / low) ** 0.08)
    axes.set_xlim(low / room, high * room)
    ticks = [value * 10.0**power for power in range(-5, 4) for value in (1, 1.5, 2, 3, 5, 7)]
    shown = [tick for tick in ticks if low / room <= tick <= high * room]
    axes.xaxis.set_major_locator(FixedLocator(shown[:: -(-len(shown) // 9)] if shown else [low]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("millions of pixels of the original, logarithmic")


def _name_sizes(axes: Axes, sizes: Sequence[SizeQuality]) -> None:
    """Write the most frequent sizes above the panel, as many as do not run into each other."""
    low, high = np.log(axes.get_xlim())
    counts: dict[tuple[int, int], int] = {}
    for size in sizes:
        counts[size.width, size.height] = counts.get((size.width, size.height), 0) + size.count
    frequent = [size for size, count in counts.items() if count >= NAMED * sum(counts.values())]
    taken: list[tuple[float, float]] = []
    for width, height in sorted(frequent, key=lambda size: -counts[size]):
        words = f"{width} × {height}"
        middle = (np.log(width * height / MEGAPIXEL) - low) / (high - low) * (0.86 * 820)
        half = text_width(words, 11) / 2 + 5
        if all(middle + half <= left or middle - half >= right for left, right in taken):
            taken.append((middle - half, middle + half))
            x = width * height / MEGAPIXEL
            axes.axvline(x, color=GREY, linewidth=0.8, alpha=0.5, zorder=0)
            axes.text(x, 1.02, words, transform=axes.get_xaxis_transform(), ha="center")
