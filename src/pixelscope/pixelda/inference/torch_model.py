"""G in torch as a function of NumPy arrays, and the networks as they are exported."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.errors import InputError
from pixelscope.inference.replicas import ReplicaPool
from pixelscope.pixelda.checkpoints import Checkpoint
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.forward import draw_noise, pixels, redraw
from pixelscope.pixelda.inference.model import PREFIX
from pixelscope.pixelda.networks import Generator
from pixelscope.rng import generator

AT_ONCE = 64
"""Images per pass of G."""


class TorchGenerator:
    """G of a run on one or several devices."""

    def __init__(self, checkpoint: Checkpoint, devices: int | None = 1) -> None:
        """Wrap G of a checkpoint; raises InputError if there is none."""
        if checkpoint.generator is None or not isinstance(checkpoint.config, PixelDAConfig):
            run, what = checkpoint.folder.path, "refinement" if checkpoint.system == "refined" else "baseline"
            raise InputError(f"{run} is a {what}, which has no generator; give a run of `pixelscope pixelda train`.")
        self.config, self.identity = checkpoint.config, {"model": weights_sha256(checkpoint.generator)}
        self._replicas: ReplicaPool[Generator] = ReplicaPool(checkpoint.generator, devices)
        self.devices = self._replicas.devices

    def noise(self, seed: int, *path: int | str) -> NDArray[np.float32]:
        """Return z (noise_dim,), a function of `seed` and `path`."""
        return draw_noise(self.config, 1, generator("cpu", seed, *path))[0].numpy()

    def __call__(self, images: NDArray[np.uint8], z: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return uint8 images (N, size, size, 3) translated, each with its z (noise_dim,)."""
        with self._replicas.acquire() as (network, device):
            given, noise = images.transpose(0, 3, 1, 2), torch.from_numpy(np.asarray(z, np.float32)).to(device)
            pieces = (slice(start, start + AT_ONCE) for start in range(0, len(given), AT_ONCE))
            return np.concatenate([pixels(redraw(network, given[piece], noise[piece])) for piece in pieces])


class ClassifierGraph(nn.Module):
    """The exported network: images to logits and probabilities of T."""

    OUTPUTS = ("logits", "probabilities")

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return `OUTPUTS`, (N, classes) each, for images (N, 3, S, S) in [-1, 1]."""
        logits = self.classifier(values)
        return logits, torch.softmax(logits, 1)


def exported_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of T, and of G if there is one, which suffice to translate images in another program."""
    tensors = {PREFIX + name: tensor for name, tensor in checkpoint.classifier.state_dict().items()}
    drawing = {} if checkpoint.generator is None else checkpoint.generator.state_dict()
    return tensors | {f"generator.{name}": tensor for name, tensor in drawing.items()}
