"""A trained EndoVAE, from a run folder or an exported file, as a function of frames; importing this imports no torch."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.scores import Maps
from pixelscope.imaging.config import PrepareConfig


class ScoringModel(Protocol):
    """What frames are scored with."""

    prepare: PrepareConfig
    """How frames are prepared before it is called with them."""
    calibration: Calibration
    identity: dict[str, str]
    """What tells it from other models, by name."""
    devices: int
    """How many threads may call it at a time."""

    def __call__(self, frames: NDArray[np.uint8]) -> Maps:
        """Return what the networks make of uint8 frames (N, S, S, 3)."""
        ...


def open_scorer(path: Path, rule: str = "auto", devices: int = 1) -> ScoringModel:
    """Open a run folder of `endovae train`, or a file that `export` made of one.

    Raises InputError where `path` is neither, has no calibration, or cannot be used.
    """
    if path.is_file():
        from pixelscope.endovae.exported import open_exported

        return open_exported(path, devices)
    from pixelscope.endovae.trained import TorchScorer

    return TorchScorer.of_run(path, rule, devices)
