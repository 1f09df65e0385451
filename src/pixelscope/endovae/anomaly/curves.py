"""Area under the ROC curve and average precision of scores, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelscope.endovae.results import Interval, ScoreSeparation

Values = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
_DRAWS = 50_000_000
"""Frames drawn in all resamples together at most: of more than 25,000 frames there are fewer resamples, 100 at least."""
_HELD = 1_000_000
"""Frames drawn that are held in memory at a time, about."""


def separation(normal: ArrayLike, abnormal: ArrayLike, seed: int = 0) -> ScoreSeparation:
    """Return AUROC and average precision of scores, higher for abnormal, with 95% percentile bootstrap intervals.

    Frames are drawn with replacement within each kind, `RESAMPLES` times (less often of very many). Equal scores count half
    in the AUROC, and are taken together in the average precision, sum over thresholds of (recall step) x precision.
    """
    ranking = _Ranking.of(normal, abnormal)
    resamples = max(100, min(RESAMPLES, _DRAWS // ranking.total))
    at_once = max(1, min(resamples, _HELD // ranking.total))
    rng = np.random.default_rng(seed)
    drawn = [ranking.areas(ranking.resampled(rng, at_once)) for _ in range(-(-resamples // at_once))]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    found = ranking.areas(np.ones((1, ranking.total)))[0]
    auroc, precision = (Interval(value=float(found[i]), low=float(low[i]), high=float(high[i])) for i in range(2))
    return ScoreSeparation(auroc=auroc, average_precision=precision)


def auroc(normal: ArrayLike, abnormal: ArrayLike) -> float:
    """Return the area under the ROC curve alone."""
    ranking = _Ranking.of(normal, abnormal)
    return float(ranking.areas(np.ones((1, ranking.total)))[0, 0])


def best_dice(scores: ArrayLike, inside: ArrayLike) -> float:
    """Return the best Dice coefficient that any one threshold on all pixels' scores reaches: an optimist's number.

    scores: (N,); inside: bool (N,), True in a lesion. Pixels of equal scores are taken together.
    """
    values, truth = np.asarray(scores), np.asarray(inside, bool)
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(truth[order])[ends]
    return float((2 * hits / (ends + 1 + max(int(truth.sum()), 1))).max())


@dataclass(frozen=True)
class _Ranking:
    """Frames, the normal ones first, in the order of their scores."""

    normal: int
    order: NDArray[np.int64]
    """Positions of the frames, highest score first."""
    ends: NDArray[np.int64]
    """Where each run of equal scores ends in that order."""

    @classmethod
    def of(cls, normal: ArrayLike, abnormal: ArrayLike) -> "_Ranking":
        scores = np.concatenate([np.asarray(normal, np.float64), np.asarray(abnormal, np.float64)])
        order = np.argsort(-scores, kind="stable")
        return cls(len(np.asarray(normal)), order, np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)))

    @property
    def total(self) -> int:
        return len(self.order)

    def resampled(self, rng: np.random.Generator, times: int) -> Values:
        """Return how often each frame is drawn in each of `times` resamples, (times, N)."""
        kinds = (self.normal, self.total - self.normal)
        drawn = [rng.multinomial(count, np.full(count, 1 / count), size=times) for count in kinds]
        return np.concatenate(drawn, axis=1).astype(np.float64)

    def areas(self, weights: Values) -> Values:
        """Return AUROC and average precision, (B, 2), of frames counted by `weights` (B, N)."""
        abnormal = self.order >= self.normal
        ranked = weights[:, self.order]
        hits = np.cumsum(ranked * abnormal, axis=1)[:, self.ends]
        alarms = np.cumsum(ranked * ~abnormal, axis=1)[:, self.ends]
        new_hits, new_alarms = np.diff(hits, axis=1, prepend=0), np.diff(alarms, axis=1, prepend=0)
        area = (new_alarms * (hits - new_hits / 2)).sum(1) / (hits[:, -1] * alarms[:, -1])
        precision = hits / np.maximum(hits + alarms, 1)
        return np.stack([area, (new_hits * precision).sum(1) / hits[:, -1]], axis=1)
