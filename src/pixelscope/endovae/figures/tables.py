"""Quality, checkpoint rules and frames in tables."""

from collections.abc import Mapping

from pixelscope.data.frames.store import ClassSummary
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.words import set_name
from pixelscope.endovae.results import METHODS, MeanStd
from pixelscope.report.document import Row, Table

RULES = {
    "best-validation": "best-validation: the lowest validation loss",
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
}
REPORT = Row(("the report, Kvasir polyps (other frames)", "500", "17.16 ± 2.37", "0.424 ± 0.100", "", ""), apart=True)
"""What the report gives for its own polyps."""
SIZES = 3
"""Original sizes named for each class; the others are counted."""


def quality_table(material: Material) -> Table | None:
    """Return the quality of the reconstructions of each set by each method, and apart from it the report's of polyps."""
    if material.numbers is None or not material.sets:
        return None
    names, rows = material.numbers.method_names, []
    for kind, found in material.sets.items():
        for method in METHODS:
            title = f"{set_name(material, kind)}: {names[method]}"
            kept = f"{found.detail_kept[method]:.1%}"
            rows.append(Row((title, f"{found.count:,}", *_quality(found.methods[method]), kept)))
    polyps = "abnormal" in material.sets and "polyps" in material.sets["abnormal"].classes
    caption = (
        "Mean ± standard deviation over frames, from the posterior's mean. PCA has as many components as the latent vector, "
        "fitted to the training frames and their mirror images. Fine detail is energy from a quarter of the highest frequency "
        f"on, beside that of the originals. SSIM: {material.numbers.ssim_rule}."
    )
    header = ("Frames and method", "frames", "PSNR, dB", "SSIM", "squared error", "fine detail kept")
    return Table(caption, header, (*rows, *([REPORT] if polyps else [])))


def rules_table(material: Material) -> Table | None:
    """Return PSNR and SSIM of each set by each rule of choosing a checkpoint."""
    numbers = material.numbers
    if numbers is None or not numbers.rules:
        return None
    columns = [(kind, metric) for kind in numbers.sets for metric in ("psnr", "ssim")]
    rows = []
    for rule, values in numbers.rules.items():
        title = RULES.get(rule, rule) + (" (headline)" if rule == numbers.rule else "")
        rows.append(Row((title, f"{values.get('images', 0):,.0f}", *(_value(values, *column) for column in columns))))
    heads = [f"{kind}, {'PSNR, dB' if metric == 'psnr' else 'SSIM'}" for kind, metric in columns]
    return Table("No rule looks at the frames measured here.", ("Checkpoint rule", "images seen", *heads), tuple(rows))


def separation_table(material: Material) -> Table | None:
    """Return how well the squared error alone tells abnormal from normal frames, by method."""
    if material.numbers is None or not material.numbers.separation:
        return None
    names, counts = material.numbers.method_names, {kind: found.count for kind, found in material.sets.items()}
    rows = [Row((names[method], f"{value:.3f}")) for method, value in material.numbers.separation.items()]
    caption = (
        f"Area under the ROC curve, {counts['abnormal']:,} abnormal against {counts['normal']:,} normal frames: 1 separates "
        "them without a mistake, 0.5 is chance. Whatever else differs between the two, such as camera and crop, counts too."
    )
    return Table(caption, ("Squared error of", "AUROC"), tuple(rows))


def frames_table(material: Material) -> Table | None:
    """Return how many frames of which original size each class has, and apart from them each kind."""
    if material.frames is None:
        return None
    classes = [_group(group) for group in material.frames.classes]
    kinds = [_group(group, apart=True) for group in material.frames.kinds]
    caption = f"Frames as they were prepared, content area by the method {material.frames.method!r}."
    header = ("Class", "kind", "frames", "with an inset", "original sizes")
    return Table(caption, header, (*classes, *kinds), numeric=False)


def terms_table(material: Material) -> Table | None:
    """Return the two terms of the validation loss at the chosen checkpoint."""
    best = material.best
    if best is None:
        return None
    weight = material.config.losses.kl
    weighted = "" if weight == 1 else f", times {weight:g}"
    terms = {"reconstruction": best.reconstruction, f"KL{weighted}": weight * best.kl, "loss": best.total}
    rows = [Row((name, f"{value:,.2f}", f"{value / best.total:.2%}")) for name, value in terms.items()]
    return Table(
        f"Validation loss at its lowest, at {best.images:,} images.",
        ("Term", "nats an image", "share of the loss"),
        tuple(rows),
    )


def _quality(metrics: Mapping[str, MeanStd]) -> tuple[str, ...]:
    decimals = {"psnr": 2, "ssim": 3, "squared_error": 4}
    return tuple(metrics[name].format(n) for name, n in decimals.items())


def _value(values: Mapping[str, float], kind: str, metric: str) -> str:
    value = values.get(f"{kind}_{metric}")
    return "" if value is None else f"{value:.{2 if metric == 'psnr' else 3}f}"


def _group(group: ClassSummary, apart: bool = False) -> Row:
    shown = list(group.sizes.items())[:SIZES]
    sizes = [f"{count:,} at {size}" for size, count in shown]
    others = len(group.sizes) - len(shown)
    if others:
        rest = group.count - sum(count for _, count in shown)
        sizes.append(f"{rest:,} at {others} other size{'s' if others > 1 else ''}")
    insets = ", ".join(f"{count:,} {kind}" for kind, count in group.insets.items()) or "none"
    return Row((group.name, group.kind, f"{group.count:,}", insets, ", ".join(sizes)), apart)
