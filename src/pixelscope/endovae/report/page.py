"""The report on a run of EndoVAE: the list of its sections, the summary with headline and notes, and the result in tables."""

from collections.abc import Mapping
from pathlib import Path

from pixelscope.endovae.report.anomaly import anomaly_section
from pixelscope.endovae.report.data import ReportData, listed
from pixelscope.endovae.report.findings import findings_section
from pixelscope.endovae.report.frames import augmentation_section, frames_section
from pixelscope.endovae.report.generated import latent_section, reconstructions_section
from pixelscope.endovae.report.training import training_section
from pixelscope.endovae.results import METHODS, MODEL, PCA, MeanStd, SetResult
from pixelscope.reports.document import Row, Section, Table, duration, present, record_section

STATES = {"running": "It is still running, or was killed", "stopped": "It was stopped"}
METRICS = {"psnr": "PSNR", "ssim": "SSIM"}
"""Titles of the metrics in the headline."""
CHECKPOINTS = {
    "best-validation": "best-validation: lowest validation loss",
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
}
REFERENCE = Row(
    ("reference study, Kvasir polyps (other frames)", "500", "17.16 ± 2.37", "0.424 ± 0.100", "", ""), separate=True
)
"""Results that the reference study reports for its own polyps."""
DECIMALS = {"psnr": 2, "ssim": 3, "squared_error": 4}


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on a run folder; the summary is the first, the record the last.

    Sections without content are left out.

    Raises:
        InputError: `run` is not a run folder, or a file in it is damaged.
    """
    data = ReportData.read(run)
    found = [
        result_section(data),
        frames_section(data),
        augmentation_section(data),
        training_section(data),
        reconstructions_section(data),
        latent_section(data),
        anomaly_section(data),
        findings_section(data),
    ]
    record = record_section(data.folder, data.record, len(data.warnings))
    return [_summary(data), *(section for section in found if section.parts), record]


def headline(data: ReportData) -> str:
    """Return the result of a run in a sentence or two."""
    sentence = _quality(data) if data.sets else "Not evaluated yet, so no quality is known."
    if data.record.state == "finished":
        return sentence
    return f"Unfinished, at {data.epochs_at(data.images)}: {sentence[0].lower()}{sentence[1:]}"


def notes(data: ReportData) -> tuple[str, ...]:
    """Return what a reader of the headline must not overlook."""
    return tuple(filter(None, (_unfinished_note(data), _outdated_note(data), _test_note(data))))


def pca_wins(data: ReportData) -> list[str]:
    """Return the metrics in which PCA of the same size is better than the model, by the decimals shown."""
    found = []
    for kind, numbers in data.sets.items():
        for metric, title in METRICS.items():
            model, pca = (round(numbers.methods[method][metric].mean, DECIMALS[metric]) for method in (MODEL, PCA))
            if pca > model:
                found.append(f"{title} of {data.set_name(kind)}")
    return found


def _summary(data: ReportData) -> Section:
    frames = data.record.data.get("frames")
    classes = [group.name for group in data.frames.classes] if data.frames else []
    title = f"EndoVAE: {listed(classes)}" if classes else "EndoVAE"
    origin = [f"Frames: {frames.title}."] if frames is not None and frames.title else []
    return Section(title, "summary", prose=(_what_was_done(data), *origin), notes=notes(data), headline=headline(data))


def _what_was_done(data: ReportData) -> str:
    copies, count = data.config.augmentation.copies_per_frame, data.training_frames
    augmented = f" plus {copies:,} augmented {'copy' if copies == 1 else 'copies'} of each" if copies else ""
    time = f" in {duration(data.record.seconds)}" if data.record.seconds is not None else ""
    ended = f" {data.record.ended}" if data.record.ended else ""
    return (
        f"EndoVAE was trained to compress each frame into {_code(data)} and to reconstruct it, on "
        f"{f'{count:,} ' if count else ''}{_trained_kind(data)} frames{augmented}. It saw {data.epochs_at(data.images)}{time}."
        f"{ended}"
    )


def _code(data: ReportData) -> str:
    """Return `a 6-dimensional latent vector`, or the size of a spatial code."""
    model = data.config.model
    if model.kind == "global":
        return f"a {model.latent}-dimensional latent vector"
    return f"a spatial code of {' x '.join(map(str, data.config.code_shape))} numbers"


def _trained_kind(data: ReportData) -> str:
    return "normal and abnormal" if data.config.split.train_on == "both" else data.config.split.train_on


def _quality(data: ReportData) -> str:
    sentence = "; ".join(_compared(data, kind, numbers) for kind, numbers in data.sets.items())
    wins = pca_wins(data)
    better = "all of these" if len(wins) == len(METRICS) * len(data.sets) else listed(wins) or "none of these"
    return f"Reconstructions of {sentence}. PCA is better in {better}."


def _compared(data: ReportData, kind: str, numbers: SetResult) -> str:
    model, pca = (
        {metric: f"{numbers.methods[method][metric].mean:.{DECIMALS[metric]}f}" for metric in METRICS}
        for method in (MODEL, PCA)
    )
    linear = data.numbers.method_names[PCA] if data.numbers else PCA
    return (
        f"{data.set_name(kind)} reach {model['psnr']} dB and SSIM {model['ssim']} ({linear}: {pca['psnr']} dB, {pca['ssim']})"
    )


def _unfinished_note(data: ReportData) -> str:
    state, epoch = data.record.state, data.record.epoch
    if state == "finished":
        return ""
    planned = f" of at most {data.config.training.epochs * epoch:,}" if epoch else ""
    why = f" {STATES[state]}; --resume continues it." if state in STATES else ""
    return f"This run is unfinished: {data.images:,}{planned} images are done.{why}"


def _outdated_note(data: ReportData) -> str:
    numbers, best = data.numbers, data.best
    if numbers is None:
        return ""
    newest = best.images if numbers.checkpoint == "best-validation" and best is not None else data.images
    if numbers.images >= newest:
        return ""
    return (
        f"The run continued after it was evaluated: the measured weights are those at {numbers.images:,} images, and the "
        f"checkpoint {numbers.checkpoint} is now at {newest:,}; evaluate it again."
    )


def _test_note(data: ReportData) -> str:
    if not data.sets:
        return ""
    other = {"normal": "abnormal", "abnormal": "normal"}.get(data.config.split.train_on)
    text = (
        f"The run was trained on {_trained_kind(data)} frames. The test frames and their near-duplicates of the same kind were "
        "not used in training, nor to choose the checkpoint"
    )
    if other not in data.sets:
        return f"{text}."
    anomaly = None if data.numbers is None else data.numbers.anomaly
    selected = anomaly is not None and any(view.selection_auroc for view in anomaly.views.values())
    score = " Some of the abnormal ones select the anomaly score, which is measured on the others." if selected else ""
    return f"{text}; all {other} frames are test frames.{score}"


def result_section(data: ReportData) -> Section:
    """Return the quality of the reconstructions, next to PCA and the mean image, and by checkpoint."""
    numbers = data.numbers
    parts = present(quality_table(data), _checkpoint_table(data))
    prose = () if numbers is None else (f"Measured on checkpoint {numbers.checkpoint}, at {data.epochs_at(numbers.images)}.",)
    return Section("Result", "result", prose=prose, parts=parts, notes=_left_out(data))


def _left_out(data: ReportData) -> tuple[str, ...]:
    """Return a note per set of frames of which some are not measured."""
    return tuple(
        f"Not measured, because all their pixels lie in insets: {found.unmeasured:,} of {found.count:,} {data.set_name(kind)}."
        for kind, found in data.sets.items()
        if found.unmeasured
    )


def quality_table(data: ReportData) -> Table | None:
    """Return the quality per set and method, with the reference study's own polyps in a separate row."""
    if data.numbers is None or not data.sets:
        return None
    names, rows = data.numbers.method_names, []
    for kind, found in data.sets.items():
        for method in METHODS:
            title = f"{data.set_name(kind)}: {names[method]}"
            kept = f"{found.detail_kept[method]:.1%}"
            rows.append(Row((title, f"{found.measured:,}", *_cells(found.methods[method]), kept)))
    polyps = "abnormal" in data.sets and "polyps" in data.sets["abnormal"].classes
    caption = (
        "Mean ± standard deviation over frames, reconstructed from the posterior mean. PCA codes frames by as many numbers as "
        "EndoVAE, and is fitted to the training frames and their mirror images. Fine detail: energy above "
        f"a quarter of the Nyquist frequency, relative to the originals. SSIM: {data.numbers.ssim_method}."
    )
    header = ("Frames and method", "frames", "PSNR, dB", "SSIM", "squared error", "fine detail kept")
    return Table(caption, header, (*rows, *([REFERENCE] if polyps else [])))


def _cells(metrics: Mapping[str, MeanStd]) -> tuple[str, ...]:
    return tuple(metrics[name].format(decimals) for name, decimals in DECIMALS.items())


def _checkpoint_table(data: ReportData) -> Table | None:
    numbers = data.numbers
    if numbers is None or not numbers.checkpoints:
        return None
    columns = [(kind, metric) for kind in numbers.sets for metric in ("psnr", "ssim")]
    rows = []
    for name, values in numbers.checkpoints.items():
        title = CHECKPOINTS.get(name, name) + (" (headline)" if name == numbers.checkpoint else "")
        cells = (f"{values[f'{kind}_{metric}']:.{DECIMALS[metric]}f}" for kind, metric in columns)
        rows.append(Row((title, f"{values['images']:,.0f}", *cells)))
    heads = [f"{kind}, {'PSNR, dB' if metric == 'psnr' else 'SSIM'}" for kind, metric in columns]
    return Table("No checkpoint was selected on test frames.", ("Checkpoint", "images seen", *heads), tuple(rows))
