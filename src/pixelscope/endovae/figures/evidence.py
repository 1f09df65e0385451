"""The report's findings, each as a figure, a table or a number computed from the run."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pixelscope.endovae.figures.capacity import LayerSize, layer_bars, layer_sizes
from pixelscope.endovae.figures.findings import (
    ClassQuality,
    SizeQuality,
    kinds_panels,
    region_bars,
    size_panel,
    spectra_panels,
)
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.tables import separation_table, terms_table
from pixelscope.endovae.figures.words import epochs_at, listed, set_name, signed
from pixelscope.endovae.results import MODEL, PCA
from pixelscope.report.document import Illustration, Part, Section
from pixelscope.report.plotting import series


def findings_section(material: Material) -> Section:
    """Return what the reconstructions keep and lose, and why, as far as the run tells."""
    parts: list[Part | None] = [
        _sharpness(material),
        _regions(material),
        _kinds(material),
        separation_table(material),
        _sizes(material),
        _capacity(layer_sizes(material.config)),
        terms_table(material),
    ]
    prose = (_scale(material), _data(material))
    return Section(
        "Findings", "findings", prose=tuple(filter(None, prose)), parts=tuple(part for part in parts if part is not None)
    )


def _sharpness(material: Material) -> Illustration | None:
    from pixelscope.endovae.metrics import FINE

    if material.numbers is None or not material.sets:
        return None
    sets = [(_capital(set_name(material, kind)), found.spectra) for kind, found in material.sets.items()]
    frequencies = min(len(values) for _, spectra in sets for values in spectra.values())
    fine = math.ceil(FINE * (frequencies - 1))
    figure = spectra_panels(sets, material.numbers.method_names, fine)
    kept = [
        f"of {set_name(material, kind)} EndoVAE keeps {_coarse(found.spectra, fine):.0%} of the energy below {fine} cycles a "
        f"frame and {found.detail_kept[MODEL]:.1%} of that above, PCA {found.detail_kept[PCA]:.1%}"
        for kind, found in material.sets.items()
    ]
    caption = f"Sharpness: {'; '.join(kept)}. What lies under the originals' line is lost as blur."
    alt = "Energy of brightness by spatial frequency, of originals, EndoVAE, PCA and the mean image, on a logarithmic scale."
    return _shown("sharpness", figure, alt, caption)


def _coarse(spectra: Mapping[str, Sequence[float]], fine: int) -> float:
    return sum(spectra[MODEL][:fine]) / max(sum(spectra["original"][:fine]), 1e-12)


def _regions(material: Material) -> Illustration | None:
    sets = material.sets
    errors = {kind: found.region_error for kind, found in sets.items()}
    means = {kind: {"whole frame": found.methods[MODEL]["squared_error"].mean} for kind, found in sets.items()}
    shares = {kind: {"whole frame": 1.0, **found.region_share} for kind, found in sets.items()}
    figure = region_bars({kind: means[kind] | errors[kind] for kind in sets}, shares)
    ordered = [f"{kind}: {', '.join(sorted(found, key=lambda r: -found[r]))}" for kind, found in errors.items() if found]
    caption = (
        f"Error by region, from the largest to the smallest: {'; '.join(ordered)}. Inset: a green or blacked-out box. "
        "Border: black that touches the frame's edge. Lumen: dark elsewhere. Glints: bright in all colours. Tissue: the rest."
    )
    return _shown("regions", figure, f"Mean squared error by region. {caption}", caption)


def _kinds(material: Material) -> Illustration | None:
    rows = material.rows
    psnr = {} if rows is None else {kind: rows.of(kind).psnr for kind in material.sets}
    classes = [
        ClassQuality(name, kind, found.classes.get(name, 0), metrics["psnr"].mean, metrics["psnr"].std)
        for kind, found in material.sets.items()
        for name, metrics in found.by_class.items()
    ]
    caption = f"{_kinds_sentence(material)} In the report, polyps came back better than its healthy validation frames."
    alt = "Histograms of PSNR by kind of frame, and mean PSNR with its standard deviation by class."
    return _shown("kinds", kinds_panels(psnr, classes), alt, caption)


def _kinds_sentence(material: Material) -> str:
    means = {kind: found.methods[MODEL]["psnr"].mean for kind, found in material.sets.items()}
    if set(means) != {"normal", "abnormal"}:
        return "Only one kind of frame was measured."
    apart = means["abnormal"] - means["normal"]
    than = "better than" if apart > 0 else "worse than"
    return (
        f"Abnormal frames come back {than} {set_name(material, 'normal')}: {signed(apart, 2)} dB in the mean "
        f"({means['abnormal']:.2f} against {means['normal']:.2f})."
    )


def _sizes(material: Material) -> Illustration | None:
    sizes = [
        SizeQuality(kind, one.width, one.height, one.count, one.psnr)
        for kind, found in material.sets.items()
        for one in found.by_size
    ]
    caption = (
        f"PSNR against the size of the originals, a mark a size, its area growing with the frames of it. "
        f"{_size_sentence(material)}Sizes go with classes and cameras, so that size alone need not be the cause."
    )
    alt = "Mean PSNR of the reconstructions against the number of pixels of the original frames."
    return _shown("sizes", size_panel(sizes), alt, caption)


def _size_sentence(material: Material) -> str:
    if material.rows is None:
        return ""
    found = []
    for kind in material.sets:
        rows = material.rows.of(kind)
        correlation = rank_correlation(rows.pixels, rows.psnr)
        if correlation is not None:
            found.append(f"{signed(correlation, 2)} for {set_name(material, kind)}")
    return f"Rank correlation of pixels and PSNR: {listed(found)}. " if found else ""


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's correlation of two arrays (N,); None where one of them is constant or not finite."""
    from scipy import stats

    if len(first) < 3 or not np.isfinite(second).all() or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.asarray(stats.spearmanr(first, second)[0]))


def _capacity(layers: list[LayerSize]) -> Illustration | None:
    total, largest = sum(layer.parameters for layer in layers), max(layers, key=lambda layer: layer.parameters)
    sizes = {network: sum(one.parameters for one in layers if one.network == network) for network in ("encoder", "decoder")}
    caption = (
        f"Capacity: {largest.parameters / total:.1%} of the {total:,} parameters are in one layer, the {largest.network}'s "
        f"“{largest.name}”. The encoder has {sizes['encoder']:,}, the decoder {sizes['decoder']:,}."
    )
    return _shown("capacity", layer_bars(layers), f"Parameters of each layer. {caption}", caption)


def _scale(material: Material) -> str:
    best = material.best
    if best is None or best.kl <= 0:
        return ""
    reading = {
        "channel-mean": "the cross-entropy averaged over channels and summed over pixels",
        "sum": "the cross-entropy summed over all values",
    }
    return (
        f"The two terms of the loss differ in scale: at its lowest validation loss, {epochs_at(material, best.images)}, "
        f"reconstruction is {best.reconstruction:,.1f} nats an image and KL {best.kl:.2f}, "
        f"{best.reconstruction / best.kl:,.0f} to 1. An image costs {reading[material.config.losses.reading]}."
    )


def _data(material: Material) -> str:
    data = material.record.data.get("frames")
    parameters = sum(material.record.parameters.values())
    if data is None or not data.train or not parameters:
        return ""
    copies = material.config.augmentation.copies
    text = f"The networks have {parameters:,} parameters for {data.train:,} training frames"
    text += f" and {copies * data.train:,} altered copies" if copies else ""
    gap = _gap(material)
    return f"{text}, {parameters / data.train:,.0f} a frame{gap}."


def _gap(material: Material) -> str:
    """Return by how much frames that were not learnt cost more, over the last tenth of the training."""
    lines = series(material.train, "loss/reconstruction"), series(material.evaluations, "loss/validation_reconstruction")
    if lines[0] is None or lines[1] is None:
        return ""
    train, validation = (float(line.y[-max(1, len(line.y) // 10) :].mean()) for line in lines if line is not None)
    return (
        f"; over the last tenth of the training, reconstruction costs {train:,.1f} nats on training frames and "
        f"{validation:,.1f} on validation frames"
    )


def _shown(name: str, figure: Figure | None, alt: str, caption: str) -> Illustration | None:
    return None if figure is None else Illustration(name, figure, alt, caption)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
