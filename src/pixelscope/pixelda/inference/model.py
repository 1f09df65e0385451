"""A trained classifier, from a run folder or an exported file, as a function of images; importing this imports no torch."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.exports.metadata import require_system
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.pixelda.config import exported_data

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
PROBABILITIES = "probabilities"


class ClassifierModel(Protocol):
    """What images are classified with."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels of the images that it is called with."""
        ...

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values that become black and white in files deeper than 8 bits, as in training; None reads them by their type."""
        ...

    @property
    def devices(self) -> int:
        """How many threads may call it at a time."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """What identifies it among models, by name."""
        ...

    def prepare(self) -> None:
        """Copy the networks to the devices, before several threads call it; raises InputError if there are fewer."""
        ...

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        ...


def load_classifier(path: Path, checkpoint: str = "auto", devices: int = 1) -> ClassifierModel:
    """Return the classifier of a run of PixelDA, its baseline or a refinement, or of a file that `export` made of one.

    Args:
        path: a finished run, whose networks run in torch, or a file ending in .onnx, which needs no torch, or .safetensors.
        checkpoint: which weights of a run; see `evaluate`. An unfinished run is used only where one is named.
        devices: GPUs, or without one threads, that compute.

    Returns:
        A function of uint8 images (N, size, size, 3) that returns probabilities (N, classes).

    Raises:
        InputError: `path` is neither, or cannot be used.

    Example:
        >>> model = pixelscope.pixelda.load_classifier(Path("runs/00000-pixelda-mnist-to-mnist-m-seed0"))
        >>> labels = [model.classes[best] for best in model(images).argmax(1)]
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".onnx":
        return OnnxClassifier(path, devices)
    if path.is_file() and suffix != ".safetensors":
        raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")
    from pixelscope.pixelda.inference.torch_model import TorchClassifier

    return TorchClassifier.from_file(path, devices) if path.is_file() else TorchClassifier.from_run(path, checkpoint, devices)


class OnnxClassifier:
    """T of an ONNX file; see `ClassifierModel`."""

    def __init__(self, path: Path, devices: int = 1) -> None:
        if devices != 1:
            raise InputError(f"{path} runs on the cores of this machine; drop --devices, or give the run folder.")
        self._model, self.devices = OnnxModel(path), 1
        about = self._model.about
        require_system(about, "pixelda", str(path))
        self.classes, self.size, self.identity = about.classes, about.size, {"model": about.weights_sha256}
        self.value_range = exported_data(about.config, str(path)).input_values

    def prepare(self) -> None:
        """Do nothing: the file is read already."""

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) of uint8 images (N, H, W, 3)."""
        return np.asarray(self._model(images, [PROBABILITIES])[PROBABILITIES], np.float32)
