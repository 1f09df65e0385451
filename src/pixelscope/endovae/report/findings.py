"""The section "Findings": what reconstructions keep and lose, and why, as measured on the run.

The questions are those of the reference study: blur, error by region, one kind of frame against the other, size of the
originals, capacity, and the scale of the two terms of the loss.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.report.data import ReportData, short_number
from pixelscope.endovae.report.plotting import KIND_COLOURS, KIND_MARKERS, captioned, filled, hatched, kind_bar
from pixelscope.endovae.results import MODEL, PCA, SizeResult
from pixelscope.reports.document import CaptionedFigure, Row, Section, Table, present
from pixelscope.reports.plotting import (
    BLUE,
    DASHED,
    DOTTED,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SOLID,
    Panel,
    Stroke,
    count_percent,
    legend_above,
    legend_below,
    padded_figure,
    panels,
    series,
    short_count,
    shortened,
    styled,
)

SPECTRUM_STROKES = {
    "original": Stroke(INK, SOLID, 2.2),
    "endovae": Stroke(GREEN, SOLID, 2.2),
    "pca": Stroke(PURPLE, DASHED),
    "mean image": Stroke(GREY, DOTTED),
}
BINS = 24
LAYERS = {"Conv2d": "conv", "ConvTranspose2d": "transposed conv", "Linear": "dense"}
HEADS = {"mean": "dense, mean", "log_variance": "dense, log variance"}
"""Names of the encoder's two last layers."""
REDUCTIONS = {
    "channel-mean": "averaged over channels and summed over pixels",
    "sum": "summed over all values",
}


class ClassQuality(NamedTuple):
    """PSNR of the reconstructions of one class, in dB."""

    name: str
    kind: str
    count: int
    mean: float
    std: float


class LayerSize(NamedTuple):
    """A layer with parameters."""

    network: str
    name: str
    """Type and output shape."""
    parameters: int


def findings_section(data: ReportData) -> Section:
    """Return what the reconstructions keep and lose, and why."""
    parts = present(
        _sharpness(data),
        _regions(data),
        _kinds(data),
        _separation_table(data),
        _sizes(data),
        _capacity(layer_sizes(data.config)),
        _terms_table(data),
    )
    prose = tuple(filter(None, (_scale(data), _data(data))))
    return Section("Findings", "findings", prose=prose, parts=parts)


def _sharpness(data: ReportData) -> CaptionedFigure | None:
    from pixelscope.endovae.metrics import fine_cycles

    if data.numbers is None or not data.sets:
        return None
    sets = [(data.set_name(kind).capitalize(), found.spectra) for kind, found in data.sets.items()]
    frequencies = min(len(values) for _, spectra in sets for values in spectra.values())
    fine = fine_cycles(2 * (frequencies - 1))
    kept = [
        f"for {data.set_name(kind)}, EndoVAE keeps {_coarse_kept(found.spectra, fine):.0%} of the energy below {fine} "
        f"cycles per frame and {found.detail_kept[MODEL]:.1%} above (PCA {found.detail_kept[PCA]:.1%})"
        for kind, found in data.sets.items()
    ]
    caption = f"Sharpness: {'; '.join(kept)}. The gap below the originals' line is lost as blur."
    alt = "Energy of brightness by spatial frequency, of originals, EndoVAE, PCA and the mean image, on a logarithmic scale."
    return captioned("sharpness", spectra_panels(sets, data.numbers.method_names, fine), caption, alt)


def _coarse_kept(spectra: Mapping[str, Sequence[float]], fine: int) -> float:
    return sum(spectra[MODEL][:fine]) / max(sum(spectra["original"][:fine]), 1e-12)


def _regions(data: ReportData) -> CaptionedFigure | None:
    errors, shares = {}, {}
    masked = data.config.prepare.insets == "mask"
    whole = "outside insets" if masked else "whole frame"
    for kind, found in data.sets.items():
        errors[kind] = {whole: found.methods[MODEL]["squared_error"].mean, **found.region_error}
        shares[kind] = {whole: 1 - masked * found.region_share.get("inset", 0.0), **found.region_share}
    caption = (
        "Mean squared error by region. Inset: a green or blacked-out box. Border: black and connected to the edge. "
        "Lumen: dark elsewhere. Glints: bright in all channels. Tissue: the rest."
    )
    return captioned("regions", region_bars(errors, shares), caption)


def _kinds(data: ReportData) -> CaptionedFigure | None:
    classes = [
        ClassQuality(name, kind, found.classes.get(name, 0), metrics["psnr"].mean, metrics["psnr"].std)
        for kind, found in data.sets.items()
        for name, metrics in found.by_class.items()
    ]
    psnr = {kind: data.psnr[kind] for kind in data.sets if kind in data.psnr}
    caption = f"{_kinds_sentence(data)} In the reference study, polyps scored higher than healthy validation frames."
    alt = "Histograms of PSNR by kind of frame, and mean PSNR with its standard deviation by class."
    return captioned("kinds", kinds_panels(psnr, classes), caption, alt)


def _kinds_sentence(data: ReportData) -> str:
    means = {kind: found.methods[MODEL]["psnr"].mean for kind, found in data.sets.items()}
    if set(means) != {"normal", "abnormal"}:
        return "Only one kind of frame was measured."
    difference = means["abnormal"] - means["normal"]
    return (
        f"The mean PSNR of abnormal frames is {abs(difference):.2f} dB {'higher' if difference > 0 else 'lower'} than that of "
        f"{data.set_name('normal')} ({means['abnormal']:.2f} and {means['normal']:.2f} dB)."
    )


def _separation_table(data: ReportData) -> Table | None:
    if data.numbers is None or not data.numbers.separation:
        return None
    names, counts = data.numbers.method_names, {kind: found.measured for kind, found in data.sets.items()}
    rows = [Row((names[method], f"{value:.3f}")) for method, value in data.numbers.separation.items()]
    caption = (
        f"AUROC of the squared error, {counts['abnormal']:,} abnormal against {counts['normal']:,} normal frames. 1 is perfect "
        "separation, 0.5 is chance. Other differences between the kinds, such as camera and crop, contribute too."
    )
    return Table(caption, ("Squared error of", "AUROC"), tuple(rows))


def _sizes(data: ReportData) -> CaptionedFigure | None:
    sizes = {kind: found.by_size for kind, found in data.sets.items()}
    caption = (
        "Mean PSNR by size of the original frames. The area of a marker grows with the number of frames. Size correlates with "
        "class and camera, so it need not be the cause."
    )
    return captioned("sizes", size_panel(sizes), caption)


def _capacity(layers: list[LayerSize]) -> CaptionedFigure | None:
    total, largest = sum(layer.parameters for layer in layers), max(layers, key=lambda layer: layer.parameters)
    sizes = {network: sum(one.parameters for one in layers if one.network == network) for network in ("encoder", "decoder")}
    caption = (
        f"Parameters per layer. One layer, the {largest.network}'s “{largest.name}”, has {largest.parameters / total:.1%} of "
        f"the {total:,} parameters. The encoder has {sizes['encoder']:,}, the decoder {sizes['decoder']:,}."
    )
    return captioned("capacity", layer_bars(layers), caption)


def _terms_table(data: ReportData) -> Table | None:
    best, weight = data.best, data.config.losses.kl
    if best is None:
        return None
    terms = {
        "reconstruction": best.reconstruction,
        f"KL{'' if weight == 1 else f', times {weight:g}'}": weight * best.kl,
        "loss": best.total,
    }
    if not best.total:
        return None
    rows = [Row((name, short_number(value), f"{value / best.total:.2%}")) for name, value in terms.items()]
    head = ("Term", f"{data.unit} per image", "share of the loss")
    return Table(f"Lowest validation loss, at {best.images:,} images.", head, tuple(rows))


def _scale(data: ReportData) -> str:
    best = data.best
    if best is None or best.kl <= 0 or not data.config.losses.cross_entropy:
        return ""
    return (
        f"The two terms of the loss differ in scale. At the lowest validation loss, after {data.epochs_at(best.images)}, "
        f"the reconstruction term is {best.reconstruction:,.1f} nats per image and KL is {best.kl:.2f}, a ratio of "
        f"{best.reconstruction / best.kl:,.0f}. The cross-entropy of an image is "
        f"{REDUCTIONS[data.config.losses.reduction]}."
    )


def _data(data: ReportData) -> str:
    # Without the discriminator of an adversarial loss, which is no part of the model.
    parameters = sum(data.record.parameters.get(network, 0) for network in ("encoder", "decoder"))
    frames = data.training_frames
    if not frames or not parameters:
        return ""
    copies = data.config.augmentation.copies_per_frame * frames
    augmented = f" and {copies:,} augmented copies" if copies else ""
    text = f"The networks have {parameters:,} parameters for {frames:,} training frames{augmented}"
    return f"{text}: {parameters / frames:,.0f} per frame.{_gap(data)}"


def _gap(data: ReportData) -> str:
    """Return the reconstruction loss on training and validation frames over the last tenth of the training."""
    lines = series(data.train, "loss/reconstruction"), series(data.evaluations, "loss/validation_reconstruction")
    if lines[0] is None or lines[1] is None:
        return ""
    train, validation = (float(line.y[-max(1, len(line.y) // 10) :].mean()) for line in lines if line is not None)
    return (
        f" Over the last tenth of the training, the reconstruction term is {short_number(train)} {data.unit} on training "
        f"frames and {short_number(validation)} on validation frames."
    )


@styled
def spectra_panels(
    sets: Sequence[tuple[str, Mapping[str, Sequence[float]]]], names: Mapping[str, str], fine: int
) -> Figure | None:
    """Draw mean energy by spatial frequency of originals and reconstructions, one panel per set.

    Args:
        sets: title and spectra, by `original` and method, each from 0 cycles per frame.
        names: of the methods.
        fine: cycles per frame from which detail counts as fine.
    """
    parts: list[Panel] = [
        (title, partial(_spectra, spectra=spectra, names={"original": "originals", **names}, fine=fine))
        for title, spectra in sets
    ]
    return panels(parts, 2, 360)


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
    axes.set(xlabel="cycles per frame", ylabel="energy (log scale)")
    legend_below(axes)


def power_of_ten(value: float) -> str:
    """Return a power of ten for an axis: 10³."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(round(float(np.log10(value)))).translate(digits)


@styled
def region_bars(errors: Mapping[str, Mapping[str, float]], shares: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Draw the mean squared error per region, with the fraction of pixels in it.

    Args:
        errors: by kind, then by region.
        shares: likewise.
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
            _annotate(axes, f"{found[region]:.4f}, {shares[kind][region]:.1%} of pixels", (found[region], y))
    axes.set_xlim(0, 1.42 * max(max(found.values()) for found in errors.values()))
    axes.set_yticks(range(len(regions)), regions)
    axes.set_ylim(len(regions) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("mean squared error, values in [0, 1]")
    legend_above(axes)
    return figure


def _annotate(axes: Axes, words: str, end: tuple[float, float]) -> None:
    axes.annotate(words, end, (6, 0), textcoords="offset points", va="center", fontsize=10.5)


@styled
def kinds_panels(psnr: Mapping[str, np.ndarray], classes: Sequence[ClassQuality]) -> Figure | None:
    """Draw the distribution of PSNR in dB by kind of frame, and its mean and standard deviation by class."""
    parts: list[Panel] = []
    finite = {kind: values[np.isfinite(values)] for kind, values in psnr.items() if np.isfinite(values).any()}
    if finite:
        parts.append(("PSNR of the frames, by kind", partial(_histograms, psnr=finite)))
    if classes:
        parts.append(("Mean PSNR, by class", partial(_classes, classes=classes)))
    return panels(parts, 2, 380)


def _histograms(axes: Axes, psnr: Mapping[str, np.ndarray]) -> None:
    edges = np.histogram_bin_edges(np.concatenate(list(psnr.values())), BINS)
    looks: dict[str, dict[str, Any]] = {
        "normal": {"facecolor": BLUE, "alpha": 0.45},
        "abnormal": {"facecolor": "none", "hatch": "////"},
    }
    for kind, values in psnr.items():
        shares, colour = np.histogram(values, edges)[0] / len(values), KIND_COLOURS[kind]
        label = f"{kind}, {len(values):,}"
        axes.stairs(shares, edges, fill=True, edgecolor=colour, linewidth=1.5, label=label, **looks[kind])
        dashes = SOLID if kind == "normal" else DASHED
        mean = float(values.mean())
        axes.axvline(mean, color=colour, linestyle=dashes, linewidth=1.8, label=f"mean {mean:.2f} dB")
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="PSNR, dB", ylabel="share of frames")
    count_percent(axes)
    legend_below(axes)


def _classes(axes: Axes, classes: Sequence[ClassQuality]) -> None:
    for row, one in enumerate(classes):
        look = {"color": KIND_COLOURS[one.kind], "fmt": KIND_MARKERS[one.kind], "markersize": 8, "capsize": 4, "linewidth": 1.8}
        axes.errorbar(one.mean, row, xerr=one.std, **look)
        axes.annotate(f"{one.mean:.2f}", (one.mean, row), (0, 9), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(classes)), [f"{shortened(one.name, 22)}\n{one.count:,}" for one in classes])
    axes.set_ylim(len(classes) - 0.4, -0.7)
    axes.set_xlabel("PSNR, dB: mean ± standard deviation")


@styled
def size_panel(sizes: Mapping[str, Sequence[SizeResult]]) -> Figure | None:
    """Draw mean PSNR in dB against the size of the originals, by kind; the area of a marker grows with the number of frames."""
    counts = [one.count for some in sizes.values() for one in some]
    if not counts:
        return None
    figure = padded_figure(820, 380)
    axes = figure.add_subplot()
    for kind, some in sizes.items():
        megapixels, psnr = [one.width * one.height / 1e6 for one in some], [one.psnr for one in some]
        areas = [24 + 420 * one.count / max(counts) for one in some]
        look = {"marker": KIND_MARKERS[kind], "color": KIND_COLOURS[kind], "alpha": 0.5}
        axes.scatter(megapixels, psnr, s=areas, label=f"{kind} frames", **look)
    axes.margins(0.1, 0.15)
    axes.set(xlabel="size of the original, megapixels", ylabel="mean PSNR, dB")
    legend_below(axes, 0.16)
    for handle in axes.get_legend().legend_handles:  # pyright: ignore[reportOptionalMemberAccess]
        handle.set(sizes=[70])  # pyright: ignore[reportOptionalMemberAccess]
    return figure


def layer_sizes(config: EndoVAEConfig) -> list[LayerSize]:
    """Return the layers with parameters of encoder and decoder, in order."""
    from pixelscope.endovae.cost import summarize_endovae

    return [
        LayerSize(
            network.name,
            f"{HEADS.get(layer.name, LAYERS.get(layer.kind, layer.kind))}: {' × '.join(f'{n:,}' for n in layer.output)}",
            layer.parameters,
        )
        for network in summarize_endovae(config).networks
        for layer in network.layers
        if layer.parameters
    ]


@styled
def layer_bars(layers: Sequence[LayerSize]) -> Figure | None:
    """Draw the number of parameters per layer, with its share of the total."""
    if not layers:
        return None
    figure = padded_figure(880, 90 + 25 * len(layers))
    axes = figure.add_subplot()
    total = sum(layer.parameters for layer in layers)
    for network, look in {"encoder": filled(GREEN), "decoder": hatched(ORANGE)}.items():
        rows = [row for row, layer in enumerate(layers) if layer.network == network]
        axes.barh(rows, [layers[row].parameters for row in rows], 0.7, label=network, **look)
    for row, layer in enumerate(layers):
        share = layer.parameters / total
        words = f"{layer.parameters:,} ({f'{share:.1%}' if share >= 0.0005 else '<0.1%'})"
        _annotate(axes, words, (layer.parameters, row))
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 1.28 * max(layer.parameters for layer in layers))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("parameters")
    legend_above(axes)
    return figure
