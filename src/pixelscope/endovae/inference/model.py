"""Loads a trained EndoVAE, from a run folder or an exported file, to score frames; importing this imports no torch."""

from pathlib import Path
from typing import Protocol

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.inference.metadata import Bytes, read_metadata
from pixelscope.errors import InputError
from pixelscope.exports.metadata import refuse_checkpoint
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.imaging.config import PrepareConfig

MAPS = ("error", "dissimilarity", "kl", "mean")
"""Outputs that scores are computed from: the fields of `ErrorMaps`."""


class ScoringModel(Protocol):
    """A model that scores are computed with."""

    prepare: PrepareConfig
    """Settings to prepare frames with."""
    calibration: Calibration
    devices: int
    """Maximum number of threads that call it at a time."""

    @property
    def identity(self) -> dict[str, str]:
        """Named values that identify the model."""
        ...

    def __call__(self, frames: Bytes) -> ErrorMaps:
        """Return the error maps of uint8 frames (N, S, S, 3); raises InputError for others."""
        ...


class OnnxScorer:
    """Encoder and decoder of an ONNX file; see `ScoringModel`."""

    def __init__(self, model: OnnxModel, path: Path, devices: int = 1) -> None:
        """Read the metadata; raises InputError that names `path` if the file is of another system or damaged."""
        if devices != 1:
            raise InputError(f"{path} runs on the CPU; leave out --devices, or give the run folder.")
        # A second batch keeps the cores busy where the first has work for one of them only.
        self._model, self.devices = model, 2
        self.prepare, self.calibration = read_metadata(model.about, str(path))
        self.identity = {"model": model.about.weights_sha256}

    def __call__(self, frames: Bytes) -> ErrorMaps:
        """Return the error maps of uint8 frames (N, S, S, 3)."""
        return ErrorMaps(**self._model(frames, MAPS))


def load_scorer(path: Path, checkpoint: str = "auto", devices: int = 1) -> ScoringModel:
    """Open a run folder of EndoVAE, or a file made by `export`; only an ONNX file works without torch.

    Args:
        path: the run folder or the file.
        checkpoint: which weights of a run folder; see `load_checkpoint`.
        devices: number of GPUs, or of CPU threads if there is no GPU.

    Raises:
        InputError: `path` is neither a run nor an exported file, or has no calibration.

    Example:
        >>> scorer = pixelscope.endovae.load_scorer(Path("healthy.onnx"))
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_file():
        refuse_checkpoint(path, checkpoint)
    if path.is_file() and suffix == ".onnx":
        return OnnxScorer(OnnxModel(path), path, devices)
    if path.is_file() and suffix != ".safetensors":
        raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")
    from pixelscope.endovae.inference.torch_model import TorchScorer

    return TorchScorer.from_file(path, devices) if path.is_file() else TorchScorer.from_run(path, checkpoint, devices)
