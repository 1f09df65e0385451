"""Anomaly scores: functions of one frame and a stored calibration; higher means less like healthy frames.

Nothing here needs torch: the outputs of the networks arrive as arrays, from any runtime.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.frames.preprocess import ViewName, centre_box
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.insets import tissue_mask

Values = NDArray[np.float64]

SCORES = {
    "mse": "mean squared error over the whole frame, insets and border included",
    "mse_no_overlay": "mean squared error outside insets",
    "mse_tissue": "mean squared error on tissue: without insets, border and glints",
    "dssim_tissue": "1 - SSIM, averaged over tissue",
    "mahalanobis": "Mahalanobis distance of the posterior mean from those of the training frames",
    "mse_tissue+kl": "sum of log mse_tissue and log KL divergence, each standardized on healthy validation frames",
    "mse_no_overlay+mahalanobis": "sum of log mse_no_overlay and log mahalanobis, standardized likewise",
}
"""Definition of every score. On the view `centre`, errors are those inside the centre square of the prepared frame.
`mahalanobis` and the KL divergence are of the whole frame on every view, because the encoder sees it whole."""

NEVER_SELECTED: dict[ViewName, frozenset[str]] = {
    "full": frozenset({"mse"}),
    "centre": frozenset({"mse", "mahalanobis", "mse_tissue+kl", "mse_no_overlay+mahalanobis"}),
}
"""Scores shown for comparison only. Overlays drawn by the device distinguish data sets and say nothing about tissue. On the
view `centre`, a score of the latent vector would bring in the border and insets that the view leaves out."""
COMBINED_SCORES = {"mse_tissue+kl": ("mse_tissue", "kl"), "mse_no_overlay+mahalanobis": ("mse_no_overlay", "mahalanobis")}
"""The scores that are sums of two raw scores."""
EPSILON = 1e-12
"""Minimum value before a logarithm, and minimum standard deviation."""
MIN_TISSUE = 0.01
"""Fraction of a frame that must show tissue: a mean over fewer pixels is noise."""
NO_TISSUE = "no tissue is seen (too dark, too bright, of one colour, or covered by insets), so that there is no score"
NOT_FINITE = "the outputs of the model are not finite, so that there is no score"


@dataclass(frozen=True)
class ErrorMaps:
    """Outputs of the networks for N frames of side S; float32 arrays."""

    error: NDArray[np.float32]
    """(N, S, S): squared error of the reconstruction, mean over channels in [0, 1]."""
    dissimilarity: NDArray[np.float32]
    """(N, S - 10, S - 10): 1 - SSIM where the whole window lies inside the frame, mean over channels."""
    kl: NDArray[np.float32]
    """(N, latent): nats per dimension."""
    mean: NDArray[np.float32]
    """(N, latent): posterior mean."""

    @classmethod
    def join(cls, parts: Sequence["ErrorMaps"]) -> Self:
        """Return the outputs of several batches as one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Return the frames of which all outputs are finite, bool (N,)."""
        outputs = (self.error, self.dissimilarity, self.kl, self.mean)
        return np.all([np.isfinite(one).reshape(len(one), -1).all(1) for one in outputs], axis=0)


def raw_scores(
    maps: ErrorMaps,
    frames: NDArray[np.uint8],
    insets: NDArray[np.bool_],
    latent: GaussianReference,
    view: ViewName = "full",
) -> dict[str, Values]:
    """Return the single scores and the KL divergence, before any combination.

    Args:
        maps: outputs of the networks.
        frames: the frames, uint8 (N, S, S, 3).
        insets: bool (N, S, S).
        latent: Gaussian of the posterior means of the training frames.
        view: where errors are averaged; see `SCORES`.

    Returns:
        float64 (N,) by name; NaN for a frame without visible tissue in the view, infinite for one whose outputs are not finite.
    """
    square = view_box(maps.error.shape[1], view)
    windows = _windows(square, (maps.error.shape[1] - maps.dissimilarity.shape[1]) // 2)
    tissue = tissue_mask(frames, insets)
    inner = _middles(tissue, maps.dissimilarity.shape[1])[windows]
    seen, error = tissue[(slice(None), *square.slices)], maps.error[(slice(None), *square.slices)]
    visible = (seen.mean((1, 2)) >= MIN_TISSUE) & inner.any((1, 2))
    with np.errstate(invalid="ignore"):  # outputs that are not finite
        found = {
            "mse": error.mean((1, 2), dtype=np.float64),
            "mse_no_overlay": masked_mean(error, ~insets[(slice(None), *square.slices)]),
            "mse_tissue": masked_mean(error, seen),
            "dssim_tissue": masked_mean(maps.dissimilarity[windows], inner),
            "mahalanobis": latent.distance(maps.mean),
            "kl": maps.kl.sum(1, dtype=np.float64),
        }
    missing = np.where(visible, np.inf, np.nan)
    return {name: np.where(visible & maps.finite, values, missing) for name, values in found.items()}


def shows_tissue(frames: NDArray[np.uint8], insets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which frames, uint8 (N, S, S, 3), show enough tissue for a detector's score, bool (N,).

    insets: bool (N, S, S).
    """
    return tissue_mask(frames, insets).mean((1, 2)) >= MIN_TISSUE


def view_box(side: int, view: ViewName) -> Box:
    """Return the square of a prepared frame of `side` pixels that a view shows."""
    whole = Box(0, 0, side, side)
    return centre_box(whole) if view == "centre" else whole


def _windows(square: Box, margin: int) -> tuple[slice, slice, slice]:
    """Return the part of SSIM maps (N, S - 2 margin, S - 2 margin) whose windows lie inside a square of the frame.

    A square smaller than two windows, in frames of under 48 pixels, has those whose middle lies inside.
    """
    if square.height >= 2 * (2 * margin + 1):
        length, top, left = square.height - 2 * margin, square.top, square.left
    else:
        length, top, left = square.height, square.top - margin, square.left - margin
    rows, columns = (slice(max(0, start), start + length) for start in (top, left))
    return slice(None), rows, columns


def _middles(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return a mask (N, S, S) at the middles of the windows of maps (N, side, side)."""
    margin = (mask.shape[1] - side) // 2
    return mask[:, margin : margin + side, margin : margin + side]


def scores(raw: Mapping[str, Values], log_spreads: Mapping[str, tuple[float, float]]) -> dict[str, Values]:
    """Return every score of `SCORES`, float64 (N,); NaN or infinite where `raw` is.

    Args:
        raw: see `raw_scores`.
        log_spreads: mean and standard deviation of the logarithm of each raw score on healthy validation frames.
    """
    combined = {
        name: np.add(*(standardized(raw[part], log_spreads[part]) for part in parts), dtype=np.float64)
        for name, parts in COMBINED_SCORES.items()
    }
    return {name: combined[name] if name in combined else raw[name] for name in SCORES}


def why_unscored(value: float) -> str:
    """Return why a frame has no score, by the value in its place: NaN or infinite."""
    return NO_TISSUE if np.isnan(value) else NOT_FINITE


def count_unscored(values: Values) -> str:
    """Return why frames have no score, with their number per reason; `values` are given instead of scores, (N,)."""
    counts = {"no tissue is visible": np.isnan(values), "the outputs of the model are not finite": np.isinf(values)}
    return "; ".join(f"{reason}: {rows.sum():,}" for reason, rows in counts.items() if rows.any())


def standardized(values: Values, spread: tuple[float, float]) -> Values:
    """Return (log values - mean) / standard deviation, both given in `spread`."""
    mean, std = spread
    return (np.log(np.maximum(values, EPSILON)) - mean) / std


def log_spread(values: Values) -> tuple[float, float]:
    """Return mean and standard deviation of the logarithm of `values`; the deviation is never 0."""
    logarithms = np.log(np.maximum(values, EPSILON))
    return float(logarithms.mean()), max(float(logarithms.std()), EPSILON)


def masked_mean(values: NDArray[np.float32], valid_mask: NDArray[np.bool_]) -> Values:
    """Return the mean of `values` (N, H, W) over the valid pixels, shape (N,); NaN where there is none."""
    total, count = (values * valid_mask).sum((1, 2), dtype=np.float64), valid_mask.sum((1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
