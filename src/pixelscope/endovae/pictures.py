"""The pictures of a run, stored as arrays in samples/: reconstructions, generated frames, ways through the latent space."""

from collections.abc import Mapping

import numpy as np
import torch

from pixelscope.endovae.batches import as_channels_first, from_unit, to_unit
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.cohort import Cohort, Part
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.reconstruction import reconstruct_frames
from pixelscope.endovae.sampling import decode, interpolate, random_latents, traverse
from pixelscope.rng import generator
from pixelscope.runs.arrays import save_arrays

SHOWN = 5
"""Reconstructions shown of each set, as in the report, and as many of the best and of the worst."""
GENERATED = 9
WAYS, STEPS = 3, 9
"""Interpolations, and latent vectors on each."""
DIMENSIONS, REACH = 8, 3.0
"""Latent dimensions walked along at most, those of the largest divergence; as far as this many standard deviations."""


def write_pictures(checkpoint: Checkpoint, cohort: Cohort, metrics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Store the pictures of the held-out frames, whose PSNR and SSIM are in `metrics` by kind, and of the latent space."""
    for kind, part in cohort.held_out.items():
        _write_reconstructions(checkpoint, kind, part, metrics[kind])
    _write_generated(checkpoint)
    _write_ways(checkpoint, cohort.held_out.get("normal", cohort.validation))


def _write_reconstructions(checkpoint: Checkpoint, kind: str, part: Part, metrics: Mapping[str, np.ndarray]) -> None:
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
def _write_ways(checkpoint: Checkpoint, part: Part) -> None:
    """Store ways between frames of a part, and along single latent dimensions from the first of them."""
    order = torch.randperm(len(part), generator=generator("cpu", checkpoint.config.seed, "ways"))
    ends = order.repeat(2)[: 2 * min(WAYS, max(1, len(part) // 2))].numpy()
    images = to_unit(as_channels_first(part.frames))
    posterior = Posterior.of(torch.cat([checkpoint.encoder(some) for some in images.split(64)]))
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
