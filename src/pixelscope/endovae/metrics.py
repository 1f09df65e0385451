"""Metrics of reconstructions and scores: PSNR, SSIM, energy by frequency, error regions, AUROC, average precision, Dice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from pixelscope.endovae.results import Interval, ScoreSeparation
from pixelscope.errors import InputError, plural
from pixelscope.imaging.insets import BORDER, GLINT, LUMA, touching_edge

Values = NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window of SSIM, in pixels."""
K1, K2 = 0.01, 0.03
"""Wang's constants."""
SSIM_METHOD = (
    "Wang et al. 2004: Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, data range 1; mean over channels and valid pixels"
)

REGIONS = ("tissue", "lumen", "glints", "inset", "border")
FINE = 0.25
"""Fraction of the Nyquist frequency from which detail counts as fine."""
DARK = 0.30
"""Brightness below which a pixel is dark."""

RESAMPLES = 2000
LEVEL = 0.95
_MAX_DRAWS = 50_000_000
"""Maximum number of frames drawn over all resamples: above 25,000 frames there are fewer resamples, at least 100."""
_MAX_CHUNK = 1_000_000
"""Approximate number of drawn frames held in memory at a time."""


@dataclass(frozen=True)
class PixelMaps:
    """Per pixel, how images and their reconstructions differ; both float32."""

    error: Tensor
    """(N, S, S): squared error, mean over channels."""
    dissimilarity: Tensor
    """(N, S - 10, S - 10): see `Dissimilarity`."""

    def quality(self, valid_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return `psnr` in dB for a peak of 1, `ssim` by `SSIM_METHOD`, and `squared_error` per image, (N,), by name.

        SSIM averages the positions where the whole window lies inside the image, as Wang's code and scikit-image do. An ignored
        pixel is excluded from the average, but windows next to it still see it.

        Args:
            valid_mask: (N, 1, S, S), 0 where a pixel is ignored.

        Returns:
            NaN for an image without a valid pixel; the PSNR of equal images is infinite.
        """
        error = _mean(self.error, valid_mask)
        similarity = 1 - _mean(self.dissimilarity, ssim_mask(valid_mask))
        return {"psnr": -10 * error.log10(), "ssim": similarity, "squared_error": error}


def pixel_maps(images: Tensor, reconstructions: Tensor) -> PixelMaps:
    """Compare images with their reconstructions per pixel; both float (N, 3, S, S) in [0, 1]."""
    return PixelMaps((images - reconstructions).square().mean(1), Dissimilarity(images.shape[-1])(images, reconstructions))


class Dissimilarity(nn.Module):
    """Map of 1 - SSIM between two batches of images, wherever the whole window lies inside the image.

    Computed in double precision: in single precision E[x^2] - E[x]^2 loses digits where a frame is bright, up to 1e-3 per
    pixel, too much for two runtimes to agree. The blur is a product with one matrix per axis, which every runtime supports in
    double precision.
    """

    blur: Tensor

    def __init__(self, size: int) -> None:
        """Build the blur for images of side `size`, at least 11."""
        super().__init__()
        distances = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        line = torch.exp(-(distances**2) / (2 * SIGMA**2))
        rows = size - WINDOW + 1
        blur = torch.zeros(rows, size, dtype=torch.float64)
        for row in range(rows):
            blur[row, row : row + WINDOW] = line / line.sum()
        self.register_buffer("blur", blur, persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return float32 (N, S - 10, S - 10), the mean over channels, for images (N, C, S, S) in [0, 1]."""
        one, other = one.double(), other.double()
        mean_one, mean_other = self._blurred(one), self._blurred(other)
        variances = self._blurred(one * one + other * other) - mean_one**2 - mean_other**2
        covariance = self._blurred(one * other) - mean_one * mean_other
        luminance = (2 * mean_one * mean_other + K1**2) / (mean_one**2 + mean_other**2 + K1**2)
        structure = (2 * covariance + K2**2) / (variances + K2**2)
        return (1 - (luminance * structure).mean(1)).float()

    def _blurred(self, images: Tensor) -> Tensor:
        return self.blur @ images @ self.blur.T


def ssim_mask(valid_mask: Tensor | None) -> Tensor | None:
    """Return the part of a mask (N, 1, S, S) where the whole window of SSIM lies inside the image."""
    margin = WINDOW // 2
    return None if valid_mask is None else valid_mask[..., margin:-margin, margin:-margin]


def _mean(values: Tensor, valid_mask: Tensor | None) -> Tensor:
    """Return the mean over the valid pixels of `values` (N, H, W), shape (N,); NaN where there is none."""
    if valid_mask is None:
        return values.mean((1, 2))
    valid = valid_mask[:, 0]
    return (values * valid).sum((1, 2)) / valid.sum((1, 2))


def brightness(images: Tensor) -> Tensor:
    """Return (N, H, W) in [0, 1] for images (N, 3, H, W) in [0, 1]."""
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA, dtype=images.dtype, device=images.device))


def spectrum(images: Tensor) -> Tensor:
    """Return the energy of brightness per spatial frequency.

    Frequency f sums the ring |k| in [f - 1/2, f + 1/2) of the Fourier transform. The mean brightness is subtracted, and a Hann
    window suppresses the edges of the frame.

    Args:
        images: (N, 3, S, S) in [0, 1].

    Returns:
        Shape (N, S // 2 + 1), from 0 to S // 2 cycles per frame.
    """
    values = brightness(images)
    side = values.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=values.dtype)
    windowed = (values - values.mean((1, 2), keepdim=True)) * window[:, None] * window
    energy = torch.fft.fft2(windowed).abs().square().flatten(1)
    along = torch.fft.fftfreq(side) * side
    ring = torch.hypot(along[:, None], along).round().long().flatten()
    sums = torch.zeros(len(values), int(ring.max()) + 1, dtype=energy.dtype).index_add_(1, ring, energy)
    return sums[:, : side // 2 + 1]


def fine_cycles(side: int) -> int:
    """Return the lowest spatial frequency of frames of `side` pixels that counts as fine, in cycles per frame: 12 for 96."""
    return math.ceil(FINE * (side // 2))


def fine_detail_kept(originals: ArrayLike, reconstructions: ArrayLike) -> float:
    """Return the fine energy of reconstructions as a fraction of their originals', from spectra (F,) or (N, F)."""
    first, second = np.asarray(originals), np.asarray(reconstructions)
    fine = fine_cycles(2 * (first.shape[-1] - 1))
    return float(second[..., fine:].sum() / max(first[..., fine:].sum(), 1e-12))


def regions(images: Tensor, insets: np.ndarray) -> dict[str, Tensor]:
    """Assign each pixel to one of `REGIONS`.

    border: black and connected to the edge of the frame; lumen: dark elsewhere; glints: bright in all three channels; tissue:
    the rest.

    Args:
        images: (N, 3, H, W) in [0, 1].
        insets: bool (N, H, W).

    Returns:
        Masks per region, bool (N, H, W); exactly one is True per pixel.
    """
    light = brightness(images)
    inset = torch.from_numpy(np.ascontiguousarray(insets))
    border = torch.from_numpy(np.stack([touching_edge(black) for black in (light < BORDER).numpy()])) & ~inset
    lumen = (light < DARK) & ~border & ~inset
    glints = (images.amin(1) > GLINT) & ~inset
    return {"tissue": ~(lumen | glints | inset | border), "lumen": lumen, "glints": glints, "inset": inset, "border": border}


def auroc(normal: ArrayLike, abnormal: ArrayLike) -> float:
    """Return the area under the ROC curve of scores, higher for abnormal; ties count half.

    Raises:
        InputError: a score is not a number.
    """
    ranking = _Ranking.from_scores(normal, abnormal)
    return float(ranking.areas(np.ones((1, ranking.total)))[0, 0])


@dataclass(frozen=True)
class ClusterBootstrap:
    """Resamples of frames for intervals: whole clusters of near-duplicates are drawn with replacement, within each kind.

    Frames of one cluster are not independent; where frames are drawn, intervals are too narrow.
    """

    normal: NDArray[np.int64]
    """The cluster of each normal frame, numbered from 0, (N,)."""
    abnormal: NDArray[np.int64]
    """Likewise, (M,)."""
    seed: int = 0

    @classmethod
    def of(cls, normal: ArrayLike, abnormal: ArrayLike, seed: int = 0) -> "ClusterBootstrap":
        """Number the clusters of normal (N,) and abnormal (M,) frames, any integers."""
        numbered = [np.unique(np.asarray(some), return_inverse=True)[1].reshape(-1) for some in (normal, abnormal)]
        return cls(numbered[0], numbered[1], seed)

    @classmethod
    def of_frames(cls, normal: int, abnormal: int, seed: int = 0) -> "ClusterBootstrap":
        """Return the bootstrap in which each frame is one cluster."""
        return cls(np.arange(normal), np.arange(abnormal), seed)

    @property
    def counts(self) -> tuple[int, int]:
        """Return the number of clusters of normal and of abnormal frames."""
        return int(self.normal.max()) + 1, int(self.abnormal.max()) + 1

    def weights(self) -> Iterator[Values]:
        """Yield how often each frame is drawn per resample, (times, N + M), in chunks; always the same numbers.

        There are at least `RESAMPLES` resamples, in chunks of one size; fewer for very many frames.
        """
        total = len(self.normal) + len(self.abnormal)
        resamples = max(100, min(RESAMPLES, _MAX_DRAWS // total))
        chunk = max(1, min(resamples, _MAX_CHUNK // total))
        rng = np.random.default_rng(self.seed)
        for _ in range(-(-resamples // chunk)):
            yield np.concatenate([_drawn(rng, some, chunk) for some in (self.normal, self.abnormal)], axis=1)


def _drawn(rng: np.random.Generator, clusters: NDArray[np.int64], times: int) -> Values:
    """Return how often each frame is drawn, (times, N), where as many clusters are drawn as there are."""
    count = int(clusters.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), size=times)[:, clusters].astype(np.float64)


def auroc_with_ci(normal: ArrayLike, abnormal: ArrayLike, bootstrap: ClusterBootstrap | None = None) -> ScoreSeparation:
    """Return AUROC and average precision of scores, higher for abnormal, with 95% percentile bootstrap intervals.

    Ties count half in the AUROC. The average precision is the sum over thresholds of (recall step) x precision; ties share a
    threshold.

    Args:
        normal: scores (N,).
        abnormal: scores (M,).
        bootstrap: of these frames; by default each frame is drawn on its own.
    """
    ranking = _Ranking.from_scores(normal, abnormal)
    draw = bootstrap or ClusterBootstrap.of_frames(ranking.normal, ranking.total - ranking.normal)
    areas = np.concatenate([ranking.areas(weights) for weights in draw.weights()])
    found = ranking.areas(np.ones((1, ranking.total)))[0]
    area, precision = (_interval(float(found[i]), areas[:, i]) for i in range(2))
    return ScoreSeparation(auroc=area, average_precision=precision)


def auroc_lead(one: tuple[ArrayLike, ArrayLike], other: tuple[ArrayLike, ArrayLike], bootstrap: ClusterBootstrap) -> Interval:
    """Return how far the AUROC of one score is above that of another on the same frames, with a paired 95% interval.

    Args:
        one: scores of normal (N,) and abnormal (M,) frames.
        other: another score of the same frames.
        bootstrap: of these frames; in each resample both scores are compared on the same draws.
    """
    first, second = (_Ranking.from_scores(*scores) for scores in (one, other))
    leads = np.concatenate([first.areas(weights)[:, 0] - second.areas(weights)[:, 0] for weights in bootstrap.weights()])
    return _interval(auroc(*one) - auroc(*other), leads)


def _interval(value: float, resampled: Values) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def best_dice(scores: ArrayLike, inside: ArrayLike) -> float:
    """Return the best Dice coefficient over all thresholds: an optimistic number, chosen on the masks themselves.

    Args:
        scores: per pixel, (N,); ties share a threshold.
        inside: bool (N,), True in a lesion.
    """
    values, truth = np.asarray(scores), np.asarray(inside, bool)
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = np.cumsum(truth[order])[ends]
    return float((2 * hits / (ends + 1 + max(int(truth.sum()), 1))).max())


@dataclass(frozen=True)
class _Ranking:
    """Frames sorted by score; the normal ones come first in the numbering."""

    normal: int
    order: NDArray[np.int64]
    """Indices of the frames, highest score first."""
    ends: NDArray[np.int64]
    """Last position of each run of equal scores in that order."""

    @classmethod
    def from_scores(cls, normal: ArrayLike, abnormal: ArrayLike) -> "_Ranking":
        scores = np.concatenate([np.asarray(normal, np.float64), np.asarray(abnormal, np.float64)])
        if unknown := int(np.isnan(scores).sum()):
            raise InputError(f"{unknown:,} of {plural(len(scores), 'score')} are not numbers, so that there is no AUROC.")
        order = np.argsort(-scores, kind="stable")
        return cls(len(np.asarray(normal)), order, np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)))

    @property
    def total(self) -> int:
        return len(self.order)

    def areas(self, weights: Values) -> Values:
        """Return AUROC and average precision, (B, 2), for frames weighted by `weights` (B, N)."""
        abnormal = self.order >= self.normal
        ranked = weights[:, self.order]
        hits = np.cumsum(ranked * abnormal, axis=1)[:, self.ends]
        alarms = np.cumsum(ranked * ~abnormal, axis=1)[:, self.ends]
        new_hits, new_alarms = np.diff(hits, axis=1, prepend=0), np.diff(alarms, axis=1, prepend=0)
        area = (new_alarms * (hits - new_hits / 2)).sum(1) / (hits[:, -1] * alarms[:, -1])
        precision = hits / np.maximum(hits + alarms, 1)
        return np.stack([area, (new_hits * precision).sum(1) / hits[:, -1]], axis=1)
