"""What the decoder draws as training goes on: samples/progress.npz."""

import numpy as np
import torch

from pixelscope.data.disk_array import Pixels
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.sampling import decode, random_latents
from pixelscope.endovae.task import EndoVAETask
from pixelscope.rng import generator
from pixelscope.runs.arrays import read_arrays, save_arrays
from pixelscope.runs.folder import RunFolder

SHOWN = 5
"""Frames reconstructed, and latent vectors decoded, at each moment."""
ARRAYS = {"images": 1, "originals": 4, "reconstructions": 5, "generated": 5}


class ProgressSamples:
    """The same validation frames reconstructed, and the same z decoded, again and again."""

    def __init__(self, folder: RunFolder, frames: Pixels, seed: int) -> None:
        """Watch the first of `frames`, uint8 (N, S, S, 3)."""
        self.path = folder.samples / "progress.npz"
        self.frames = frames[:SHOWN]
        self.seed = seed

    @torch.no_grad()
    def draw(self, task: EndoVAETask, images: int) -> None:
        """Add the moment after `images` images."""
        device = task.fabric.device
        posterior = Posterior.of(task.encoder(to_unit(as_channels_first(self.frames)).to(device)))
        z = random_latents(SHOWN, task.config.model.latent, generator("cpu", self.seed, "progress")).to(device)
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
