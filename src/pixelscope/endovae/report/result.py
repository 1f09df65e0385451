"""The section "Result": quality of the reconstructions, by method and by checkpoint."""

from collections.abc import Mapping

from pixelscope.endovae.report.data import ReportData
from pixelscope.endovae.results import METHODS, MeanStd
from pixelscope.report.document import Row, Section, Table

CHECKPOINTS = {
    "best-validation": "best-validation: lowest validation loss",
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
}
REFERENCE = Row(("reference study, Kvasir polyps (other frames)", "500", "17.16 ± 2.37", "0.424 ± 0.100", "", ""), apart=True)
"""What the reference study gives for its own polyps."""
DECIMALS = {"psnr": 2, "ssim": 3, "squared_error": 4}


def result_section(data: ReportData) -> Section:
    """Return the quality of the reconstructions, next to PCA and the mean image, and by checkpoint."""
    numbers = data.numbers
    parts = tuple(part for part in (quality_table(data), _checkpoint_table(data)) if part is not None)
    prose = () if numbers is None else (f"Measured on the checkpoint {numbers.rule}, at {data.epochs_at(numbers.images)}.",)
    return Section("Result", "result", prose=prose, parts=parts)


def quality_table(data: ReportData) -> Table | None:
    """Return the quality per set and method, with the reference study's own polyps in a separate row."""
    if data.numbers is None or not data.sets:
        return None
    names, rows = data.numbers.method_names, []
    for kind, found in data.sets.items():
        for method in METHODS:
            title = f"{data.set_name(kind)}: {names[method]}"
            kept = f"{found.detail_kept[method]:.1%}"
            rows.append(Row((title, f"{found.count:,}", *_quality(found.methods[method]), kept)))
    polyps = "abnormal" in data.sets and "polyps" in data.sets["abnormal"].classes
    caption = (
        "Mean ± standard deviation over frames, reconstructed from the posterior mean. PCA has as many components as the "
        "latent vector has dimensions, fitted to the training frames and their mirror images. Fine detail: energy above "
        f"a quarter of the Nyquist frequency, relative to the originals. SSIM: {data.numbers.ssim_rule}."
    )
    header = ("Frames and method", "frames", "PSNR, dB", "SSIM", "squared error", "fine detail kept")
    return Table(caption, header, (*rows, *([REFERENCE] if polyps else [])))


def _quality(metrics: Mapping[str, MeanStd]) -> tuple[str, ...]:
    return tuple(metrics[name].format(decimals) for name, decimals in DECIMALS.items())


def _checkpoint_table(data: ReportData) -> Table | None:
    numbers = data.numbers
    if numbers is None or not numbers.rules:
        return None
    columns = [(kind, metric) for kind in numbers.sets for metric in ("psnr", "ssim")]
    rows = []
    for rule, values in numbers.rules.items():
        title = CHECKPOINTS.get(rule, rule) + (" (headline)" if rule == numbers.rule else "")
        cells = (f"{values[f'{kind}_{metric}']:.{DECIMALS[metric]}f}" for kind, metric in columns)
        rows.append(Row((title, f"{values['images']:,.0f}", *cells)))
    heads = [f"{kind}, {'PSNR, dB' if metric == 'psnr' else 'SSIM'}" for kind, metric in columns]
    return Table("No checkpoint was chosen by the frames measured here.", ("Checkpoint", "images seen", *heads), tuple(rows))
