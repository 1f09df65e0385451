"""A classifier in torch, from a run or from exported weights."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.data.loader import to_float
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.errors import InputError
from pixelscope.exchange.about import require_system
from pixelscope.exchange.weights_file import read_weights
from pixelscope.imaging.framing import Framing
from pixelscope.pixelda.exported import data_config
from pixelscope.pixelda.opened import open_run, rebuilt

PREFIX = "classifier."
"""What the names of its tensors begin with in a .safetensors file."""


class TorchClassifier:
    """T on one or several devices; see `ClassifierModel`."""

    def __init__(self, classifier: nn.Module, classes: tuple[str, ...], size: int, devices: int = 1) -> None:
        self.classes, self.size, self.devices = classes, size, devices
        self.value_range: tuple[float, float] | None = None
        self.framing: Framing | None = None
        self.identity = {"model": fingerprint(classifier)}
        self._replicas = Replicas(classifier, devices)

    @classmethod
    def of_run(cls, run: Path, rule: str = "auto", devices: int = 1, finished: bool = True) -> Self:
        """Open a run; see `open_run`."""
        opened = open_run(run, rule, finished)
        model = cls(opened.classifier, opened.classes, opened.size, devices)
        model.value_range, model.framing = opened.data.data.input_values, opened.data.data.framed
        return model

    @classmethod
    def of_file(cls, path: Path, devices: int = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError where it cannot be used."""
        tensors, about = read_weights(path)
        require_system(about, "pixelda", str(path))
        classifier = rebuilt(about.config, len(about.classes), about.size)
        own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        try:
            classifier.load_state_dict(own)
        except RuntimeError:
            raise InputError(f"{path} holds weights of other shapes than it says; export the run again.") from None
        model = cls(classifier, about.classes, about.size, devices)
        data = data_config(about, str(path))
        model.value_range, model.framing = data.input_values, data.framed
        return model

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        with self._replicas.lent() as (classifier, device):
            framed = images if self.framing is None else self.framing.apply(images)
            given = torch.from_numpy(np.require(framed, requirements=["C", "W"])).permute(0, 3, 1, 2)
            logits: Tensor = classifier(to_float(given.to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()
