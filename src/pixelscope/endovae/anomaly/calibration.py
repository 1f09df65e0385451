"""The calibration of anomaly scores, stored next to the weights: scores of healthy frames that were not trained on."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, FiniteFloat

from pixelscope.endovae.anomaly.statistics import GaussianReference, conformal_p, tie_tolerance
from pixelscope.errors import InputError
from pixelscope.runs.record import ResultFile

FILE = "calibration.json"
RATE = 0.05
"""Default false-positive rate."""


class Calibration(ResultFile):
    """Scores of healthy validation frames, and the statistics that make scores of new frames comparable."""

    version: Literal[3] = 3
    checkpoint: str
    """Name of the calibrated checkpoint."""
    images: int
    """Images seen at that checkpoint."""
    weights_sha256: str
    count: int
    """Number of calibration frames."""
    selected: str
    """The default score."""
    selection_auroc: dict[str, float]
    """AUROC of every score on the validation frames, by which it was selected; empty without abnormal frames."""
    selection_counts: dict[str, int]
    """Number of these frames by kind."""
    latent: GaussianReference
    """Of the posterior means of the training frames."""
    log_spreads: dict[str, tuple[float, float]]
    """Mean and standard deviation of the logarithm of each raw score that is combined."""
    vmax: float
    """Smoothed squared error at which a heat map is brightest; see `heatmap.heatmap_vmax`."""
    scores: dict[str, Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]]
    """Scores of the calibration frames, ascending."""

    def p_values(self, name: str, values: ArrayLike) -> NDArray[np.float64]:
        """Return the p-values of scores; see `conformal_p`."""
        return conformal_p(self.scores[name], values)

    def threshold(self, name: str, rate: float) -> float:
        """Return the score above which a frame is flagged at a false-positive rate; its p-value is at most `rate`.

        Raises:
            InputError: the calibration has too few frames for so small a rate.
        """
        known = self.scores[name]
        allowed = int(np.floor(rate * (1 + len(known)) + 1e-9)) - 1
        if allowed < 0:
            raise InputError(
                f"A false-positive rate of {rate:g} needs at least {int(np.ceil(1 / rate)) - 1} calibration frames, and there "
                f"are {len(known)}; use {1 / (1 + len(known)):.3g} or more."
            )
        return known[len(known) - 1 - allowed] + tie_tolerance(known)

    def require(self, name: str) -> str:
        """Return the score called `name`, the selected one for `auto`.

        Raises:
            InputError: there is no such score.
        """
        wanted = self.selected if name == "auto" else name
        if wanted not in self.scores:
            raise InputError(f"There is no anomaly score {name!r}; choose one of {', '.join(self.scores)}.")
        return wanted


def read_calibration(path: Path) -> Calibration:
    """Read the calibration of a run.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    if not path.is_file():
        run = path.parent.parent
        raise InputError(f"There is no calibration in {run}; make one with `pixelscope endovae evaluate {run}`.")
    return Calibration.load(path)
