"""Measures detectors by cross-validation, and writes the selected one to a file; for research only."""

from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.prepare import open_or_prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibration import RATE
from pixelscope.endovae.anomaly.heatmap import overlay
from pixelscope.endovae.anomaly.statistics import conformal_p, few_frames_warning
from pixelscope.endovae.detection.config import LITE0, DetectConfig, DetectorName, chosen_detectors, detector_name
from pixelscope.endovae.detection.crossvalidation import MAX_FRAMES, cross_validate, halves, with_tissue
from pixelscope.endovae.detection.detectors import FITS
from pixelscope.endovae.detection.model import FittedDetector, fit_detector
from pixelscope.endovae.detection.results import MODEL, RESULT, DetectionResult, ScoreResult
from pixelscope.endovae.report.anomaly import HeatMaps, Point, heatmap_gallery, separation_panel
from pixelscope.errors import InputError
from pixelscope.files import atomic_file, atomic_folder, keep_heap, require_absent
from pixelscope.runs.progress import ProgressCallback

CALIBRATION_FRACTION = 0.2
"""Fraction of the healthy frames that calibrate the detector of the file; it is fitted to the others."""
SHOWN = 8
"""Frames per kind in the figure of heat maps."""
DPI = 144


def detect(
    frames: Path, out: Path, *, config: DetectConfig | None = None, progress: ProgressCallback | None = None
) -> DetectionResult:
    """Measure detectors by cross-validation, and write results, figures and the selected detector to a folder.

    The detector of the file is fitted to four fifths of the healthy frames and calibrated on the others; the abnormal
    frames only select it. For research only, never a diagnosis.

    Args:
        frames: frame store made by `prepare`, or a folder of frames, which is prepared first.
        out: folder to make: detection.json, detector.safetensors, PNG files.
        config: view, detectors and folds.
        progress: called with the folds done and all folds; before that with the frames prepared and all frames.

    Returns:
        The content of detection.json.

    Raises:
        InputError: `out` exists, frames of one kind are missing, or there are too few.

    Example:
        >>> result = pixelscope.endovae.detect(Path("stores/kvasir"), Path("detector"))
        >>> print(result.to_text())
    """
    require_absent(out)
    config = config or DetectConfig()
    names = chosen_detectors(config.detectors)
    pooling = [name for name in LITE0 if FITS[name].uses_pooled]
    if not config.mirrored and not set(pooling) & set(names):
        raise InputError(f"mirrored false has no effect without a detector {' or '.join(pooling)}; leave it out.")
    keep_heap()
    store = open_or_prepare(frames, config.prepare, progress)
    config = config.model_copy(update={"prepare": store.settings})
    result = cross_validate(store, config, progress)
    fitted = fit_to_store(store, detector_name(result.selected), config)
    warnings = few_frames_warning(len(fitted.calibration.scores), RATE, " for the model file")
    result = result.model_copy(update={"warnings": tuple(dict.fromkeys((*result.warnings, *warnings)))})
    with atomic_folder(out) as work:
        result.save(work / RESULT)
        fitted.save(work / MODEL)
        draw_detection(store, calibration_split(store, config)[0], result, fitted, work)
    return result


def calibration_split(store: FrameStore, config: DetectConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the healthy frames that calibrate, and those that a detector is fitted to, by position in the store.

    Frames without tissue in the view are in neither.

    Raises:
        InputError: all healthy frames are near-duplicates of each other.
    """
    healthy = with_tissue(store.view(config.view), evenly_spaced(np.flatnonzero(~store.abnormal), MAX_FRAMES))
    groups = store.clusters(healthy, config.duplicate_distance)
    return halves(healthy, groups, config.seed, CALIBRATION_FRACTION)


def fit_to_store(store: FrameStore, name: DetectorName, config: DetectConfig) -> FittedDetector:
    """Fit a detector to healthy frames of a store, and calibrate it on others; see `calibration_split`."""
    calibration, train = calibration_split(store, config)
    frames = store.view(config.view).frames
    return fit_detector(name, np.asarray(frames[train]), np.asarray(frames[calibration]), store.sizes[calibration], config)


def draw_detection(
    store: FrameStore, healthy: NDArray[np.int64], result: DetectionResult, fitted: FittedDetector, folder: Path
) -> list[Path]:
    """Write scores.png, and maps.png into a folder; return their paths.

    Args:
        store: the frames.
        healthy: positions of healthy frames that the detector was not fitted to; some are shown.
        result: what scores.png shows.
        fitted: what maps.png shows.
        folder: where the files are written.
    """
    figures = {"scores.png": _separation(result), "maps.png": _maps(store, healthy, fitted)}
    written = []
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        written.append(folder / name)
    return written


def _separation(result: DetectionResult) -> Figure:
    trivial = {name: _points(one, result) for name, one in (result.baselines | result.shortcuts).items()}
    return separation_panel({name: _points(one, result) for name, one in result.scores.items()}, trivial, result.selected)


def _points(one: ScoreResult, result: DetectionResult) -> dict[str, Point]:
    return {group: (area.value, area.low, area.high) for group in result.groups for area in [one.auroc[group]]}


def _maps(store: FrameStore, healthy: NDArray[np.int64], fitted: FittedDetector) -> Figure:
    """Draw frames of both kinds above their heat maps."""
    view, groups = store.view(fitted.view), []
    for kind, members in (("normal", healthy), ("abnormal", np.flatnonzero(store.abnormal))):
        positions = evenly_spaced(members, SHOWN)
        frames = np.asarray(view.frames[positions])
        found = fitted(frames)
        side = frames.shape[1]
        maps = np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in found.maps])
        overlays = np.stack([overlay(frame, one, fitted.calibration.vmax) for frame, one in zip(frames, maps, strict=True)])
        p = conformal_p(fitted.calibration.scores, found.scores)
        groups.append(HeatMaps(kind, frames, overlays, np.asarray(view.lesions[positions]) > 0, p))
    return heatmap_gallery(groups)
