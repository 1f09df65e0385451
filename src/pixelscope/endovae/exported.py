"""An EndoVAE in a file that `export` made; importing this imports no torch, and an ONNX file needs none."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.scores import Maps
from pixelscope.endovae.model import ScoringModel
from pixelscope.errors import InputError
from pixelscope.exchange.about import About, require_system
from pixelscope.exchange.onnx_file import OnnxModel
from pixelscope.imaging.config import PrepareConfig

MAPS = ("error", "dissimilarity", "kl", "mean")
"""The outputs that scores are made of, as `Maps` names them."""


def open_exported(path: Path, devices: int = 1) -> ScoringModel:
    """Open an exported model; raises InputError where the file cannot be used."""
    if path.suffix.lower() == ".onnx":
        return OnnxScorer(path, devices)
    if path.suffix.lower() == ".safetensors":
        from pixelscope.endovae.trained import TorchScorer

        return TorchScorer.of_file(path, devices)
    raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")


def told(about: About, origin: str) -> tuple[PrepareConfig, Calibration]:
    """Return how frames are prepared for an exported model, and its calibration; raises InputError where either is missing."""
    require_system(about, "endovae", origin)
    prepare: dict[str, Any] = about.config.get("prepare", {})
    return PrepareConfig.parse(prepare, origin), Calibration.parse(about.calibration or {}, origin)


class OnnxScorer:
    """Encoder and decoder of an ONNX file; see `ScoringModel`."""

    def __init__(self, path: Path, devices: int = 1) -> None:
        if devices != 1:
            raise InputError(f"{path} runs on the cores of this machine; drop --devices, or give the run folder.")
        self._model, self.devices = OnnxModel(path), 1
        self.prepare, self.calibration = told(self._model.about, str(path))
        self.identity = {"model": self._model.about.fingerprint}

    def __call__(self, frames: NDArray[np.uint8]) -> Maps:
        """Return what the networks make of uint8 frames (N, S, S, 3)."""
        return Maps(**self._model(frames, MAPS))
