"""One pass through the networks: quality, raw anomaly scores and baselines per frame, and the error maps of some frames."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.data.frames.preprocess import VIEWS, ViewName
from pixelscope.endovae.anomaly.baselines import baseline_scores, mean_colours
from pixelscope.endovae.anomaly.scores import ErrorMaps, Values, raw_scores, view_box
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.config import ModelConfig
from pixelscope.endovae.data import FrameSubset, to_images
from pixelscope.endovae.forward import BATCH, LatentAxes, encode, reconstruct
from pixelscope.endovae.metrics import pixel_maps, regions, spectrum
from pixelscope.endovae.pca import BlockComponents, PrincipalComponents
from pixelscope.endovae.results import MEAN, METRICS, MODEL, PCA

MAX_FIT_FRAMES = 20_000
"""Maximum number of training frames, evenly spaced, that references are fitted to: 5 GB in float32 for the components."""


@dataclass(frozen=True)
class References:
    """References that frames are compared with, fitted to training frames."""

    components: PrincipalComponents | BlockComponents
    latent: GaussianReference
    """Gaussian of the posterior means."""
    axes: LatentAxes
    colours: dict[ViewName, GaussianReference]
    """Gaussian of the mean colours outside insets, by view."""


@dataclass(frozen=True)
class FrameMaps:
    """Error maps of some frames; float32."""

    positions: NDArray[np.int64]
    """Positions of the frames in their store, ascending."""
    insets: NDArray[np.bool_]
    """(N, S, S)."""
    error: NDArray[np.float32]
    """(N, S, S): squared error of the model."""
    dissimilarity: NDArray[np.float32]
    """(N, S - 10, S - 10): 1 - SSIM of the model."""
    pca_error: NDArray[np.float32]
    """(N, S, S): squared error of the principal components."""


@dataclass(frozen=True)
class ViewScores:
    """Raw scores and baselines on one view, float64 (N,) by name; NaN where there is nothing to measure."""

    raw: dict[str, Values]
    """See `raw_scores`."""
    baselines: dict[str, Values]
    """See `baseline_scores`."""

    def select(self, rows: NDArray) -> "ViewScores":
        """Return the scores of some frames, by position in the arrays."""
        return ViewScores(*({name: values[rows] for name, values in some.items()} for some in (self.raw, self.baselines)))


@dataclass(frozen=True)
class RawScores:
    """Raw scores and baselines of some frames, by view."""

    part: FrameSubset
    views: dict[ViewName, ViewScores]

    def covers(self, part: FrameSubset) -> bool:
        """Return whether all frames of `part` are among these."""
        return part.store is self.part.store and bool(np.isin(part.positions, self.part.positions).all())

    def select(self, part: FrameSubset) -> "RawScores":
        """Return the scores of the frames of `part`, which are all among these."""
        rows = np.searchsorted(self.part.positions, part.positions)
        return RawScores(part, {name: one.select(rows) for name, one in self.views.items()})


@dataclass(frozen=True)
class Measured:
    """Measurements of one subset; the first dimension of each array is the frame."""

    values: dict[str, dict[str, NDArray[np.float32]]]
    """By method, then by metric, (N,); NaN for a frame without a valid pixel."""
    kl: NDArray[np.float32]
    """Nats per latent dimension, (N, latent)."""
    mean: NDArray[np.float32]
    """Posterior means, (N, latent)."""
    spectra: dict[str, NDArray[np.float32]]
    """Energy per spatial frequency, (N, F), of the originals ("original") and of each method's reconstructions."""
    region_error: dict[str, NDArray[np.float32]]
    """Squared error of the model, summed per region, (N,)."""
    region_pixels: dict[str, NDArray[np.int64]]
    """Number of pixels per region, (N,)."""
    scores: RawScores
    maps: FrameMaps
    """Maps of the frames in `keep`; see `measure`."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return the frames with a valid pixel, bool (N,)."""
        return ~np.isnan(self.values[MODEL]["psnr"] + self.values[MODEL]["ssim"])


def fit_references(checkpoint: Checkpoint, train: FrameSubset) -> References:
    """Fit references to at most `MAX_FIT_FRAMES` training frames.

    Raises:
        InputError: there are fewer than two frames with a pixel outside insets.
    """
    some = train.at_most(MAX_FIT_FRAMES)
    frames, model, shape = some.frames, checkpoint.config.model, checkpoint.config.code_shape
    means = encode(checkpoint, frames).mean
    return References(
        _fit_components(frames, model),
        GaussianReference.fit(means.numpy(), math.prod(shape[:-1])),
        LatentAxes.of_prior(shape[0]) if model.kind == "global" else LatentAxes.fit(means),
        {name: _fit_colours(some, name) for name in VIEWS},
    )


def _fit_colours(part: FrameSubset, name: ViewName) -> GaussianReference:
    view, starts = part.store.view(name), range(0, len(part), BATCH)
    rows = [part.positions[start : start + BATCH] for start in starts]
    colours = np.concatenate([mean_colours(view.frames[some], view.insets[some] > 0) for some in rows])
    return GaussianReference.fit(colours[np.isfinite(colours).all(1)])


def _fit_components(frames: NDArray[np.uint8], model: ModelConfig) -> PrincipalComponents | BlockComponents:
    """Fit the linear baseline with a code of the same size to the frames and their mirror images."""
    images = to_images(frames).contiguous()
    both = torch.cat([images, images.flip(-1)])
    if model.kind == "spatial":
        return BlockComponents.fit(both, model.latent, model.stride)
    return PrincipalComponents.fit(both, model.latent)


@torch.no_grad()
def measure(
    part: FrameSubset, checkpoint: Checkpoint, references: References, keep: NDArray[np.int64] | None = None
) -> Measured:
    """Measure frames in one pass, batch by batch.

    Args:
        part: the frames.
        checkpoint: reconstructs them from the posterior's mode.
        references: references fitted to the training frames.
        keep: positions in the store of the frames whose error maps are kept, int64, ascending; none by default.
    """
    kept = np.empty(0, np.int64) if keep is None else keep
    return _joined(part, [_measure_batch(batch, checkpoint, references, kept) for batch in _batches(part)])


@torch.no_grad()
def measure_quality(part: FrameSubset, checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """Return the metrics of a checkpoint's reconstructions alone, (N,) by name."""
    found = []
    for batch in _batches(part):
        one = reconstruct(checkpoint, batch.frames)
        found.append(pixel_maps(one.images, one.reconstructions).quality(batch.valid_mask))
    return {name: np.concatenate([one[name].numpy() for one in found]) for name in METRICS}


@dataclass(frozen=True)
class _Batch:
    part: FrameSubset
    frames: NDArray[np.uint8]
    insets: NDArray[np.bool_]
    valid_mask: torch.Tensor | None


def _batches(part: FrameSubset) -> Iterator[_Batch]:
    """Read the frames batch by batch."""
    store, ignores = part.store, part.store.settings.insets == "mask"
    for start in range(0, len(part.positions), BATCH):
        rows = part.positions[start : start + BATCH]
        insets = store.insets[rows] > 0
        valid_mask = 1 - torch.from_numpy(insets).unsqueeze(1).float() if ignores else None
        yield _Batch(FrameSubset(store, rows), store.frames[rows], insets, valid_mask)


def _measure_batch(batch: _Batch, checkpoint: Checkpoint, references: References, keep: NDArray[np.int64]) -> Measured:
    found = reconstruct(checkpoint, batch.frames)
    images, (projected, mean_image) = found.images, references.components.baselines(found.images)
    methods = {MODEL: found.reconstructions, PCA: projected, MEAN: mean_image}
    maps = {method: pixel_maps(images, drawn) for method, drawn in methods.items()}
    model, pca_error = maps[MODEL], maps[PCA].error.numpy()
    outputs = ErrorMaps(
        model.error.numpy(), model.dissimilarity.numpy(), found.posterior.measured_kl().numpy(), found.posterior.mean.numpy()
    )
    kept = np.isin(batch.part.positions, keep)
    inside = regions(images, batch.insets)
    views: dict[ViewName, ViewScores] = {name: _view_scores(batch, name, outputs, pca_error, references) for name in VIEWS}
    return Measured(
        values={
            method: {name: value.numpy() for name, value in one.quality(batch.valid_mask).items()}
            for method, one in maps.items()
        },
        kl=outputs.kl,
        mean=outputs.mean,
        spectra={name: spectrum(some).numpy() for name, some in {"original": images, **methods}.items()},
        region_error={name: (model.error * mask).sum((1, 2)).numpy() for name, mask in inside.items()},
        region_pixels={name: mask.sum((1, 2)).numpy() for name, mask in inside.items()},
        scores=RawScores(batch.part, views),
        maps=FrameMaps(
            batch.part.positions[kept], batch.insets[kept], outputs.error[kept], outputs.dissimilarity[kept], pca_error[kept]
        ),
    )


def _view_scores(
    batch: _Batch, name: ViewName, outputs: ErrorMaps, pca_error: NDArray[np.float32], references: References
) -> ViewScores:
    rows, view = batch.part.positions, batch.part.store.view(name)
    inside = (slice(None), *view_box(pca_error.shape[1], name).slices)
    return ViewScores(
        raw_scores(outputs, batch.frames, batch.insets, references.latent, name),
        baseline_scores(
            view.frames[rows], view.insets[rows] > 0, references.colours[name], pca_error[inside], ~batch.insets[inside]
        ),
    )


def _joined(part: FrameSubset, batches: list[Measured]) -> Measured:
    """Join the measurements of the batches of `part`."""
    scores, maps = [one.scores for one in batches], [one.maps for one in batches]
    return Measured(
        values={method: _by_name([one.values[method] for one in batches]) for method in batches[0].values},
        kl=np.concatenate([one.kl for one in batches]),
        mean=np.concatenate([one.mean for one in batches]),
        spectra=_by_name([one.spectra for one in batches]),
        region_error=_by_name([one.region_error for one in batches]),
        region_pixels=_by_name([one.region_pixels for one in batches]),
        scores=RawScores(part, _joined_views(scores)),
        maps=FrameMaps(
            np.concatenate([one.positions for one in maps]),
            np.concatenate([one.insets for one in maps]),
            np.concatenate([one.error for one in maps]),
            np.concatenate([one.dissimilarity for one in maps]),
            np.concatenate([one.pca_error for one in maps]),
        ),
    )


def _joined_views(batches: list[RawScores]) -> dict[ViewName, ViewScores]:
    raw = {name: _by_name([one.views[name].raw for one in batches]) for name in VIEWS}
    return {name: ViewScores(raw[name], _by_name([one.views[name].baselines for one in batches])) for name in VIEWS}


def _by_name(batches: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    return {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
