"""Load a classifier from a run folder or an exported file; importing this imports no torch."""

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
    """A classifier of images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in output order."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels of its input."""
        ...

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values mapped to black and white in files deeper than 8 bits, as in training; None uses the range of their type."""
        ...

    @property
    def devices(self) -> int:
        """Number of threads that may call it at a time."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """Identity of the model, for resumable tables."""
        ...

    def prepare(self) -> None:
        """Copy the networks to the devices, before several threads call it; raises InputError if there are fewer."""
        ...

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) for uint8 images (N, size, size, 3)."""
        ...


def load_classifier(path: Path, checkpoint: str = "auto", devices: int = 1) -> ClassifierModel:
    """Return the classifier of a run of PixelDA, its baseline or a refinement, or of an exported file.

    Args:
        path: a finished run, which needs torch; or a file ending in .onnx, which does not, or .safetensors.
        checkpoint: which weights of a run; see `evaluate`. An unfinished run is used only if one is named.
        devices: number of GPUs, or without a GPU of threads.

    Returns:
        A function from uint8 images (N, size, size, 3) to probabilities (N, classes).

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
        """Return probabilities (N, classes) for uint8 images (N, H, W, 3)."""
        return np.asarray(self._model(images, [PROBABILITIES])[PROBABILITIES], np.float32)
