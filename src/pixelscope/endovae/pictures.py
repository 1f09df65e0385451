"""The pictures of a run, stored as arrays in samples/: reconstructions, generated frames, ways through the latent space."""

from collections.abc import Mapping

import numpy as np
import torch

from pixelscope.endovae.batches import as_channels_first, from_unit, to_unit
from pixelscope.endovae.chosen import Weights
from pixelscope.endovae.cohort import Cohort, Part
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.reconstruction import reconstruct_frames
from pixelscope.endovae.sampling import decode, interpolate, random_latents, traverse
from pixelscope.rng import generator
from pixelscope.runs.arrays import save_arrays
from pixelscope.runs.folder import RunFolder

SHOWN = 5
"""Reconstructions shown of each set, as in the report, and as many of the best and of the worst."""
GENERATED = 9
WAYS, STEPS = 3, 9
"""Interpolations, and latent vectors on each."""
DIMENSIONS, REACH = 8, 3.0
"""Latent dimensions walked along at most, those of the largest divergence; as far as this many standard deviations."""


def write_pictures(
    folder: RunFolder, cohort: Cohort, weights: Weights, metrics: Mapping[str, Mapping[str, np.ndarray]], seed: int
) -> None:
    """Store the pictures of the held-out frames, whose PSNR and SSIM are in `metrics` by kind, and of the latent space."""
    for kind, part in cohort.held_out.items():
        _write_reconstructions(folder, kind, part, weights, metrics[kind], seed)
    _write_generated(folder, weights, seed)
    _write_ways(folder, cohort.held_out.get("normal", cohort.validation), weights, seed)


def _write_reconstructions(
    folder: RunFolder, kind: str, part: Part, weights: Weights, metrics: Mapping[str, np.ndarray], seed: int
) -> None:
    # A frame whose pixels are all left out has no quality, and would come as the best of all.
    known = np.flatnonzero(~np.isnan(metrics["psnr"] + metrics["ssim"]))
    order = known[np.argsort(metrics["psnr"][known], kind="stable")]
    count = min(SHOWN, len(known))
    rows = {
        "random": known[torch.randperm(len(known), generator=generator("cpu", seed, "reconstructions"))[:count].numpy()],
        "worst": order[:count],
        "best": order[::-1][:count],
    }
    for name, shown in rows.items():
        found = reconstruct_frames(weights, part.store.frames[part.positions[shown]])
        save_arrays(
            folder.samples / f"reconstructions-{kind}-{name}.npz",
            originals=pixels(found.images),
            reconstructions=pixels(found.reconstructions),
            psnr=metrics["psnr"][shown],
            ssim=metrics["ssim"][shown],
        )


def _write_generated(folder: RunFolder, weights: Weights, seed: int) -> None:
    z = random_latents(GENERATED, weights.encoder.mean.out_features, generator("cpu", seed, "generated"))
    save_arrays(folder.samples / "generated.npz", generated=decode(weights.decoder, z).numpy())


@torch.no_grad()
def _write_ways(folder: RunFolder, part: Part, weights: Weights, seed: int) -> None:
    """Store ways between frames of a part, and along single latent dimensions from the first of them."""
    order = torch.randperm(len(part), generator=generator("cpu", seed, "ways"))
    ends = order.repeat(2)[: 2 * min(WAYS, max(1, len(part) // 2))].numpy()
    images = to_unit(as_channels_first(part.frames))
    posterior = Posterior.of(torch.cat([weights.encoder(some) for some in images.split(64)]))
    frames, modes = part.store.frames[part.positions[ends]], posterior.mode[ends]
    ways = [decode(weights.decoder, interpolate(modes[i], modes[i + 1], STEPS)).numpy() for i in range(0, len(ends), 2)]
    save_arrays(folder.samples / "interpolation.npz", ends=frames.reshape(-1, 2, *frames.shape[1:]), ways=np.stack(ways))
    divergence = posterior.kl().mean(0)
    dimensions = divergence.argsort(descending=True, stable=True)[:DIMENSIONS]
    values = torch.linspace(-REACH, REACH, STEPS)
    origin = torch.zeros(len(divergence))
    walks = [decode(weights.decoder, traverse(origin, int(d), values)).numpy() for d in dimensions]
    save_arrays(
        folder.samples / "traversal.npz",
        walks=np.stack(walks),
        values=values.numpy(),
        dimensions=dimensions.numpy(),
        kl=divergence[dimensions].numpy(),
    )


def pixels(images: torch.Tensor) -> np.ndarray:
    """Return float images (N, 3, S, S) in [0, 1] as uint8 arrays (N, S, S, 3)."""
    return from_unit(images).permute(0, 2, 3, 1).contiguous().numpy()
