"""Trained networks in torch, from a run or from exported weights, as functions of NumPy arrays."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.data.loader import to_float
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.errors import InputError
from pixelscope.exports.metadata import require_system
from pixelscope.exports.weights import read_weights
from pixelscope.inference.replicas import ReplicaPool
from pixelscope.pixelda.checkpoints import Checkpoint, build_classifier, load_checkpoint, load_weights
from pixelscope.pixelda.config import DataConfig, PixelDAConfig, exported_data
from pixelscope.pixelda.forward import draw_noise, pixels, redraw
from pixelscope.pixelda.networks import Generator
from pixelscope.rng import generator

PREFIX = "classifier."
"""Prefix of the classifier's tensors in a .safetensors file."""
AT_ONCE = 64
"""Images per pass of G."""


class TorchClassifier:
    """T on one or several devices; see `ClassifierModel`."""

    def __init__(
        self, classifier: nn.Module, classes: tuple[str, ...], data: DataConfig, devices: int = 1, framed: bool = True
    ) -> None:
        """Wrap a classifier of images described by `data`; `framed`: frame its input as the target's images were."""
        self.classifier, self.classes, self.size, self.devices = classifier, classes, data.size, devices
        self.value_range, self._framing = data.input_values, data.framed if framed else None

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, devices: int = 1, framed: bool = True) -> Self:
        """Wrap the classifier of a checkpoint."""
        return cls(checkpoint.classifier, checkpoint.classes, checkpoint.config.data, devices, framed)

    @classmethod
    def from_run(cls, run: Path, checkpoint: str = "auto", devices: int = 1) -> Self:
        """Open a run of PixelDA, its baseline or a refinement; raises InputError if it cannot be used."""
        return cls.from_checkpoint(load_checkpoint(run, checkpoint), devices)

    @classmethod
    def from_file(cls, path: Path, devices: int = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError if it cannot be used."""
        tensors, about = read_weights(path)
        require_system(about, "pixelda", str(path))
        classifier = load_weights(
            lambda: build_classifier(about.config, len(about.classes), about.size),
            tensors,
            PREFIX,
            f"{path} has weights of other shapes than its metadata; export the run again.",
        )
        return cls(classifier, about.classes, exported_data(about.config, str(path)), devices)

    @property
    def identity(self) -> dict[str, str]:
        """Return the SHA-256 of the weights."""
        return {"model": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        return weights_sha256(self.classifier)

    @cached_property
    def _replicas(self) -> ReplicaPool[nn.Module]:
        return ReplicaPool(self.classifier, self.devices)

    def prepare(self) -> None:
        """Copy the network to the devices; raises InputError if there are fewer."""
        _ = self._replicas

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) for uint8 images (N, size, size, 3)."""
        with self._replicas.acquire() as (classifier, device):
            framed = images if self._framing is None else self._framing.apply(images)
            given = torch.from_numpy(np.require(framed, requirements=["C", "W"])).permute(0, 3, 1, 2)
            logits: Tensor = classifier(to_float(given.to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()


class TorchGenerator:
    """G of a run on one or several devices."""

    def __init__(self, checkpoint: Checkpoint, devices: int = 1) -> None:
        """Wrap G of a checkpoint; raises InputError if there is none."""
        if checkpoint.generator is None or not isinstance(checkpoint.config, PixelDAConfig):
            run, system = checkpoint.folder.path, checkpoint.system
            raise InputError(f"{run} is a run of the {system}, which has no generator; give one of `pixelscope pixelda train`.")
        self.config, self.identity = checkpoint.config, {"model": weights_sha256(checkpoint.generator)}
        self._replicas: ReplicaPool[Generator] = ReplicaPool(checkpoint.generator, devices)

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
