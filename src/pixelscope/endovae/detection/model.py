"""A fitted detector and the file that `detect` writes: parameters, learned network, calibration."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.config import merge
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.endovae.anomaly.calibration import camera_counts, is_grey
from pixelscope.endovae.anomaly.heatmap import VMAX_QUANTILE
from pixelscope.endovae.detection.config import (
    LITE0,
    SYSTEM,
    UNRECORDED,
    DetectConfig,
    DetectorName,
    detector_name,
    require_side,
)
from pixelscope.endovae.detection.detectors import FITS, Detector, features_to_fit
from pixelscope.endovae.detection.features import (
    Extractor,
    LearnedExtractor,
    learned_extractor,
    pretrained_extractor,
)
from pixelscope.endovae.detection.pseudo_lesions import LesionHead, LesionNet
from pixelscope.endovae.detection.results import Detection, DetectorCalibration
from pixelscope.endovae.results import RESEARCH
from pixelscope.errors import InputError
from pixelscope.exports.metadata import Metadata, require_system
from pixelscope.exports.weights import read_weights, write_weights
from pixelscope.files import atomic_file
from pixelscope.rng import derive
from pixelscope.runs.folder import versions

NETWORK, FITTED = "network.", "fitted."
"""Prefixes of the tensors in a file."""


@dataclass(frozen=True)
class FittedDetector:
    """A detector that scores frames in a view."""

    name: DetectorName
    config: DetectConfig
    extractor: Extractor
    detector: Detector
    calibration: DetectorCalibration

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of all tensors in the file."""
        return _digest(self._tensors())

    @property
    def view(self) -> ViewName:
        """Return the view that the detector sees."""
        return self.config.view

    def __call__(self, frames: NDArray[np.uint8]) -> Detection:
        """Score frames in that view, uint8 (N, S, S, 3)."""
        return self.detector.detect(self.extractor.features(frames))

    def save(self, path: Path) -> None:
        """Write the detector to a .safetensors file, atomically; weights that an extra brings are left out."""
        with atomic_file(path) as temporary:
            write_weights(temporary, self._tensors(), self.metadata)

    @property
    def metadata(self) -> Metadata:
        """Return the metadata of a file."""
        return Metadata(
            system=SYSTEM,
            config=self.config.model_dump(mode="json"),
            checkpoint=self.name,
            images=self.config.images,
            weights_sha256=self.sha256,
            size=self.extractor.side,
            mean=0.0,
            scale=255.0,
            calibration=self.calibration.model_dump(mode="json"),
            note=RESEARCH,
            versions=versions(),
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {FITTED + name: one for name, one in self.detector.state_dict().items()}
        if self.extractor.trained is not None:
            tensors |= {NETWORK + name: one for name, one in self.extractor.trained.state_dict().items()}
        return tensors

    @classmethod
    def load(cls, path: Path) -> "FittedDetector":
        """Read a file that `save` wrote.

        Raises:
            InputError: it is damaged, of another system, or needs an extra that is not installed.
        """
        tensors, about = read_weights(path)
        require_system(about, SYSTEM, str(path))
        name = detector_name(about.checkpoint)
        require_side(name, about.size, path)
        config = DetectConfig.parse(merge(UNRECORDED, about.config), str(path))
        calibration = DetectorCalibration.parse(about.calibration or {}, str(path))
        try:
            extractor = _extractor(name, _under(NETWORK, tensors), config.mirrored)
            detector = FITS[name].from_tensors(_under(FITTED, tensors))
        except KeyError as error:
            raise InputError(
                f"{path} has no tensor {error.args[0]!r} of its detector; make it again with `pixelscope endovae detect`."
            ) from None
        except RuntimeError:
            raise InputError(
                f"{path} has other tensors than a network of this version; make it again with `pixelscope endovae detect`."
            ) from None
        return cls(name, config, extractor, detector, calibration)


def _fit_extractor(name: DetectorName, train: NDArray[np.uint8], config: DetectConfig, fold: int) -> Extractor:
    """Return the extractor of a detector's features, and train on healthy frames, uint8 (N, S, S, 3), what it needs."""
    if name not in LITE0:
        return learned_extractor(train, config.images, config.seed, fold)
    pretrained = pretrained_extractor(mirrored=config.mirrored and FITS[name].uses_pooled)
    return pretrained.trained_on(train, config.images, config.seed, fold) if FITS[name].uses_lesion_maps else pretrained


def fit_detector(
    name: DetectorName, train: NDArray[np.uint8], calibration: NDArray[np.uint8], sizes: NDArray[np.int64], config: DetectConfig
) -> FittedDetector:
    """Fit a detector to healthy frames, and calibrate it on others.

    Args:
        name: name of the detector.
        train: frames in the configured view to fit to, uint8 (N, S, S, 3).
        calibration: frames in the same view to calibrate on, of the same shape.
        sizes: original widths and heights of the calibration frames, (N, 2).
        config: settings of the detector.
    """
    extractor = _fit_extractor(name, train, config, config.folds)
    seed = derive(config.seed, "fold", config.folds)
    detector = FITS[name].fit(features_to_fit([name], extractor, extractor.features(train), train, seed), config.seed)
    known = detector.detect(extractor.features(calibration))
    brightest = float(np.quantile(known.maps, VMAX_QUANTILE))
    found = DetectorCalibration(
        scores=tuple(np.sort(known.scores).tolist()),
        vmax=brightest,
        cameras=camera_counts(sizes),
        grey=sum(map(is_grey, calibration)),
    )
    return FittedDetector(name, config, extractor, detector, found)


def _extractor(name: DetectorName, tensors: Mapping[str, torch.Tensor], mirrored: bool) -> Extractor:
    """Return the extractor of a detector from the tensors of what was trained."""
    if name not in LITE0:
        network = LesionNet()
        network.load_state_dict(tensors)
        return LearnedExtractor(network.eval())
    mirrored = mirrored and FITS[name].uses_pooled
    if not FITS[name].uses_lesion_maps:
        return pretrained_extractor(mirrored=mirrored)
    head = LesionHead()
    head.load_state_dict(tensors)
    return pretrained_extractor(head.eval(), mirrored)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
