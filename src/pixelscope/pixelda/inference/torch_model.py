"""Trained networks in torch, from a run or from exported weights, as functions of NumPy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.data.loader import to_float
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.errors import InputError
from pixelscope.exports.metadata import require_system
from pixelscope.exports.weights import read_weights
from pixelscope.imaging.framing import Framing
from pixelscope.inference.replicas import Replicas
from pixelscope.pixelda.checkpoints import Checkpoint, load_weights
from pixelscope.pixelda.config import PixelDAConfig, exported_data
from pixelscope.pixelda.forward import draw_noise, pixels, redraw
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.refinement.checkpoints import build_classifier
from pixelscope.rng import generator

PREFIX = "classifier."
"""What the names of its tensors begin with in a .safetensors file."""
AT_ONCE = 64
"""Images that G redraws at a time."""


@dataclass
class TorchClassifier:
    """T on one or several devices; see `ClassifierModel`."""

    classifier: nn.Module
    classes: tuple[str, ...]
    size: int
    devices: int = 1
    value_range: tuple[float, float] | None = None
    framing: Framing | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Return the SHA-256 of the weights."""
        return {"model": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        return fingerprint(self.classifier)

    @cached_property
    def _replicas(self) -> Replicas[nn.Module]:
        return Replicas(self.classifier, self.devices)

    def prepare(self) -> None:
        """Copy the network to the devices; raises InputError where there are fewer."""
        _ = self._replicas

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        with self._replicas.lent() as (classifier, device):
            framed = images if self.framing is None else self.framing.apply(images)
            given = torch.from_numpy(np.require(framed, requirements=["C", "W"])).permute(0, 3, 1, 2)
            logits: Tensor = classifier(to_float(given.to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()


class TorchGenerator:
    """G of a run on one or several devices."""

    def __init__(self, found: Checkpoint, devices: int = 1) -> None:
        """Take G of an opened run; raises InputError where the run has none."""
        if found.generator is None or not isinstance(found.config, PixelDAConfig):
            run, system = found.folder.path, found.system
            raise InputError(f"{run} is a run of the {system}, which draws nothing; give one of `pixelscope pixelda train`.")
        self.config, self.identity = found.config, {"model": fingerprint(found.generator)}
        self._replicas: Replicas[Generator] = Replicas(found.generator, devices)

    def noise(self, seed: int, *path: int | str) -> NDArray[np.float32]:
        """Return z (noise_dim,), a function of `seed` and `path`."""
        return draw_noise(self.config, 1, generator("cpu", seed, *path))[0].numpy()

    def __call__(self, images: NDArray[np.uint8], z: Sequence[NDArray[np.float32]] | NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return uint8 images (N, size, size, 3) redrawn, each with its z (noise_dim,)."""
        with self._replicas.lent() as (network, device):
            given, noise = images.transpose(0, 3, 1, 2), torch.from_numpy(np.asarray(z, np.float32)).to(device)
            pieces = (slice(start, start + AT_ONCE) for start in range(0, len(given), AT_ONCE))
            return np.concatenate([pixels(redraw(network, given[piece], noise[piece])) for piece in pieces])


class Probabilities(nn.Module):
    """T with the probabilities that its logits stand for."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, (N, classes) each, of images (N, 3, S, S) in [-1, 1]."""
        logits = self.classifier(values)
        return logits, torch.softmax(logits, 1)


def load_weights_file(path: Path, devices: int = 1) -> TorchClassifier:
    """Return T of a .safetensors file that `export` made; raises InputError where it cannot be used."""
    tensors, about = read_weights(path)
    require_system(about, "pixelda", str(path))
    classifier = build_classifier(about.config, len(about.classes), about.size)
    load_weights(classifier, tensors, PREFIX, f"{path} holds weights of other shapes than it says; export the run again.")
    data = exported_data(about.config, str(path))
    return TorchClassifier(classifier, about.classes, about.size, devices, data.input_values, data.framed)


def named_tensors(found: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of T, and of G where there is one: to redraw images in another program needs nothing else."""
    tensors = {PREFIX + name: tensor for name, tensor in found.classifier.state_dict().items()}
    drawing = {} if found.generator is None else found.generator.state_dict()
    return tensors | {f"generator.{name}": tensor for name, tensor in drawing.items()}
