"""What scores are judged by, stored with the weights: how healthy frames that were not trained on have scored."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, FiniteFloat

from pixelscope.config import Config
from pixelscope.endovae.anomaly.statistics import conformal_p, mahalanobis, tie_tolerance
from pixelscope.errors import InputError
from pixelscope.runs.record import ResultFile

FILE = "calibration.json"
RATE = 0.05
"""Share of healthy frames that may be flagged, where nothing else is asked for."""
RIDGE = 1e-6
"""Added to the diagonal of the latent covariance, as a share of its mean: a dimension that is never used has none."""

Values = NDArray[np.float64]


class GaussianReference(Config):
    """Where the posterior means of the training frames lie."""

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """Inverse of their covariance."""

    @classmethod
    def fit(cls, means: ArrayLike) -> "GaussianReference":
        """Describe posterior means (N, latent); raises InputError for fewer than two, which have no covariance."""
        rows = np.asarray(means, np.float64)
        if len(rows) < 2:
            raise InputError(f"{len(rows)} frames are too few to say where frames like them lie; give 2 or more.")
        covariance = np.atleast_2d(np.cov(rows.T))
        ridge = RIDGE * max(float(np.trace(covariance)) / len(covariance), RIDGE)
        precision = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        return cls(mean=tuple(rows.mean(0).tolist()), precision=tuple(map(tuple, precision.tolist())))

    def distance(self, means: ArrayLike) -> Values:
        """Return the Mahalanobis distance of posterior means (N, latent), float64 (N,)."""
        return mahalanobis(means, self.mean, self.precision)


class Calibration(ResultFile):
    """Scores of held-out healthy frames, and what turns a new frame's measures into comparable ones."""

    version: Literal[1] = 1
    rule: str
    """The checkpoint rule whose weights were calibrated."""
    images: int
    """Images that these weights had seen."""
    weights: str = ""
    """SHA-256 of these weights; empty in a calibration of an older version."""
    count: int
    """Healthy frames of the validation split that it was made from."""
    chosen: str
    """The score used where none is asked for."""
    choice: dict[str, float]
    """AUROC of every score on the validation split, by which it was chosen; empty where there are no abnormal frames."""
    choice_counts: dict[str, int]
    """Frames of each kind that it was chosen on."""
    latent: GaussianReference
    spread: dict[str, tuple[float, float]]
    """Mean and standard deviation of the logarithm of each measure."""
    heat: float
    """Smoothed squared error at which a heat map is at its brightest; see `heat.hottest`."""
    scores: dict[str, Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]]
    """Of the calibration frames, ascending, by score."""

    def p_values(self, name: str, values: ArrayLike) -> Values:
        """Return the p-value of each score by `conformal_p`."""
        return conformal_p(self.scores[name], values)

    def threshold(self, name: str, rate: float) -> float:
        """Return the score above which a frame is flagged at a false-positive rate: there its p-value is at most `rate`.

        Raises InputError where the calibration has too few frames to tell so small a rate.
        """
        known = self.scores[name]
        allowed = int(np.floor(rate * (1 + len(known)) + 1e-9)) - 1
        if allowed < 0:
            raise InputError(
                f"A false-positive rate of {rate:g} needs at least {int(np.ceil(1 / rate)) - 1} calibration frames and there "
                f"are {len(known)}; ask for {1 / (1 + len(known)):.3g} or more."
            )
        return known[len(known) - 1 - allowed] + tie_tolerance(known)

    def require(self, name: str) -> str:
        """Return the score to use for `name`, `auto` for the chosen one; raises InputError where there is no such score."""
        wanted = self.chosen if name == "auto" else name
        if wanted not in self.scores:
            raise InputError(f"There is no anomaly score {name!r}; choose one of {', '.join(self.scores)}.")
        return wanted


def read_calibration(path: Path) -> Calibration:
    """Read a run's calibration; raises InputError where there is none, or it is damaged or of another version."""
    if not path.is_file():
        run = path.parent.parent
        raise InputError(f"There is no calibration in {run}; make one with `pixelscope endovae evaluate {run}`.")
    return Calibration.load(path)
