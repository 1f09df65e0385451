"""Every number that is measured frame by frame, for a model and for its linear yardsticks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.cohort import Part
from pixelscope.endovae.components import PrincipalComponents
from pixelscope.endovae.findings import REGIONS, regions, spectrum
from pixelscope.endovae.quality import psnr, squared_error, ssim
from pixelscope.endovae.reconstruction import BATCH, Reconstructed, reconstruct_batches
from pixelscope.endovae.results import MEAN, MODEL, PCA

Metric = Callable[[Tensor, Tensor, Tensor | None], Tensor]
METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim, "squared_error": squared_error}


@dataclass
class Measured:
    """What was measured on one part, an entry a frame, in the order of its positions."""

    values: dict[str, dict[str, np.ndarray]]
    """By method, then by metric: float (N,)."""
    kl: np.ndarray
    """Nats by frame and latent dimension, (N, latent)."""
    spectra: dict[str, np.ndarray]
    """Mean energy by frequency, (F,), of the originals ("original") and of each method's reconstructions."""
    region_error: dict[str, float]
    """Mean squared error of the model's reconstructions in each region; regions without a pixel left out."""
    region_share: dict[str, float]
    """Share of all pixels in each of these regions."""


@dataclass
class _Sums:
    values: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    kl: list[Tensor] = field(default_factory=list)
    spectra: dict[str, Tensor] = field(default_factory=dict)
    region_error: dict[str, float] = field(default_factory=dict)
    region_count: dict[str, int] = field(default_factory=dict)


def measure(part: Part, checkpoint: Checkpoint, components: PrincipalComponents) -> Measured:
    """Reconstruct the frames of a part from the posterior's mode, and measure all of it a batch at a time."""
    sums, insets = _Sums(), part.insets
    for rows, batch, counted in _batches(part, checkpoint):
        _add(sums, batch, components, insets[rows], counted)
    return _finished(sums, len(part))


def quality_of(part: Part, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return the model's metrics alone, float (N,) each."""
    found: dict[str, list[Tensor]] = {name: [] for name in METRICS}
    for _, batch, counted in _batches(part, checkpoint):
        for name, metric in METRICS.items():
            found[name].append(metric(batch.images, batch.reconstructions, counted))
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def _batches(part: Part, checkpoint: Checkpoint) -> Iterator[tuple[slice, Reconstructed, Tensor | None]]:
    """Give the rows of each batch, its reconstructions, and where its pixels count."""
    left_out = part.left_out
    for number, batch in enumerate(reconstruct_batches(checkpoint, part.frames)):
        rows = slice(number * BATCH, number * BATCH + len(batch.images))
        yield rows, batch, None if left_out is None else 1 - torch.from_numpy(left_out[rows]).unsqueeze(1).float()


def _add(
    sums: _Sums, batch: Reconstructed, components: PrincipalComponents, insets: np.ndarray, counted: Tensor | None
) -> None:
    methods = {
        MODEL: batch.reconstructions,
        PCA: components.reconstruct(batch.images),
        MEAN: components.mean_image(batch.images),
    }
    for method, reconstructions in methods.items():
        for name, metric in METRICS.items():
            found = sums.values.setdefault(method, {}).setdefault(name, [])
            found.append(metric(batch.images, reconstructions, counted))
    for name, images in {"original": batch.images, **methods}.items():
        sums.spectra[name] = sums.spectra.get(name, torch.zeros(())) + spectrum(images).sum(0)
    sums.kl.append(batch.posterior.kl())
    errors = (batch.images - batch.reconstructions).square().mean(1)
    for name, inside in regions(batch.images, insets).items():
        sums.region_error[name] = sums.region_error.get(name, 0.0) + float(errors[inside].sum())
        sums.region_count[name] = sums.region_count.get(name, 0) + int(inside.sum())


def _finished(sums: _Sums, count: int) -> Measured:
    pixels = sum(sums.region_count.values())
    shown = [name for name in REGIONS if sums.region_count[name]]
    return Measured(
        values={
            method: {name: torch.cat(parts).numpy() for name, parts in metrics.items()}
            for method, metrics in sums.values.items()
        },
        kl=torch.cat(sums.kl).numpy(),
        spectra={name: (total / count).numpy() for name, total in sums.spectra.items()},
        region_error={name: sums.region_error[name] / sums.region_count[name] for name in shown},
        region_share={name: sums.region_count[name] / pixels for name in shown},
    )
