"""A classifier in a file that `export` made; importing this imports no torch, and an ONNX file needs none."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.exchange.about import About, require_system
from pixelscope.exchange.onnx_file import OnnxModel
from pixelscope.pixelda.config import DataConfig
from pixelscope.pixelda.model import ClassifierModel

PROBABILITIES = "probabilities"


def open_exported(path: Path, devices: int = 1) -> ClassifierModel:
    """Open an exported classifier; raises InputError where the file cannot be used."""
    if path.suffix.lower() == ".onnx":
        return OnnxClassifier(path, devices)
    if path.suffix.lower() == ".safetensors":
        from pixelscope.pixelda.torch_model import TorchClassifier

        return TorchClassifier.of_file(path, devices)
    raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")


def data_config(about: About, origin: str) -> DataConfig:
    """Return the settings by which the images of an exported classifier are read."""
    return DataConfig.parse(about.config.get("data", {}), origin)


class OnnxClassifier:
    """T of an ONNX file; see `ClassifierModel`."""

    def __init__(self, path: Path, devices: int = 1) -> None:
        if devices != 1:
            raise InputError(f"{path} runs on the cores of this machine; drop --devices, or give the run folder.")
        self._model, self.devices = OnnxModel(path), 1
        about = self._model.about
        require_system(about, "pixelda", str(path))
        self.classes, self.size, self.identity = about.classes, about.size, {"model": about.fingerprint}
        self.value_range = data_config(about, str(path)).input_values

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 images (N, H, W, 3)."""
        return np.asarray(self._model(images, [PROBABILITIES])[PROBABILITIES], np.float32)
