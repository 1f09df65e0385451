"""The networks of a finished run, ready for use."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.data.batches import to_float
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.engine.run import RunFolder
from pixelscope.pixelda.chosen import Weights, available_weights
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.evaluation import headline_rule
from pixelscope.pixelda.training import read_config


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


class TrainedClassifier:
    """T of a run; see `ClassifierModel`."""

    def __init__(self, run: Path, rule: str = "auto", devices: int = 1) -> None:
        opened = TrainedRun(run, rule)
        self.classes, self.size, self.devices = opened.classes, opened.config.data.size, devices
        self.identity = {"model": fingerprint(opened.weights.classifier)}
        self._replicas = Replicas(opened.weights.classifier, devices)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (N, classes) of uint8 images (N, size, size, 3)."""
        with self._replicas.lent() as (classifier, device):
            logits: Tensor = classifier(to_float(torch.from_numpy(images).permute(0, 3, 1, 2).to(device)))
            return torch.softmax(logits.float(), 1).cpu().numpy()
