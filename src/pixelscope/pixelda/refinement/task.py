"""One step of a refinement: source and redrawn images with their labels, target images with labels of their own."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from pixelscope.data.imageset import ImageSet
from pixelscope.engine.distributed import synchronize_batch_norm
from pixelscope.engine.ema import MovingAverage
from pixelscope.engine.memory import laid_out, placed
from pixelscope.engine.optimize import apply_gradients, set_learning_rate
from pixelscope.engine.task import Task
from pixelscope.pixelda.losses import task_loss
from pixelscope.pixelda.metrics import accuracy_and_loss
from pixelscope.pixelda.networks import StrongClassifier
from pixelscope.pixelda.refinement.config import RefineConfig, ViewsConfig
from pixelscope.pixelda.refinement.data import RefineBatch, strong, weak
from pixelscope.rng import Moment

View = Callable[[Tensor, ViewsConfig, torch.Generator], Tensor]

FOLLOWS = 0.99
"""Share of the mean prediction kept at each step: it follows some hundred steps."""


class RefineTask(Task[RefineBatch]):
    """The classifier of a refinement, its optimizer, and its moving average, which is the teacher unless another is given."""

    labels = MappingProxyType(
        {
            "loss/source": "source",
            "loss/generated": "generated",
            "loss/target": "target",
            "trusted": "trusted",
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
        fabric: Fabric,
        validation: ImageSet | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """Make the optimizer and the moving average.

        frequencies: of the source's classes, (classes,), which add up to 1.
        validation: source images held out, to measure on.
        teacher: what labels target images in place of the moving average.
        """
        self.config, self.fabric, self.validation = config, fabric, validation
        self.classifier = placed(classifier, fabric.device, config.runtime.layout)
        if fabric.world_size > 1:
            synchronize_batch_norm(self.classifier)
        self.networks = {"classifier": self.classifier}
        adam = config.optimizer
        self.optimizers = {
            "classifier": torch.optim.AdamW(
                self.classifier.parameters(),
                lr=adam.learning_rate,
                betas=(adam.beta1, adam.beta2),
                weight_decay=adam.weight_decay,
                fused=True,
            )
        }
        self.averages = {"classifier": MovingAverage(self.classifier, max(1, config.training.ema_half_life))}
        self.teacher = None if teacher is None else placed(teacher, fabric.device, config.runtime.layout).eval()
        self.frequencies = frequencies.to(fabric.device)
        # What the teacher says of target images on average, which balancing corrects.
        self.predicted = self.frequencies.clone()
        self.memory = {"predicted": self.predicted}

    def step(self, batch: RefineBatch, moment: Moment) -> Mapping[str, Tensor]:
        """Train the classifier on one batch."""
        optimizer, config = self.optimizers["classifier"], self.config
        set_learning_rate(optimizer, cosine(config.optimizer.learning_rate, moment.images / config.training.images))
        draw = moment.draw("views")
        losses = {"source": self._labelled(batch.source, batch.labels, draw)}
        numbers: dict[str, Tensor] = {}
        if batch.generated is not None and batch.generated_labels is not None:
            losses["generated"] = self._labelled(batch.generated, batch.generated_labels, draw)
        views = self._view(weak, batch.target, draw)
        said = self._averaged(views)
        if config.self_training.use:
            losses["target"], numbers = self._self_taught(batch.target, views, said, draw)
        weights = {"target": self._weight(moment)}
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        total.backward()
        norms = apply_gradients(optimizer, self.networks)
        self.averages["classifier"].update(self.classifier, moment.batch_size, moment.images)
        named = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        return {**named, "gradient/classifier": norms["classifier"], **numbers}

    def evaluate(self) -> dict[str, float]:
        """Measure the averaged classifier on source images held out."""
        if self.validation is None:
            return {}
        return accuracy_and_loss(self.averages["classifier"].network, self.validation, "source_validation")

    def _weight(self, moment: Moment) -> float:
        taught = self.config.self_training
        return taught.weight * min(1.0, moment.images / taught.ramp if taught.ramp else 1.0)

    def _labelled(self, images: Tensor, labels: Tensor, draw: torch.Generator) -> Tensor:
        """Return the loss of labelled images, which batch norm normalises by themselves, like every domain's."""
        views = self._view(strong, images, draw)
        with self.fabric.autocast():
            logits = self._logits(views, draw)
        return task_loss(logits, labels)

    def _self_taught(
        self, images: Tensor, views: Tensor, said: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of target images by labels that the teacher is sure of; `said`: what the average says of `views`."""
        taught = self.config.self_training
        if self.teacher is not None:
            with torch.no_grad(), self.fabric.autocast():
                said = self.teacher(views)
        believed = self._balanced(said.float().softmax(1))
        sure, label = believed.max(1)
        trusted = (sure >= taught.threshold).float()
        with self.fabric.autocast():
            logits = self._logits(self._view(strong, images, draw), draw)
        loss = (F.cross_entropy(logits.float(), label, reduction="none") * trusted).mean()
        agreed = ((logits.argmax(1) == label).float() * trusted).sum() / trusted.sum().clamp(min=1)
        return loss, {"trusted": trusted.mean(), "agreement": agreed.detach()}

    def _averaged(self, views: Tensor) -> Tensor:
        """Return the average's logits of target images; its statistics follow them, as that is what it is used on."""
        with self.averages["classifier"].normalizing() as network, self.fabric.autocast():
            return network(views)

    def _balanced(self, said: Tensor) -> Tensor:
        """Return probabilities (N, classes) corrected towards the source's class frequencies, or as they are."""
        mean = self.fabric.all_reduce(said.mean(0), reduce_op="mean")
        self.predicted.mul_(FOLLOWS).add_(torch.as_tensor(mean), alpha=1 - FOLLOWS)
        if self.config.self_training.balance == "none":
            return said
        corrected = said * self.frequencies / self.predicted.clamp(min=1e-6)
        return corrected / corrected.sum(1, keepdim=True)

    def _logits(self, views: Tensor, draw: torch.Generator) -> Tensor:
        drops = isinstance(self.classifier, StrongClassifier)
        return self.classifier(views, draw=draw) if drops else self.classifier(views)

    def _view(self, alter: View, images: Tensor, draw: torch.Generator) -> Tensor:
        return laid_out(alter(images, self.config.views, draw), self.config.runtime.layout)


def cosine(start: float, done: float) -> float:
    """Return a learning rate that falls from `start` to 0 along half a cosine; done: share of the training, from 0 to 1."""
    return start * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
