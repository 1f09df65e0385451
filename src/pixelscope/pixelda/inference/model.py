"""Load a classifier from a run folder or an exported file; importing this imports no torch."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.exports.metadata import refuse_checkpoint, require_system
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.imaging.convert import require_rgb
from pixelscope.pixelda.config import DataConfig, exported_data
from pixelscope.pixelda.results import Choose

if TYPE_CHECKING:
    # They bring torch, which an .onnx file does without.
    from torch import nn

    from pixelscope.inference.replicas import ReplicaPool
    from pixelscope.pixelda.checkpoints import Checkpoint

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
PROBABILITIES = "probabilities"
PREFIX = "classifier."
"""What the names of T's tensors begin with in a .safetensors file."""


class ClassifierModel(Protocol):
    """A classifier of images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in output order."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels of its input."""
        ...

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values mapped to black and white in files deeper than 8 bits, as in training; None uses the range of their type."""
        ...

    @property
    def devices(self) -> int:
        """Number of threads that may call it at a time."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """Identity of the model, for resumable tables."""
        ...

    @property
    def choice(self) -> str:
        """Which classifier of its run it is, and why; empty for an exported file."""
        ...

    def prepare(self) -> None:
        """Copy the networks to the devices, before several threads call it; raises InputError if there are fewer."""
        ...

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) for uint8 images (N, size, size, 3); raises InputError for others.

        Images of an .onnx file may have any size.
        """
        ...


def load_classifier(
    path: Path, checkpoint: str = "auto", devices: int | None = 1, choose: Choose = "adapted"
) -> ClassifierModel:
    """Return the classifier of a run of PixelDA, its baseline or a refinement, or of an exported file.

    Args:
        path: a finished run, which needs torch; or a file ending in .onnx, which does not, or .safetensors.
        checkpoint: which weights of a run; see `evaluate`. An unfinished run is used only if one is named. A file has one.
        devices: number of GPUs, or of CPU threads if there is no GPU; None: one GPU, or a thread for each core.
        choose: for a run of PixelDA: the adapted classifier, or with `auto` the one that is likely more accurate on the
            target.

    Returns:
        A function from uint8 images (N, size, size, 3) to probabilities (N, classes).

    Raises:
        InputError: `path` is neither, or cannot be used.

    Example:
        >>> model = pixelscope.pixelda.load_classifier(Path("classifier.onnx"))
        >>> labels = [model.classes[best] for best in model(images).argmax(1)]
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_file() and choose == "auto":
        raise InputError(f"{path} is a file, which has one classifier only; drop --choose auto, or give the run folder.")
    if path.is_file():
        refuse_checkpoint(path, checkpoint)
    if path.is_file() and suffix == ".onnx":
        return OnnxClassifier(path, devices)
    if path.is_file() and suffix != ".safetensors":
        raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")
    if path.is_file():
        return TorchClassifier.from_file(path, devices)
    return TorchClassifier.from_run(path, checkpoint, devices, choose)


class OnnxClassifier:
    """T of an ONNX file; see `ClassifierModel`."""

    def __init__(self, path: Path, devices: int | None = 1) -> None:
        if devices not in (None, 1):
            raise InputError(f"{path} runs on the CPU; leave out --devices, or give the run folder.")
        self._model, self.devices, self.choice = OnnxModel(path), 1, ""
        about = self._model.about
        require_system(about, "pixelda", str(path))
        self.classes, self.size, self.identity = about.classes, about.size, {"model": about.weights_sha256}
        self.value_range = exported_data(about.config, str(path)).input_values

    def prepare(self) -> None:
        """Do nothing: the file is read already."""

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) for uint8 images (N, H, W, 3)."""
        return np.asarray(self._model(images, [PROBABILITIES])[PROBABILITIES], np.float32)


class TorchClassifier:
    """T of a run or of exported weights, on one or several devices; see `ClassifierModel`. It runs in torch."""

    def __init__(
        self,
        classifier: "nn.Module",
        classes: tuple[str, ...],
        data: DataConfig,
        devices: int | None = 1,
        framed: bool = True,
    ) -> None:
        """Use a classifier of images described by `data`; framed: frame images like the target's."""
        self.classifier, self.classes, self.size, self._asked = classifier, classes, data.size, devices
        self.value_range, self._framing = data.input_values, data.framed if framed else None
        self.choice = ""

    @classmethod
    def from_checkpoint(cls, checkpoint: "Checkpoint", devices: int | None = 1, framed: bool = True) -> Self:
        """Take over the classifier of an opened run."""
        found = cls(checkpoint.classifier, checkpoint.classes, checkpoint.config.data, devices, framed)
        found.choice = checkpoint.describe_choice()
        return found

    @classmethod
    def from_run(cls, run: Path, checkpoint: str = "auto", devices: int | None = 1, choose: Choose = "adapted") -> Self:
        """Open a run of PixelDA, its baseline or a refinement; raises InputError if it cannot be used."""
        from pixelscope.pixelda.checkpoints import choose_classifier, load_checkpoint

        return cls.from_checkpoint(choose_classifier(load_checkpoint(run, checkpoint), choose), devices)

    @classmethod
    def from_file(cls, path: Path, devices: int | None = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError if it cannot be used."""
        from pixelscope.exports.weights import read_weights
        from pixelscope.pixelda.checkpoints import build_classifier, load_weights

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
        from pixelscope.engine.checkpoint import weights_sha256

        return weights_sha256(self.classifier)

    @cached_property
    def _replicas(self) -> "ReplicaPool[nn.Module]":
        from pixelscope.inference.replicas import ReplicaPool

        return ReplicaPool(self.classifier, self._asked)

    @property
    def devices(self) -> int:
        """Return the number of threads that may call it at a time."""
        return self._replicas.devices

    def prepare(self) -> None:
        """Copy the network to the devices; raises InputError if there are fewer."""
        _ = self._replicas

    def __call__(self, images: Bytes) -> Floats:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        import torch

        from pixelscope.data.loader import to_float

        require_rgb(images, self.size)
        with self._replicas.acquire() as (classifier, device), torch.no_grad():
            framed = images if self._framing is None else self._framing.apply(images)
            given = torch.from_numpy(np.require(framed, requirements=["C", "W"])).permute(0, 3, 1, 2)
            logits: torch.Tensor = classifier(to_float(given.to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()
