"""The networks of a finished run, ready for use."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.data.batches import to_float
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.exchange.about import require_system
from pixelscope.exchange.weights_file import read_weights
from pixelscope.pixelda.chosen import Weights, available_weights
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.evaluation import headline_rule
from pixelscope.pixelda.networks import Classifier
from pixelscope.pixelda.training import read_config

PREFIX = "classifier."
"""What the names of its tensors begin with in a .safetensors file."""


class TrainedRun:
    """A finished run of PixelDA or its baseline, its weights chosen by a rule."""

    def __init__(self, run: Path, rule: str = "auto") -> None:
        """Open it; raises InputError where it is not one, not finished (and no rule named), or damaged."""
        self.folder = RunFolder.open(run)
        self.config: BaselineConfig
        self.config, self.system = read_config(self.folder)
        if rule == "auto":
            self.folder.require_finished()
        self.classes = tuple(self.folder.read_record().get("classes", ()))
        found = available_weights(self.folder, self.config, self.classes)
        self.rule = headline_rule(rule, self.system, found)
        self.weights: Weights = found[self.rule]


class TorchClassifier:
    """T on one or several devices; see `ClassifierModel`."""

    def __init__(self, classifier: Classifier, classes: tuple[str, ...], size: int, devices: int = 1) -> None:
        self.classes, self.size, self.devices = classes, size, devices
        self.identity = {"model": fingerprint(classifier)}
        self._replicas = Replicas(classifier, devices)

    @classmethod
    def of_run(cls, run: Path, rule: str = "auto", devices: int = 1) -> Self:
        """Open a finished run."""
        opened = TrainedRun(run, rule)
        return cls(opened.weights.classifier, opened.classes, opened.config.data.size, devices)

    @classmethod
    def of_file(cls, path: Path, devices: int = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError where it cannot be used."""
        tensors, about = read_weights(path)
        require_system(about, "pixelda", str(path))
        private = about.config.get("classifier", {}).get("private_first_layer", False)
        classifier = Classifier(len(about.classes), about.size, private_first_layer=private)
        own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        try:
            classifier.load_state_dict(own)
        except RuntimeError:
            raise InputError(f"{path} holds weights of other shapes than it says; export the run again.") from None
        return cls(classifier, about.classes, about.size, devices)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        with self._replicas.lent() as (classifier, device):
            logits: Tensor = classifier(to_float(torch.from_numpy(images).permute(0, 3, 1, 2).to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()
