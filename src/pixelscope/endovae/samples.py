"""The images of a run, stored as arrays in samples/ and drawn in the report."""

from collections.abc import Mapping

import numpy as np
import torch

from pixelscope.data.disk_array import Pixels
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.maps import error_map_batches
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import AugmentedBatches, FrameSubset, Splits, as_channels_first, from_unit, to_unit
from pixelscope.endovae.forward import decode, interpolate, random_latents, reconstruct_frames, traverse
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.task import EndoVAETask
from pixelscope.rng import generator
from pixelscope.runs.arrays import read_arrays, save_arrays
from pixelscope.runs.folder import RunFolder

A_CLASS = 6
"""Frames shown of each class."""
ALTERED = 5
"""Frames shown with their altered copies."""


def save_frame_samples(folder: RunFolder, store: FrameStore) -> None:
    """Store random frames of each class as samples/frames.npz."""
    shown = sample_positions(store)
    save_arrays(
        folder.samples / "frames.npz", frames=store.frames[shown], labels=store.labels[shown], classes=np.array(store.classes)
    )


def sample_positions(store: FrameStore) -> list[int]:
    """Return the positions of random frames of each class, the same ones every time."""
    shown: list[int] = []
    for label in range(len(store.classes)):
        positions = np.flatnonzero(store.labels == label)
        order = torch.randperm(len(positions), generator=generator("cpu", 0, "shown frames", label))
        shown += [int(positions[i]) for i in order[:A_CLASS]]
    return shown


def save_augmentation(folder: RunFolder, batches: AugmentedBatches) -> None:
    """Store some training frames, each with its altered copies, as samples/augmentation.npz."""
    versions = [batches.version(copy, ALTERED) for copy in range(1 + batches.config.copies)]
    images = torch.stack([from_unit(images) for images in versions], dim=1).permute(0, 1, 3, 4, 2)
    save_arrays(folder.samples / "augmentation.npz", versions=images.cpu().numpy())


PROGRESS_FRAMES = 5
"""Frames reconstructed, and latent vectors decoded, at each moment."""
ARRAYS = {"images": 1, "originals": 4, "reconstructions": 5, "generated": 5}


class ProgressSamples:
    """The same validation frames reconstructed, and the same z decoded, again and again."""

    def __init__(self, folder: RunFolder, frames: Pixels, seed: int) -> None:
        """Watch the first of `frames`, uint8 (N, S, S, 3)."""
        self.path = folder.samples / "progress.npz"
        self.frames = frames[:PROGRESS_FRAMES]
        self.seed = seed

    @torch.no_grad()
    def draw(self, task: EndoVAETask, images: int) -> None:
        """Add the moment after `images` images."""
        device = task.fabric.device
        posterior = Posterior.from_parameters(task.encoder(to_unit(as_channels_first(self.frames)).to(device)))
        z = random_latents(PROGRESS_FRAMES, task.config.model.latent, generator("cpu", self.seed, "progress")).to(device)
        self._add(images, decode(task.decoder, posterior.mode).cpu().numpy(), decode(task.decoder, z).cpu().numpy())

    def forget_after(self, images: int) -> None:
        """Drop what was drawn after the checkpoint that a run resumes from."""
        rows = read_arrays(self.path, ARRAYS)
        if rows is not None:
            kept = rows["images"] <= images
            self._write(rows["images"][kept], rows["reconstructions"][kept], rows["generated"][kept])

    def _add(self, images: int, reconstructions: np.ndarray, generated: np.ndarray) -> None:
        rows = read_arrays(self.path, ARRAYS)
        if rows is None:
            self._write(np.array([images]), reconstructions[None], generated[None])
        else:
            moments = np.append(rows["images"], images)
            before = rows["reconstructions"], rows["generated"]
            after = (np.concatenate([old, new[None]]) for old, new in zip(before, (reconstructions, generated), strict=True))
            self._write(moments, *after)

    def _write(self, moments: np.ndarray, reconstructions: np.ndarray, generated: np.ndarray) -> None:
        save_arrays(self.path, images=moments, originals=self.frames, reconstructions=reconstructions, generated=generated)


SHOWN = 5
"""Reconstructions shown of each set, as in the report, and as many of the best and of the worst."""
GENERATED = 9
WAYS, STEPS = 3, 9
"""Interpolations, and latent vectors on each."""
DIMENSIONS, REACH = 8, 3.0
"""Latent dimensions walked along at most, those of the largest divergence; as far as this many standard deviations."""


def write_pictures(checkpoint: Checkpoint, splits: Splits, metrics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Store the pictures of the held-out frames, whose PSNR and SSIM are in `metrics` by kind, and of the latent space."""
    for kind, part in splits.test.items():
        _write_reconstructions(checkpoint, kind, part, metrics[kind])
    _write_generated(checkpoint)
    _write_ways(checkpoint, splits.test.get("normal", splits.validation))


def _write_reconstructions(checkpoint: Checkpoint, kind: str, part: FrameSubset, metrics: Mapping[str, np.ndarray]) -> None:
    # A frame whose pixels are all left out has no quality, and would come as the best of all.
    known = np.flatnonzero(~np.isnan(metrics["psnr"] + metrics["ssim"]))
    order = known[np.argsort(metrics["psnr"][known], kind="stable")]
    count = min(SHOWN, len(known))
    draw = generator("cpu", checkpoint.config.seed, "reconstructions")
    rows = {
        "random": known[torch.randperm(len(known), generator=draw)[:count].numpy()],
        "worst": order[:count],
        "best": order[::-1][:count],
    }
    for name, shown in rows.items():
        found = reconstruct_frames(checkpoint, part.store.frames[part.positions[shown]])
        save_arrays(
            checkpoint.folder.samples / f"reconstructions-{kind}-{name}.npz",
            originals=pixels(found.images),
            reconstructions=pixels(found.reconstructions),
            psnr=metrics["psnr"][shown],
            ssim=metrics["ssim"][shown],
        )


def _write_generated(checkpoint: Checkpoint) -> None:
    z = random_latents(GENERATED, checkpoint.encoder.mean.out_features, generator("cpu", checkpoint.config.seed, "generated"))
    save_arrays(checkpoint.folder.samples / "generated.npz", generated=decode(checkpoint.decoder, z).numpy())


@torch.no_grad()
def _write_ways(checkpoint: Checkpoint, part: FrameSubset) -> None:
    """Store ways between frames of a part, and along single latent dimensions from the first of them."""
    order = torch.randperm(len(part), generator=generator("cpu", checkpoint.config.seed, "ways"))
    ends = order.repeat(2)[: 2 * min(WAYS, max(1, len(part) // 2))].numpy()
    images = to_unit(as_channels_first(part.frames))
    posterior = Posterior.from_parameters(torch.cat([checkpoint.encoder(some) for some in images.split(64)]))
    frames, modes = part.store.frames[part.positions[ends]], posterior.mode[ends]
    ways = [decode(checkpoint.decoder, interpolate(modes[i], modes[i + 1], STEPS)).numpy() for i in range(0, len(ends), 2)]
    pairs, samples = frames.reshape(-1, 2, *frames.shape[1:]), checkpoint.folder.samples
    save_arrays(samples / "interpolation.npz", ends=pairs, ways=np.stack(ways))
    divergence = posterior.kl().mean(0)
    dimensions = divergence.argsort(descending=True, stable=True)[:DIMENSIONS]
    values = torch.linspace(-REACH, REACH, STEPS)
    origin = torch.zeros(len(divergence))
    walks = [decode(checkpoint.decoder, traverse(origin, int(d), values)).numpy() for d in dimensions]
    save_arrays(
        samples / "traversal.npz",
        walks=np.stack(walks),
        values=values.numpy(),
        dimensions=dimensions.numpy(),
        kl=divergence[dimensions].numpy(),
    )


def pixels(images: torch.Tensor) -> np.ndarray:
    """Return float images (N, 3, S, S) in [0, 1] as uint8 arrays (N, S, S, 3)."""
    return from_unit(images).permute(0, 2, 3, 1).contiguous().numpy()


HEAT_MAPS = 8
"""Frames of each kind, drawn at random."""


def write_heat_maps(
    checkpoint: Checkpoint, parts: Mapping[str, FrameSubset], p: Mapping[str, np.ndarray], calibration: Calibration
) -> None:
    """Store heat maps of random test frames of each kind in samples/heat-KIND.npz of the run.

    p: the p-values of all frames by kind; frames that have none (NaN) are not shown.
    """
    seed = checkpoint.config.seed
    for kind, part in parts.items():
        scored = np.flatnonzero(~np.isnan(p[kind]))
        if not len(scored):
            continue
        shown = scored[torch.randperm(len(scored), generator=generator("cpu", seed, "heat maps"))[:HEAT_MAPS].numpy()]
        some = FrameSubset(part.store, part.positions[shown])
        frames = some.frames
        errors = smoothed(np.concatenate([maps.error for _, maps in error_map_batches(checkpoint, frames)])) * ~some.insets
        drawn = [overlay(frame, error, calibration.heat) for frame, error in zip(frames, errors, strict=True)]
        save_arrays(
            checkpoint.folder.samples / f"heat-{kind}.npz",
            frames=frames,
            overlays=np.stack(drawn),
            lesions=part.store.lesions[some.positions] > 0,
            p=p[kind][shown],
        )
