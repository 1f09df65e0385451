"""Measures detectors by cross-validation, and writes the selected one to a file; for research only."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import INDEX, FrameStore, evenly_spaced
from pixelscope.endovae.anomaly.calibration import RATE
from pixelscope.endovae.anomaly.statistics import few_frames_warning
from pixelscope.endovae.detection.config import DetectConfig, DetectorName, detector_name
from pixelscope.endovae.detection.crossvalidation import MAX_FRAMES, cross_validate
from pixelscope.endovae.detection.figures import draw_detection
from pixelscope.endovae.detection.fit import chosen_detectors
from pixelscope.endovae.detection.folds import halves
from pixelscope.endovae.detection.model import FittedDetector, fit_detector
from pixelscope.endovae.detection.results import DetectionResult
from pixelscope.errors import InputError
from pixelscope.files import atomic_folder
from pixelscope.progress import ProgressCallback

RESULT, MODEL = "detection.json", "detector.safetensors"
CALIBRATION_FRACTION = 0.2
"""Fraction of the healthy frames that calibrate the detector of the file; it is fitted to the others."""


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
    if out.exists():
        raise InputError(f"{out} exists already; choose another --out, or remove it.")
    config = config or DetectConfig()
    chosen_detectors(config.detectors)
    is_store = (frames / INDEX).is_file()
    store = FrameStore.open(frames) if is_store else prepare([frames], config=config.prepare, progress=progress)
    config = config.model_copy(update={"prepare": store.settings})
    result = cross_validate(store, config, progress)
    fitted = fit_to_store(store, detector_name(result.selected), config)
    warnings = few_frames_warning(len(fitted.calibration.scores), RATE)
    result = result.model_copy(update={"warnings": tuple(dict.fromkeys((*result.warnings, *warnings)))})
    with atomic_folder(out) as work:
        result.save(work / RESULT)
        fitted.save(work / MODEL)
        draw_detection(store, calibration_split(store, config)[0], result, fitted, work)
    return result


def calibration_split(store: FrameStore, config: DetectConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the healthy frames that calibrate, and those that a detector is fitted to, by position in the store.

    Raises:
        InputError: all healthy frames are near-duplicates of each other.
    """
    healthy = evenly_spaced(np.flatnonzero(~store.abnormal), MAX_FRAMES)
    return halves(store, healthy, config.duplicate_distance, config.seed, CALIBRATION_FRACTION)


def fit_to_store(store: FrameStore, name: DetectorName, config: DetectConfig) -> FittedDetector:
    """Fit a detector to healthy frames of a store, and calibrate it on others; see `calibration_split`."""
    calibration, train = calibration_split(store, config)
    frames = store.view(config.view).frames
    sizes = [(int(width), int(height)) for width, height in store.sizes[calibration]]
    return fit_detector(name, np.asarray(frames[train]), np.asarray(frames[calibration]), sizes, config)
