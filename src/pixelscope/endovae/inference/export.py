"""Exports EndoVAE to a file for other programs, and for `score` without torch; imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.endovae.anomaly.calibration import HEADLINE, RATE, Calibration, ViewCalibration, selecting_warning
from pixelscope.endovae.inference.scorers import ScoringModel, load_vae
from pixelscope.endovae.results import RESEARCH, Evaluation, ViewResult
from pixelscope.errors import plural
from pixelscope.exports.bundle import MAX_COMPARED, ExportResult, Format, Parity, compare, require_new_export, write_bundle
from pixelscope.exports.metadata import Metadata, ModelCard, TensorSpec
from pixelscope.runs.folder import versions
from pixelscope.runs.record import parse_record

if TYPE_CHECKING:
    from pixelscope.endovae.checkpoints import Checkpoint

BATCH = 50


def export_scorer(run: Path, out: Path, form: Format, *, images: str | None = None, checkpoint: str = "auto") -> ExportResult:
    """Export encoder and decoder of a finished run to `out`, with a model card.

    The file is compared with the run first, and kept only if their outputs agree.

    images: a store or folder of frames to compare on; by default the run's own.
    Raises InputError; see `pixelscope.export`.
    """
    from pixelscope.endovae.checkpoints import load_checkpoint
    from pixelscope.endovae.inference.torch_model import TorchScorer

    require_new_export(out, form)
    loaded = load_checkpoint(run, checkpoint)
    calibration = loaded.calibration()
    scorer = TorchScorer.from_checkpoint(loaded, calibration)
    frames, compared_on = _frames(loaded, images)
    about = _about(loaded, calibration)

    def agreement(path: Path) -> Parity:
        return compare(*(_maps(model, frames) for model in (scorer, load_vae(path))))

    def card(parity: Parity) -> ModelCard:
        return _card(loaded, calibration, out, form, f"{parity.images:,} frames ({compared_on})", parity.largest)

    files, parity = write_bundle(out, lambda path: _write(path, form, loaded, about), agreement, card)
    return ExportResult(files, form, loaded.name, parity, compared_on, RESEARCH)


def _write(path: Path, form: Format, checkpoint: "Checkpoint", about: Metadata) -> None:
    from pixelscope.endovae.inference.torch_model import EndoVAEGraph, exported_tensors
    from pixelscope.exports.onnx_graph import build_graph
    from pixelscope.exports.onnx_runtime import with_checksum
    from pixelscope.exports.weights import write_weights

    if form == "safetensors":
        write_weights(path, exported_tensors(checkpoint), about)
        return
    core = EndoVAEGraph(checkpoint.encoder, checkpoint.decoder, about.size)
    path.write_bytes(with_checksum(build_graph(core, about.size, core.OUTPUTS, about.mean, about.scale), about))


def _frames(checkpoint: "Checkpoint", images: str | None) -> tuple[np.ndarray, str]:
    """Return uint8 frames (N, S, S, 3), evenly spaced over the run's store or `images`, and their description."""
    from pixelscope.endovae.data import load_other_frames, load_run_splits

    if images is None:
        store, title = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record).store, "frames of the run"
    else:
        store, title = load_other_frames(checkpoint.config, images), f"frames in {images}"
    return store.frames[evenly_spaced(np.arange(len(store)), MAX_COMPARED)], title


def _maps(model: ScoringModel, frames: np.ndarray) -> Mapping[str, np.ndarray]:
    parts = [asdict(model(frames[start : start + BATCH])) for start in range(0, len(frames), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _about(checkpoint: "Checkpoint", calibration: Calibration) -> Metadata:
    threshold = calibration.views[HEADLINE].default_threshold()
    return Metadata(
        system="endovae",
        config=checkpoint.config.model_dump(mode="json"),
        checkpoint=checkpoint.name,
        images=checkpoint.images,
        weights_sha256=checkpoint.sha256,
        size=checkpoint.config.prepare.size,
        mean=0.0,
        scale=255.0,
        calibration=calibration.model_dump(mode="json"),
        false_positive_rate=None if threshold is None else RATE,
        threshold=threshold,
        note=RESEARCH,
        versions=versions(),
    )


def _card(
    checkpoint: "Checkpoint", calibration: Calibration, out: Path, form: Format, compared: str, largest: float
) -> ModelCard:
    record, config = parse_record(checkpoint.record, checkpoint.folder.record), checkpoint.config
    size, latent, known = config.prepare.size, config.code_values, calibration.views[HEADLINE]
    return ModelCard(
        title=f"EndoVAE of {config.split.train_on} frames",
        file=out.name,
        format=form,
        intended_use=f"Research on anomaly detection and generation of endoscopic frames. {RESEARCH}",
        not_for="diagnosis, screening, triage or any other use in the care of a person.",
        data=record.data,
        protocol=_protocol(checkpoint, calibration),
        results=_results(checkpoint),
        results_note="AUROC and average precision with 95% bootstrap intervals, by `pixelscope endovae evaluate`. If a trivial "
        "baseline comes close, the data differ in something other than disease.",
        inputs=_inputs(form, size),
        outputs=_outputs(form, size, latent),
        limits=(
            "It was trained on frames of few devices and hospitals; frames of another camera may be flagged as anomalies.",
            "Borders, glints and overlays are not tissue; `pixelscope endovae score` prepares frames.",
            f"Scores are calibrated on {plural(known.count, 'healthy frame')}; p-values are valid for similar frames only.",
            "The view centre is a fifth of a frame. The view full has border and insets too, in which data sets differ.",
            *(() if calibration.held_out else (selecting_warning(known.count),)),
        ),
        parity=f"Outputs for {compared} differ from the run's by at most {largest:.2g}.",
        versions=versions() | (versions(("onnx", "onnxscript", "onnxruntime")) if form == "onnx" else {}),
    )


def _protocol(checkpoint: "Checkpoint", calibration: Calibration) -> dict[str, str]:
    config = checkpoint.config
    known = calibration.views[HEADLINE]
    threshold = known.default_threshold()
    flagged = (
        "none, because there are too few frames"
        if threshold is None
        else f"{threshold:.6g}, at a false-positive rate of {RATE:g}"
    )
    return {
        "System": "EndoVAE (Diamantis et al., IVMSP 2022)",
        "Trained on": f"{checkpoint.images:,} images in batches of {config.training.batch_size}",
        "Checkpoint": checkpoint.name,
        "Seed": str(config.seed),
        "Anomaly score": f"{known.selected} on the view {HEADLINE}, {_selection(known)}",
        "Threshold": flagged,
    }


def _selection(known: ViewCalibration) -> str:
    """Return how the score was selected."""
    if not known.selection_auroc:
        return "the default without abnormal validation frames"
    counts = ", ".join(f"{count:,} {kind}" for kind, count in known.selection_counts.items())
    return f"selected on validation frames ({counts})"


def _results(checkpoint: "Checkpoint") -> list[Mapping[str, str]]:
    if not checkpoint.folder.evaluation.is_file():
        return []
    found = Evaluation.load(checkpoint.folder.evaluation)
    anomaly = found.anomaly
    if anomaly is None or (found.images, found.checkpoint) != (checkpoint.images, checkpoint.name):
        return []
    return [row for view, one in anomaly.ordered.items() for row in _view_results(view, one)]


def _view_results(view: str, found: ViewResult) -> list[Mapping[str, str]]:
    compared = {found.selected: found.scores[found.selected], **found.baselines}
    rows: list[Mapping[str, str]] = [
        {
            "view": view,
            "score": name if name == found.selected else f"trivial: {name}",
            "healthy frames": f"{group} ({found.counts[group]:,})",
            "AUROC": str(one.auroc),
            "AP": str(one.average_precision),
        }
        for name, by in compared.items()
        for group, one in by.items()
    ]
    if found.shortcuts is None:
        return rows
    tests = {"shortcut test": found.shortcuts.shortcuts, "shortcut test, mean colour": found.shortcuts.mean_colour}
    rows += [
        {"view": view, "score": name, "healthy frames": group, "AUROC": str(area), "AP": ""}
        for name, by in tests.items()
        for group, area in by.items()
    ]
    return rows


def _inputs(form: Format, size: int) -> list[TensorSpec]:
    if form == "onnx":
        meaning = f"RGB; prepared frames of side {size} give the numbers of the run, other sizes are resized in the graph"
        return [TensorSpec("images", "uint8", "(N, H, W, 3), any N, H and W", "0 to 255", meaning)]
    return [TensorSpec("images", "float32", f"(N, 3, {size}, {size})", "0 to 1", "RGB; byte / 255")]


def _outputs(form: Format, size: int, latent: int) -> list[TensorSpec]:
    inner = size - 10
    reconstruction = TensorSpec("reconstruction", "float32", f"(N, 3, {size}, {size})", "0 to 1", "from the posterior's mode")
    mean = TensorSpec("mean", "float32", f"(N, {latent})", "real numbers", "the posterior's mean")
    if form != "onnx":
        return [
            mean,
            TensorSpec("log_variance", "float32", f"(N, {latent})", "real numbers", "of the posterior"),
            reconstruction,
        ]
    return [
        reconstruction,
        TensorSpec("error", "float32", f"(N, {size}, {size})", "0 to 1", "squared difference, mean over channels"),
        TensorSpec(
            "dissimilarity",
            "float32",
            f"(N, {inner}, {inner})",
            "0 to 2",
            "1 - SSIM, where the whole window lies inside the image",
        ),
        TensorSpec("kl", "float32", f"(N, {latent})", "nats, from 0", "KL divergence per latent dimension"),
        mean,
    ]
