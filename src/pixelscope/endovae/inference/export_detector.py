"""Exports a detector to an ONNX file, for `score` without torch and for other programs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.prepare import open_or_prepare
from pixelscope.data.phantom import draw_frame
from pixelscope.endovae.anomaly.calibration import RATE
from pixelscope.endovae.detection.config import DETECTORS, LITE0
from pixelscope.endovae.detection.model import FittedDetector
from pixelscope.endovae.detection.results import ALL, RESULT, DetectionResult
from pixelscope.endovae.inference.scorers import DETECTOR_OUTPUTS, DetectorScorer, FrameDetector, OnnxDetector
from pixelscope.endovae.results import RESEARCH
from pixelscope.errors import InputError, plural
from pixelscope.exports.bundle import MAX_COMPARED, ExportResult, Format, Parity, compare, require_new_export, write_bundle
from pixelscope.exports.metadata import Metadata, ModelCard, TensorSpec
from pixelscope.exports.onnx_graph import build_graph
from pixelscope.exports.onnx_runtime import OnnxModel, with_checksum
from pixelscope.runs.folder import versions
from pixelscope.runs.record import DataRecord

SYNTHETIC = 48
"""Synthetic frames on which a file is compared with its detector, every third one with a polyp."""
PRETRAINED_DATA = DataRecord(
    title="EfficientNet-Lite0, whose weights are in this file",
    licence="Apache-2.0",
    citation="Tan and Le, EfficientNet, ICML 2019",
)


class DetectorGraph(nn.Module):
    """The network exported to ONNX: maps images of a view to the outputs that `OnnxDetector` reads."""

    def __init__(self, fitted: FittedDetector) -> None:
        super().__init__()
        self.extractor, self.detector = fitted.extractor, fitted.detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores, float64 (N,), and maps (N, h, w) of images (N, 3, side, side) in [0, 1]."""
        return self.detector(self.extractor(images))


def export_detector(detector: Path, out: Path, form: Format, *, images: str | None = None) -> ExportResult:
    """Export a file that `detect` wrote to ONNX, with a model card.

    The new file is compared with the detector first, and kept only if their scores and maps agree.

    Args:
        detector: the file.
        out: the file to make.
        form: the format; a detector's own file has the other one already.
        images: store or folder of frames to compare on; by default synthetic frames.

    Raises:
        InputError: as `pixelscope.export` does.
    """
    if form != "onnx":
        raise InputError(f"{detector} is a .{form} file already; copy it, or export it with --format onnx.")
    require_new_export(out, form)
    fitted = FittedDetector.load(detector)
    frames, compared_on = _frames(fitted, detector, images)
    side = fitted.extractor.side
    about = _about(fitted)

    def write(path: Path) -> None:
        graph = build_graph(DetectorGraph(fitted), side, DETECTOR_OUTPUTS, about.mean, about.scale)
        path.write_bytes(with_checksum(graph, about))

    def agreement(path: Path) -> Parity:
        return compare(*(_outputs_of(one, frames) for one in (fitted, OnnxDetector(OnnxModel(path), path))))

    def card(parity: Parity) -> ModelCard:
        compared = f"{parity.images:,} frames ({compared_on}) differ from the detector's by at most {parity.largest:.2g}"
        return _card(fitted, detector, out, f"Outputs for {compared}.")

    files, parity = write_bundle(out, write, agreement, card)
    return ExportResult(files, form, fitted.name, parity, compared_on, RESEARCH)


def _outputs_of(detector: FrameDetector, frames: NDArray[np.uint8]) -> Mapping[str, np.ndarray]:
    found = detector(frames)
    return dict(zip(DETECTOR_OUTPUTS, (found.scores, found.maps), strict=True))


def _frames(fitted: FittedDetector, path: Path, images: str | None) -> tuple[NDArray[np.uint8], str]:
    """Return frames in the detector's view, uint8 (N, S, S, 3), and their description."""
    if images is not None:
        view = open_or_prepare(Path(images), fitted.config.prepare).view(fitted.config.view)
        return view.frames[evenly_spaced(np.arange(len(view.frames)), MAX_COMPARED)], f"frames in {images}"
    scorer = DetectorScorer(fitted, path)
    drawn = (draw_frame(seed, polyp=seed % 3 == 0).image for seed in range(SYNTHETIC))
    return np.stack([scorer.prepared_pixels(one).seen.frame for one in drawn]), "synthetic frames"


def _about(fitted: FittedDetector) -> Metadata:
    threshold = fitted.calibration.of_view(fitted.name).default_threshold()
    rate = None if threshold is None else RATE
    return fitted.metadata.model_copy(update={"threshold": threshold, "false_positive_rate": rate})


def _card(fitted: FittedDetector, path: Path, out: Path, parity: str) -> ModelCard:
    known, config, side = fitted.calibration, fitted.config, fitted.extractor.side
    result = _measured(fitted, path)
    return ModelCard(
        title=f"Anomaly detector of endoscopic frames, {fitted.name}",
        file=out.name,
        format="onnx",
        intended_use=f"Research on anomaly detection in endoscopic frames. {RESEARCH}",
        not_for="diagnosis, screening, triage or any other use in the care of a person.",
        data=_data(fitted, result),
        protocol=_protocol(fitted),
        results=[] if result is None else _results(result, fitted.name),
        results_note="AUROC against abnormal frames with 95% intervals over clusters, by `pixelscope endovae detect`.",
        inputs=[
            TensorSpec(
                "images",
                "uint8",
                "(N, H, W, 3), any N, H and W",
                "0 to 255",
                f"RGB, the view {config.view} of frames; of side {side} they give the scores of the detector, other sizes are "
                "resized in the graph",
            )
        ],
        outputs=[
            TensorSpec("score", "float64", "(N,)", "0 and above", "higher is less like healthy frames"),
            TensorSpec("map", "float32", "(N, h, w)", "0 and above", "the score of each position"),
        ],
        limits=(
            "It was fitted to frames of few devices and hospitals; frames of another camera may be flagged as anomalies.",
            "Views are cut from prepared frames; `pixelscope endovae score` prepares and cuts them.",
            f"Scores are calibrated on {plural(len(known.scores), 'healthy frame')}; p-values hold for similar frames only.",
        ),
        parity=parity,
        versions=versions() | versions(("onnx", "onnxscript", "onnxruntime")),
    )


def _data(fitted: FittedDetector, result: DetectionResult | None) -> dict[str, DataRecord]:
    calibration = len(fitted.calibration.scores)
    frames = DataRecord(title="healthy frames", calibration=calibration)
    if result is not None:
        healthy = sum(result.counts[group] for group in result.groups if group != ALL)
        frames = DataRecord(title=f"healthy frames of {Path(result.store).name}", count=healthy, calibration=calibration)
    return {"frames": frames} | ({"pretrained features": PRETRAINED_DATA} if fitted.name in LITE0 else {})


def _protocol(fitted: FittedDetector) -> dict[str, str]:
    threshold = fitted.calibration.of_view(fitted.name).default_threshold()
    flagged = "none, because there are too few frames" if threshold is None else f"{threshold:.6g}"
    trained = {"Examples with pseudo-lesions": f"{fitted.config.images:,}"} if fitted.extractor.trained is not None else {}
    return {
        "Detector": f"{fitted.name}: {DETECTORS[fitted.name]}",
        "View": fitted.config.view,
        **trained,
        "Seed": str(fitted.config.seed),
        f"Threshold at a false-positive rate of {RATE:g}": flagged,
    }


def _measured(fitted: FittedDetector, path: Path) -> DetectionResult | None:
    """Return the results that `detect` wrote beside the detector, if they are there and of its settings."""
    beside = path.with_name(RESULT)
    if not beside.is_file():
        return None
    found, config = DetectionResult.load(beside), fitted.config
    same = (found.selected, found.view, found.folds, found.seed, found.images)
    return found if same == (fitted.name, config.view, config.folds, config.seed, config.images) else None


def _results(result: DetectionResult, name: str) -> list[Mapping[str, str]]:
    scored = {name: result.scores[name]} | {f"trivial: {other}": one for other, one in result.baselines.items()}
    return [
        {"score": title, "healthy frames": f"{group} ({result.counts[group]:,})", "AUROC": str(one.auroc[group])}
        for title, one in scored.items()
        for group in result.groups
    ]
