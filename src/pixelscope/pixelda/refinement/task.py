"""The training step of a refinement: source and generated images with labels, target images with pseudo-labels.

A pseudo-label is a confident prediction of the moving average of the trained classifier and the T to start from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelscope.data.imageset import ImageSet
from pixelscope.engine.augment import moved_view, strong_view, weak_view
from pixelscope.engine.config import ViewsConfig
from pixelscope.engine.distributed import synchronize_batch_norm
from pixelscope.engine.ema import EMA
from pixelscope.engine.optimize import adam, apply_gradients, set_learning_rate
from pixelscope.engine.runtime import to_device, to_memory_format
from pixelscope.engine.task import StepInputs, Task
from pixelscope.pixelda.losses import conditional_entropy, task_loss, virtual_adversarial_loss
from pixelscope.pixelda.metrics import accuracy_and_loss
from pixelscope.pixelda.networks import StrongClassifier
from pixelscope.pixelda.refinement.config import RefineConfig, SelfTrainingConfig
from pixelscope.pixelda.refinement.data import RefineBatch
from pixelscope.rng import StepContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric

View = Callable[[Tensor, ViewsConfig, torch.Generator], Tensor]
"""`weak_view`, `moved_view` or `strong_view`."""
LABEL_DECAY = 0.99
"""Decay per step of the running means of `PseudoLabels`, which average over some hundred steps."""


class PseudoLabels:
    """Labels of target images, with running means of the predictions that give them.

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

    def label(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Return int64 labels (n,) of predictions (n, classes), and whether each is confident, bool (n,)."""
        self._move("predicted", probabilities.mean(0))
        confidence, label = self._aligned(probabilities).max(1)
        if self.config.thresholds == "adaptive":
            self._move("confidence", confidence.mean())
        confident = confidence >= self.thresholds()[label]
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
        self.state[name].lerp_(torch.as_tensor(self.fabric.all_reduce(value, reduce_op="mean")), 1 - LABEL_DECAY)

    def _aligned(self, probabilities: Tensor) -> Tensor:
        """Return probabilities (n, classes) corrected towards the assumed class frequencies, unless that is off."""
        if self.config.distribution_alignment == "none":
            return probabilities
        corrected = probabilities * self.frequencies / self.state["predicted"].clamp(min=1e-6)
        return corrected / corrected.sum(1, keepdim=True)


class RefineTask(Task[RefineBatch]):
    """The classifier of a refinement, its optimizer, and its moving average, which is the teacher by default."""

    display_names = MappingProxyType(
        {
            "loss/source": "source",
            "loss/generated": "generated",
            "loss/target": "target",
            "loss/entropy": "entropy",
            "loss/virtual_adversarial": "adversarial",
            "pseudo_label_rate": "pseudo-labelled",
            "agreement": "agreement",
            "accuracy/source_validation": "source validation",
        }
    )
    if_not_finite = "refine again with a lower --optimizer.learning-rate"

    def __init__(
        self,
        config: RefineConfig,
        classifier: nn.Module,
        frequencies: Tensor,
        fabric: "Fabric",
        validation: ImageSet | None = None,
        teacher: nn.Module | None = None,
        start: nn.Module | None = None,
    ) -> None:
        """Create the optimizer and the moving average.

        Args:
            config: the settings.
            classifier: the network to train.
            frequencies: class frequencies that the target is assumed to have, shape (classes,), sum 1.
            fabric: the launched fabric.
            validation: source images held out, to measure on.
            teacher: network that labels target images instead of the moving average.
            start: network whose predictions are mixed with those of the moving average, with the weight `start_weight`.
        """
        self.config, self.fabric, self.validation = config, fabric, validation
        self.classifier = to_device(classifier, fabric.device, config.runtime.memory_format)
        if fabric.world_size > 1:
            synchronize_batch_norm(self.classifier)
        self.networks = {"classifier": self.classifier}
        self.passes = {"classifier": self.classifier}
        optimizer = config.optimizer
        self.optimizers = {
            "classifier": adam([self.classifier], optimizer, weight_decay=optimizer.weight_decay, decoupled=True)
        }
        self.averages = {"classifier": EMA(self.classifier, max(1, config.training.ema_half_life))}
        self.teacher = None if teacher is None else to_device(teacher, fabric.device, config.runtime.memory_format).eval()
        self.start = None if start is None else to_device(start, fabric.device, config.runtime.memory_format).eval()
        self.pseudo_labels = PseudoLabels(config.self_training, frequencies, fabric)
        self.schedule_state = self.pseudo_labels.state

    def inputs(self, context: StepContext) -> StepInputs:
        """Return learning rate, weights that change, what the average keeps, and the generator of the views."""
        config, done = self.config, context.images / self.config.training.images
        return StepInputs(
            {
                "learning rate": cosine_schedule(config.optimizer.learning_rate, done),
                "ramp": self._ramp(context),
                "start weight": config.self_training.start_weight * max(0.0, 1 - done),
                **self.averaging(context),
            },
            generators={"views": context.generator("views")},
            log_now=context.log_now,
        )

    def compute(self, batch: RefineBatch, inputs: StepInputs) -> Mapping[str, Tensor]:
        """Train the classifier on one batch."""
        optimizer, config, draw = self.optimizers["classifier"], self.config, inputs.generators["views"]
        set_learning_rate(optimizer, inputs.numbers["learning rate"])
        losses = {"source": self._labelled_loss(batch.source, batch.labels, draw, source=True)}
        numbers: dict[str, Tensor] = {}
        if batch.generated is not None and batch.generated_labels is not None:
            losses["generated"] = self._labelled_loss(batch.generated, batch.generated_labels, draw, source=False)
        count = config.self_training.weak_views if config.self_training.enabled else 1
        views = [self._view(weak_view if count == 1 else moved_view, batch.target, draw) for _ in range(count)]
        average_logits = [self._average_logits(view) for view in views]
        if config.self_training.enabled:
            predictions = self._predictions(views, average_logits, inputs.number("start weight"))
            losses["target"], numbers = self._pseudo_label_loss(batch.target, predictions, draw)
        if config.regularization.entropy or config.regularization.virtual_adversarial:
            losses |= self._regularization(views[0], draw)
        weights = {
            "target": config.self_training.weight,
            "entropy": config.regularization.entropy,
            "virtual_adversarial": config.regularization.virtual_adversarial,
        }
        ramp = inputs.number("ramp")
        total = torch.stack([weights[name] * ramp * loss if name in weights else loss for name, loss in losses.items()]).sum()
        total.backward()
        norms = apply_gradients(optimizer, self.networks)
        self.update_averages(inputs)
        named = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        return {**named, "gradient/classifier": norms["classifier"], **numbers}

    def evaluate(self) -> dict[str, float]:
        """Measure the averaged classifier on source images held out."""
        if self.validation is None:
            return {}
        return accuracy_and_loss(self.averages["classifier"].network, self.validation, "source_validation")

    def _ramp(self, context: StepContext) -> float:
        images = self.config.self_training.rampup_images
        return min(1.0, context.images / images) if images else 1.0

    def _labelled_loss(self, images: Tensor, labels: Tensor, draw: torch.Generator, source: bool) -> Tensor:
        """Return the loss of labelled images of one domain; batch norm normalises each domain by itself."""
        views = self._view(strong_view, images, draw)
        with self.fabric.autocast():
            logits = self._logits(views, draw, source)
        return task_loss(logits, labels)

    def _predictions(self, views: Sequence[Tensor], average_logits: Sequence[Tensor], start_weight: float | Tensor) -> Tensor:
        """Return the predictions that label target images, float32 (n, classes).

        Args:
            views: weak views of the images.
            average_logits: the moving average's logits (n, classes) of each view.
            start_weight: weight of the predictions of the network to start from, which sees the first view.
        """
        with torch.no_grad(), self.fabric.autocast():
            logits = average_logits if self.teacher is None else [self.teacher(view) for view in views]
            own = None if self.start is None else self.start(views[0])
        predictions = torch.stack([one.float().softmax(1) for one in logits]).mean(0)
        return predictions if own is None else torch.lerp(predictions, own.float().softmax(1), start_weight)

    def _pseudo_label_loss(
        self, images: Tensor, predictions: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of target images with confident pseudo-labels (FixMatch), and numbers for the log.

        Args:
            images: target images (n, 3, S, S) in [-1, 1].
            predictions: the predictions (n, classes) that label them.
            draw: generator of the strong views.
        """
        label, confident = self.pseudo_labels.label(predictions)
        mask = confident.float()
        with self.fabric.autocast():
            logits = self._logits(self._view(strong_view, images, draw), draw)
        loss = (F.cross_entropy(logits.float(), label, reduction="none") * mask).mean()
        agreed = ((logits.argmax(1) == label).float() * mask).sum() / mask.sum().clamp(min=1)
        return loss, {"pseudo_label_rate": mask.mean(), "agreement": agreed.detach()}

    def _regularization(self, views: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of weak views of target images that need no label, those whose weight is above 0."""
        weights, uniform = self.config.regularization, self._dropout(views, draw)
        classify = partial(self._classify, uniform=uniform)
        losses = {}
        with self.fabric.autocast():
            logits = classify(views)
            if weights.entropy:
                losses["entropy"] = conditional_entropy(logits)
            if weights.virtual_adversarial:
                start = torch.randn(views.shape, generator=draw, device=views.device)
                losses["virtual_adversarial"] = virtual_adversarial_loss(classify, views, logits, start, weights.radius)
        return losses

    def _average_logits(self, views: Tensor) -> Tensor:
        """Return the average's logits of target images, which also update its batch norm statistics."""
        with self.averages["classifier"].updating_batch_norm() as network, self.fabric.autocast():
            return network(views)

    def _logits(self, views: Tensor, draw: torch.Generator, source: bool = False) -> Tensor:
        return self._classify(views, self._dropout(views, draw), source)

    def _classify(self, views: Tensor, uniform: Tensor | None, source: bool = False) -> Tensor:
        """Return logits; `source` matters with private first layers only, which a network with dropout does not have."""
        classify = self.passes["classifier"]
        return classify(views, source=source) if uniform is None else classify(views, uniform=uniform)

    def _dropout(self, views: Tensor, draw: torch.Generator) -> Tensor | None:
        """Return the values that decide what dropout drops for `views`; None without dropout."""
        classifier = self.classifier
        if not (isinstance(classifier, StrongClassifier) and classifier.dropout):
            return None
        return classifier.draw(len(views), views.device, draw)

    def _view(self, alter: View, images: Tensor, draw: torch.Generator) -> Tensor:
        return to_memory_format(alter(images, self.config.views, draw), self.config.runtime.memory_format)


def cosine_schedule(start: float, done: float) -> float:
    """Return a learning rate that falls from `start` to 0 along half a cosine; done: share of the training, from 0 to 1."""
    return start * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
