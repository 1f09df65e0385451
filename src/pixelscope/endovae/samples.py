"""Stores the images of a run as arrays in samples/, for the report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from pixelscope.data.disk_array import Pixels
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibration import HEADLINE
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.measurement import Measured
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import AugmentedBatches, FrameSubset, Splits, to_frames, to_images
from pixelscope.endovae.forward import LatentAxes, decode, encode, interpolate, random_latents, reconstruct, traverse
from pixelscope.endovae.losses import Posterior
from pixelscope.endovae.metrics import pixel_maps
from pixelscope.endovae.results import MODEL
from pixelscope.endovae.task import EndoVAETask
from pixelscope.rng import generator
from pixelscope.runs.folder import RunFolder, read_arrays, save_arrays

if TYPE_CHECKING:
    from pixelscope.endovae.anomaly.evaluation import AnomalyMeasured

PER_CLASS = 6
"""Frames per class in samples/frames.npz."""
AUGMENTED = 5
"""Frames stored with their augmented copies."""
PROGRESS_FRAMES = 5
"""Reconstructions, and decoded random latent vectors, per point of a training."""
PROGRESS = {"images": 1, "originals": 4, "reconstructions": 5, "generated": 5}
"""Number of dimensions of each array of samples/progress.npz."""
RECONSTRUCTED = 5
"""Random reconstructions per kind of frame, as in the reference study; as many of the best and of the worst."""
GENERATED = 9
INTERPOLATIONS, STEPS = 3, 9
"""Number of interpolations, and of latent vectors in each."""
DIMENSIONS, REACH = 8, 3.0
"""Maximum number of dimensions or axes traversed; range in standard deviations."""
HEATMAPS = 8
"""Heat maps per kind of frame, drawn at random."""


def save_frame_samples(folder: RunFolder, store: FrameStore) -> None:
    """Store random frames of each class as samples/frames.npz."""
    shown = sample_positions(store)
    classes = np.array(store.classes)
    save_arrays(folder.samples / "frames.npz", frames=store.frames[shown], labels=store.labels[shown], classes=classes)


def sample_positions(store: FrameStore) -> list[int]:
    """Return the positions of random frames of each class, always the same ones."""
    shown: list[int] = []
    for label in range(len(store.classes)):
        positions = np.flatnonzero(store.labels == label)
        shown += positions[_random(len(positions), PER_CLASS, 0, "shown frames", label)].tolist()
    return shown


def save_augmentation(folder: RunFolder, batches: AugmentedBatches) -> None:
    """Store some training frames with their augmented copies as samples/augmentation.npz."""
    versions = [to_frames(batches.version(copy, AUGMENTED)) for copy in range(1 + batches.config.copies_per_frame)]
    save_arrays(folder.samples / "augmentation.npz", versions=np.stack(versions, axis=1))


class ProgressSamples:
    """Reconstructions of the same validation frames and decodings of the same z during a training: samples/progress.npz."""

    def __init__(self, folder: RunFolder, frames: Pixels, seed: int) -> None:
        """Take the first of `frames`, uint8 (N, S, S, 3)."""
        self.path = folder.samples / "progress.npz"
        self.frames = frames[:PROGRESS_FRAMES]
        self.seed = seed

    @torch.no_grad()
    def draw(self, task: EndoVAETask, images: int) -> None:
        """Append a row after `images` images seen."""
        device = task.fabric.device
        posterior = Posterior.from_parameters(task.encoder(to_images(self.frames).to(device)))
        z = random_latents(PROGRESS_FRAMES, task.config.code_values, generator("cpu", self.seed, "progress")).to(device)
        new = {
            "images": np.array(images),
            "reconstructions": decode(task.decoder, posterior.mode).cpu().numpy(),
            "generated": decode(task.decoder, z).cpu().numpy(),
        }
        old = read_arrays(self.path, PROGRESS)
        self._write({name: one[None] if old is None else np.concatenate([old[name], one[None]]) for name, one in new.items()})

    def forget_after(self, images: int) -> None:
        """Remove the rows after the checkpoint that a run resumes from."""
        rows = read_arrays(self.path, PROGRESS)
        if rows is not None:
            kept = rows["images"] <= images
            self._write({name: rows[name][kept] for name in ("images", "reconstructions", "generated")})

    def _write(self, rows: dict[str, np.ndarray]) -> None:
        save_arrays(self.path, originals=self.frames, **rows)


def save_samples(
    checkpoint: Checkpoint,
    splits: Splits,
    measured: Mapping[str, Measured],
    anomaly: "AnomalyMeasured | None",
    axes: LatentAxes,
) -> None:
    """Store reconstructions and heat maps of the test frames, generated frames, interpolations and traversals.

    Args:
        checkpoint: encoder and decoder.
        splits: of the run.
        measured: the test frames by kind.
        anomaly: their anomaly scores; None without heat maps.
        axes: along which frames are generated.
    """
    for kind, part in splits.test.items():
        _save_reconstructions(checkpoint, kind, part, measured[kind])
    z = _vectors(axes, random_latents(GENERATED, len(axes.directions), generator("cpu", checkpoint.config.seed, "generated")))
    save_arrays(checkpoint.folder.samples / "generated.npz", generated=decode(checkpoint.decoder, z).numpy())
    part = splits.test.get("normal", splits.validation)
    mean, kl = _latents(checkpoint, part, measured.get("normal"))
    _save_interpolations(checkpoint, part, mean)
    _save_traversals(checkpoint, axes, kl.mean(0))
    if anomaly is not None:
        _save_heatmaps(checkpoint, anomaly)


def _save_heatmaps(checkpoint: Checkpoint, found: "AnomalyMeasured") -> None:
    """Store heat maps of random test frames with a p-value, by kind, as samples/heatmaps-KIND.npz."""
    for kind, one in found.scored[HEADLINE].items():
        part, scored = one.part, np.flatnonzero(~np.isnan(one.p))
        if not len(scored):
            continue
        shown = scored[_random(len(scored), HEATMAPS, checkpoint.config.seed, "heat maps")]
        some = FrameSubset(part.store, part.positions[shown])
        frames = some.frames
        errors = smoothed(_errors(checkpoint, frames)) * ~some.insets
        overlays = [overlay(frame, error, found.calibration.vmax) for frame, error in zip(frames, errors, strict=True)]
        save_arrays(
            checkpoint.folder.samples / f"heatmaps-{kind}.npz",
            frames=frames,
            overlays=np.stack(overlays),
            lesions=part.store.lesions[some.positions] > 0,
            p=one.p[shown],
        )


def _save_reconstructions(checkpoint: Checkpoint, kind: str, part: FrameSubset, measured: Measured) -> None:
    # A frame without a valid pixel has no quality (NaN), and would be sorted as the best.
    metrics, known = measured.values[MODEL], np.flatnonzero(measured.known)
    order = known[np.argsort(metrics["psnr"][known], kind="stable")]
    rows = {
        "random": known[_random(len(known), RECONSTRUCTED, checkpoint.config.seed, "reconstructions")],
        "worst": order[:RECONSTRUCTED],
        "best": order[::-1][:RECONSTRUCTED],
    }
    for name, shown in rows.items():
        found = reconstruct(checkpoint, part.store.frames[part.positions[shown]])
        save_arrays(
            checkpoint.folder.samples / f"reconstructions-{kind}-{name}.npz",
            originals=to_frames(found.images),
            reconstructions=to_frames(found.reconstructions),
            psnr=metrics["psnr"][shown],
            ssim=metrics["ssim"][shown],
        )


def _save_interpolations(checkpoint: Checkpoint, part: FrameSubset, modes: torch.Tensor) -> None:
    """Store interpolations between random pairs of frames, whose posterior modes are `modes` (N, latent)."""
    order = _random(len(part), len(part), checkpoint.config.seed, "interpolations")
    ends = np.tile(order, 2)[: 2 * min(INTERPOLATIONS, max(1, len(part) // 2))].reshape(-1, 2)
    frames = [decode(checkpoint.decoder, interpolate(modes[i], modes[j], STEPS)).numpy() for i, j in ends]
    pairs = part.store.frames[part.positions[ends]]
    save_arrays(checkpoint.folder.samples / "interpolation.npz", ends=pairs, frames=np.stack(frames))


def _save_traversals(checkpoint: Checkpoint, axes: LatentAxes, kl: torch.Tensor) -> None:
    """Store traversals: of the dimensions of a global code with the largest mean KL, `kl` (latent,); else of the first axes."""
    divergence = kl if checkpoint.config.model.kind == "global" else torch.full((len(axes.directions),), torch.nan)
    dimensions = divergence.nan_to_num().argsort(descending=True, stable=True)[:DIMENSIONS]
    values, origin = torch.linspace(-REACH, REACH, STEPS), torch.zeros(len(axes.directions))
    rows = [decode(checkpoint.decoder, _vectors(axes, traverse(origin, int(d), values))).numpy() for d in dimensions]
    save_arrays(
        checkpoint.folder.samples / "traversal.npz",
        frames=np.stack(rows),
        values=values.numpy(),
        dimensions=dimensions.numpy(),
        kl=divergence[dimensions].numpy(),
    )


def _vectors(axes: LatentAxes, coordinates: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(axes.vectors(coordinates.numpy()))


def _errors(checkpoint: Checkpoint, frames: np.ndarray) -> np.ndarray:
    """Return the squared error per pixel, mean over channels, (N, S, S), of a few frames."""
    found = reconstruct(checkpoint, frames)
    return pixel_maps(found.images, found.reconstructions).error.numpy()


def _latents(checkpoint: Checkpoint, part: FrameSubset, measured: Measured | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return posterior means and KL divergences, (N, latent) each; the frames are encoded unless they were measured."""
    if measured is not None:
        return torch.from_numpy(measured.mean), torch.from_numpy(measured.kl)
    posterior = encode(checkpoint, part.frames)
    return posterior.mean, posterior.measured_kl()


def _random(count: int, shown: int, seed: int, *purpose: str | int) -> np.ndarray:
    """Return `shown` of `count` positions in random order."""
    return torch.randperm(count, generator=generator("cpu", seed, *purpose))[:shown].numpy()
