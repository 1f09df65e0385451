"""The baseline: T trained on the source alone, which shows the gap between the domains (the report's step 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import Stream
from pixelscope.engine.ema import MovingAverage
from pixelscope.engine.memory import laid_out, placed
from pixelscope.engine.optimize import apply_gradients, set_learning_rate
from pixelscope.engine.task import Task
from pixelscope.pixelda.accuracy import SourceEvaluation
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.losses import task_loss
from pixelscope.pixelda.networks import TaskNetwork, make_classifier
from pixelscope.pixelda.optimizer import adam, learning_rate
from pixelscope.rng import Moment, generator


@dataclass(frozen=True)
class LabelledBatch:
    """One step's labelled images."""

    images: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    labels: Tensor
    """int64 (n,)."""


class LabelledBatches:
    """Shuffled batches of one labelled set."""

    def __init__(self, images: ImageSet, seed: int, device: torch.device) -> None:
        self.stream = Stream(images, seed, "source", device)

    def __call__(self, moment: Moment) -> LabelledBatch:
        """Return this rank's part of the batch at `moment`."""
        images, labels = self.stream.take(moment)
        assert labels is not None
        return LabelledBatch(images, labels)


class BaselineTask(Task[LabelledBatch]):
    """T of one baseline run, with its optimizer and moving average."""

    labels = MappingProxyType(
        {
            "loss/classifier": "T",
            "accuracy/batch_source": "accuracy source",
            "accuracy/source_test": "source test",
            "accuracy/source_validation": "source validation",
        }
    )

    def __init__(
        self, config: BaselineConfig, classes: int, fabric: Fabric, evaluation: SourceEvaluation | None = None
    ) -> None:
        self.config, self.fabric, self.evaluation = config, fabric, evaluation
        self.classifier = placed(build_classifier(config, classes), fabric.device, config.runtime.layout)
        self.networks = {"classifier": self.classifier}
        self.optimizers = {"classifier": adam([self.classifier], config.optimizer)}
        half_life = config.training.ema_half_life
        self.averages = {"classifier": MovingAverage(self.classifier, half_life)} if half_life else {}

    def step(self, batch: LabelledBatch, moment: Moment) -> Mapping[str, Tensor]:
        """Train T on one batch."""
        optimizer = self.optimizers["classifier"]
        set_learning_rate(optimizer, learning_rate(self.config.optimizer, moment.images))
        with self.fabric.autocast():
            logits = self.classifier(laid_out(batch.images, self.config.runtime.layout), source=True)
        loss = task_loss(logits, batch.labels)
        loss.backward()
        norms = apply_gradients(optimizer, self.networks, self.config.optimizer.clip_norm)
        for average in self.averages.values():
            average.update(self.classifier, moment.batch_size, moment.images)
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return {"loss/classifier": loss.detach(), "gradient/classifier": norms["classifier"], "accuracy/batch_source": accuracy}

    def evaluate(self) -> dict[str, float]:
        """Measure T on the source's splits."""
        averaged = self.averages.get("classifier")
        return self.evaluation.measure(self.classifier, averaged.network if averaged else None) if self.evaluation else {}

    def choice(self, evaluation: Mapping[str, float]) -> float | None:
        """Choose the best checkpoint by source validation of the weights to be measured: the average, where one is kept."""
        return evaluation.get("accuracy/source_validation_ema", evaluation.get("accuracy/source_validation"))


def build_classifier(config: BaselineConfig, classes: int) -> TaskNetwork:
    """Build T with initial weights drawn from the configuration's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        return make_classifier(config.classifier.kind, classes, config.data.size, config.classifier.width)
