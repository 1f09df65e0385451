"""A trained classifier, from a run folder or an exported file, as a function of images; importing this imports no torch."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class ClassifierModel(Protocol):
    """What images are classified with."""

    classes: tuple[str, ...]
    size: int
    """Side in pixels of the images that it is called with."""
    value_range: tuple[float, float] | None
    """Values that become black and white in files deeper than 8 bits, as in its training; None reads them by their type."""
    identity: dict[str, str]
    """What tells it from other models, by name."""
    devices: int
    """How many threads may call it at a time."""

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        ...


def open_classifier(path: Path, rule: str = "auto", devices: int = 1) -> ClassifierModel:
    """Open a run folder of `pixelda train` or `pixelda baseline`, or a file that `export` made of one.

    Raises InputError where `path` is neither, or cannot be used.
    """
    if path.is_file():
        from pixelscope.pixelda.exported import open_exported

        return open_exported(path, devices)
    from pixelscope.pixelda.torch_model import TorchClassifier

    return TorchClassifier.of_run(path, rule, devices)
