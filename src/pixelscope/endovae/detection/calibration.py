"""Scores of a detector, and those of healthy frames that they are compared with; imports no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from pixelscope.config import Config, Natural
from pixelscope.endovae.anomaly.calibration import CameraCount, ViewCalibration
from pixelscope.endovae.detection.config import DetectorName


@dataclass(frozen=True)
class Detection:
    """Scores of N frames, and the maps that they summarise."""

    scores: NDArray[np.float64]
    """(N,); higher is less like the healthy frames."""
    maps: NDArray[np.float32]
    """(N, h, w): the score of each position."""


class DetectorCalibration(Config):
    """Scores of healthy frames that the detector was not fitted to."""

    scores: tuple[FiniteFloat, ...] = Field(min_length=1)
    """Ascending."""
    vmax: float
    """Value at which a map is brightest."""
    cameras: tuple[CameraCount, ...]
    """Number of these frames by original size."""
    grey: Natural | None = None
    """Number of these frames without colour; None in files that do not say it."""

    def of_view(self, name: DetectorName) -> ViewCalibration:
        """Return the calibration of the one score of the detector `name` in its one view."""
        return ViewCalibration(
            selected=name, selection_auroc={}, selection_counts={}, log_spreads={}, scores={name: self.scores}
        )
