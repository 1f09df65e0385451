"""A detector in an exported ONNX file; importing this imports no torch."""

from pathlib import Path

import numpy as np

from pixelscope.data.frames.preprocess import ViewName
from pixelscope.endovae.detection.calibration import Detection, DetectorCalibration
from pixelscope.endovae.detection.config import SYSTEM, DetectConfig, DetectorName, detector_name, require_side
from pixelscope.endovae.inference.metadata import Bytes
from pixelscope.exports.metadata import require_system
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.imaging.resize import resize_frames_bicubic

OUTPUTS = ("score", "map")
BATCH = 8
"""Frames per call: the distances of PatchCore take 26 MB a frame."""


class OnnxDetector:
    """A detector that scores frames in a view, as `FittedDetector` does."""

    def __init__(self, model: OnnxModel, path: Path) -> None:
        """Read the metadata; raises InputError that names `path` if the file is of another system or version, or damaged."""
        about = model.about
        require_system(about, SYSTEM, str(path))
        self._model, self._side = model, about.size
        self.name: DetectorName = detector_name(about.checkpoint)
        require_side(self.name, about.size, path)
        self.config = DetectConfig.parse(about.config, str(path))
        self.calibration = DetectorCalibration.parse(about.calibration or {}, str(path))
        self.sha256 = about.weights_sha256

    @property
    def view(self) -> ViewName:
        """Return the view that the detector sees."""
        return self.config.view

    def __call__(self, frames: Bytes) -> Detection:
        """Score frames in that view, uint8 (N, S, S, 3)."""
        seen = resize_frames_bicubic(frames, self._side)
        parts = [self._model(seen[start : start + BATCH], OUTPUTS) for start in range(0, len(seen), BATCH)]
        scores, maps = (np.concatenate([part[name] for part in parts]) for name in OUTPUTS)
        return Detection(scores, maps)
