"""Pseudo-labels: the teacher's confident predictions on target images."""

from collections.abc import Mapping

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pixelscope.pixelda.refinement.config import SelfTrainingConfig

DECAY = 0.99
"""Decay per step of the running means, which average over some hundred steps."""


class PseudoLabels:
    """Labels of target images, with running means of the teacher's predictions.

    Attributes:
        state: the running means, changed in place; part of a checkpoint. `predicted`: mean prediction, shape (classes,), sum 1;
            `confidence`: mean probability of the predicted class, a scalar.
    """

    def __init__(self, config: SelfTrainingConfig, class_prior: Tensor, fabric: Fabric) -> None:
        """Start from the class frequencies of the source, `class_prior` (classes,) with sum 1."""
        self.config, self.fabric = config, fabric
        self.class_prior = class_prior.to(fabric.device)
        self.state: Mapping[str, Tensor] = {"predicted": self.class_prior.clone(), "confidence": self.class_prior.mean()}

    def label(self, *logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return int64 labels (n,) and whether each is confident, bool (n,).

        Args:
            *logits: the teacher's logits (n, classes) of the same images, one tensor per view. A label is confident only if all
                views give it.
        """
        probabilities = torch.stack([one.float().softmax(1) for one in logits]).mean(0)
        mean = torch.as_tensor(self.fabric.all_reduce(probabilities.mean(0), reduce_op="mean"))
        self.state["predicted"].lerp_(mean, 1 - DECAY)
        probabilities = self._aligned(probabilities)
        confidence, label = probabilities.max(1)
        mean = torch.as_tensor(self.fabric.all_reduce(confidence.mean(), reduce_op="mean"))
        self.state["confidence"].lerp_(mean, 1 - DECAY)
        confident = confidence >= self.thresholds()[label]
        for one in logits if len(logits) > 1 else ():
            confident = confident & (self._aligned(one.float().softmax(1)).argmax(1) == label)
        return label, confident

    def _aligned(self, probabilities: Tensor) -> Tensor:
        """Return probabilities (n, classes) corrected towards the source's class frequencies, unless that is off."""
        if self.config.distribution_alignment == "none":
            return probabilities
        corrected = probabilities * self.class_prior / self.state["predicted"].clamp(min=1e-6)
        return corrected / corrected.sum(1, keepdim=True)

    def thresholds(self) -> Tensor:
        """Return each class's minimum probability, shape (classes,)."""
        if self.config.thresholds == "fixed":
            return torch.full_like(self.class_prior, self.config.threshold)
        learned = self.state["predicted"] / self.class_prior.clamp(min=1e-6)
        return self.state["confidence"] * learned / learned.max()
