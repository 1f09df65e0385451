"""Pseudo-labels: the teacher's confident predictions on target images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pixelscope.pixelda.refinement.config import SelfTrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DECAY = 0.99
"""Decay per step of the running means, which average over some hundred steps."""


class PseudoLabels:
    """Labels of target images, with running means of the teacher's predictions.

    Attributes:
        state: the running means, changed in place; part of a checkpoint. `predicted`: mean prediction, shape (classes,), sum 1;
            `confidence`: mean probability of the predicted class, a scalar; only of adaptive thresholds.
    """

    def __init__(self, config: SelfTrainingConfig, frequencies: Tensor, fabric: "Fabric") -> None:
        """Start from the class frequencies that the target is assumed to have, shape (classes,), sum 1."""
        self.config, self.fabric = config, fabric
        self.frequencies = frequencies.to(fabric.device)
        self.state: Mapping[str, Tensor] = {"predicted": self.frequencies.clone()}
        if config.thresholds == "adaptive":
            self.state = {**self.state, "confidence": self.frequencies.mean()}

    def label(self, *logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return int64 labels (n,) and whether each is confident, bool (n,).

        Args:
            *logits: the teacher's logits (n, classes) of the same images, one tensor per view. A label is confident only if all
                views give it.
        """
        probabilities = torch.stack([one.float().softmax(1) for one in logits]).mean(0)
        self._move("predicted", probabilities.mean(0))
        confidence, label = self._aligned(probabilities).max(1)
        if self.config.thresholds == "adaptive":
            self._move("confidence", confidence.mean())
        confident = confidence >= self.thresholds()[label]
        for one in logits if len(logits) > 1 else ():
            confident = confident & (self._aligned(one.float().softmax(1)).argmax(1) == label)
        return label, confident

    def thresholds(self) -> Tensor:
        """Return each class's minimum probability, shape (classes,).

        Adaptive ones are the mean confidence, times the frequency with which a class is predicted relative to the assumed
        frequency, at most 1. FreeMatch divides by the largest mean prediction instead, because its classes are equally
        frequent. Without an assumption about frequencies, all classes have the mean confidence.
        """
        if self.config.thresholds == "fixed":
            return torch.full_like(self.frequencies, self.config.threshold)
        if self.config.distribution_alignment == "none":
            return self.state["confidence"].expand_as(self.frequencies)
        return self.state["confidence"] * (self.state["predicted"] / self.frequencies.clamp(min=1e-6)).clamp(max=1)

    def _move(self, name: str, value: Tensor) -> None:
        """Move a running mean towards the mean of `value` over all processes."""
        self.state[name].lerp_(torch.as_tensor(self.fabric.all_reduce(value, reduce_op="mean")), 1 - DECAY)

    def _aligned(self, probabilities: Tensor) -> Tensor:
        """Return probabilities (n, classes) corrected towards the assumed class frequencies, unless that is off."""
        if self.config.distribution_alignment == "none":
            return probabilities
        corrected = probabilities * self.frequencies / self.state["predicted"].clamp(min=1e-6)
        return corrected / corrected.sum(1, keepdim=True)
