"""Accuracy and confusion counts of a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelscope.data.disk_array import Bytes, Pixels, evenly_spaced
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import to_float
from pixelscope.data.split import Split
from pixelscope.engine.runtime import computing_device
from pixelscope.pixelda.results import ClassAccuracy, SetResult, standard_error

BATCH = 500
"""Images per pass; larger passes exceed the processor's cache and are slower."""
MEASURED = 10_000
"""Maximum number of training images measured per evaluation in training; MNIST has as many test images."""


@torch.no_grad()
def logits_of(classifier: nn.Module, images: Pixels, source: bool = False, batch: int = BATCH) -> Tensor:
    """Return float32 logits (N, classes) of uint8 `images` (N, C, S, S), the network in evaluation mode."""
    training = classifier.training
    classifier.eval()
    device = next(classifier.parameters()).device
    logits = torch.empty(0)
    for start in range(0, len(images), batch):
        part = classifier(to_float(torch.from_numpy(images[start : start + batch]).to(device)), source=source).cpu()
        if start == 0:
            # One allocation for all logits. Small tensors kept between the large temporaries of each pass fragment the heap,
            # which then grows by a gigabyte or more over 56,000 images.
            logits = torch.empty(len(images), part.shape[1])
        logits[start : start + batch] = part
    classifier.train(training)
    return logits


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return int64 counts (classes, classes): rows the true class, columns the predicted one."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


@dataclass
class SourceEvaluation:
    """Measures T in training, on the source's splits only; it has no target labels."""

    source: Split

    def measure(self, classifier: nn.Module, average: nn.Module | None) -> dict[str, float]:
        """Return accuracy and loss on the source's splits, and the accuracies of the averaged classifier.

        A training split larger than `MEASURED` is sampled evenly.
        """
        numbers: dict[str, float] = {}
        for name in ("train", "test", "validation"):
            images: ImageSet = getattr(self.source, name)
            if name == "train" and len(images) > MEASURED:
                images = images.select(torch.linspace(0, len(images) - 1, MEASURED).long().numpy())
            if len(images):
                numbers |= accuracy_and_loss(classifier, images, f"source_{name}")
        for name in ("test", "validation"):
            images = getattr(self.source, name)
            if average is not None and len(images):
                numbers[f"accuracy/source_{name}_ema"] = accuracy_and_loss(average, images, "ema")["accuracy/ema"]
        return numbers

    def some(self, count: int) -> Bytes:
        """Return up to `count` evenly spaced uint8 images of the source's training split, whose classes may be in order."""
        return self.source.train.images[evenly_spaced(np.arange(len(self.source.train)), count)]


def accuracy_and_loss(classifier: nn.Module, images: ImageSet, name: str) -> dict[str, float]:
    """Return a classifier's `accuracy/NAME` and `loss/NAME` on labelled source images."""
    assert images.labels is not None
    logits, labels = logits_of(classifier, images.images, source=True), torch.from_numpy(images.labels)
    return {
        f"accuracy/{name}": float((logits.argmax(1) == labels).double().mean()),
        f"loss/{name}": float(F.cross_entropy(logits, labels)),
    }


@dataclass(frozen=True)
class MeasuredSet:
    """Labelled images of one domain."""

    title: str
    parts: list[ImageSet]
    source: bool
    """Whether they are source images, for which T may have a separate first layer."""

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def measure(classifier: nn.Module, images: MeasuredSet) -> Tensor:
    """Return the confusion counts (classes, classes) of `classifier` on `images`; moves it to the GPU if there is one."""
    return measure_all(classifier, {"": images})[""]


def measure_all(classifier: nn.Module, sets: Mapping[str, MeasuredSet]) -> dict[str, Tensor]:
    """Return `measure` for every set; images in several sets are classified once."""
    classifier, known = classifier.to(computing_device()), dict[tuple[int, bool], Tensor]()
    for images in sets.values():
        for part in images.parts:
            if (id(part), images.source) not in known:
                known[id(part), images.source] = _counts(classifier, part, images.source)
    return {
        name: torch.stack([known[id(part), images.source] for part in images.parts]).sum(0) for name, images in sets.items()
    }


def accuracies(counts: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the accuracy per set, computed from its confusion counts."""
    return {name: int(found.trace()) / int(found.sum()) for name, found in counts.items()}


def discordant(one: nn.Module, other: nn.Module, images: MeasuredSet) -> int:
    """Return the number of `images` that only one of two classifiers classifies correctly."""
    return sum(int((_correct(one, part, images.source) != _correct(other, part, images.source)).sum()) for part in images.parts)


def _correct(classifier: nn.Module, images: ImageSet, source: bool) -> Tensor:
    assert images.labels is not None
    return logits_of(classifier, images.images, source=source).argmax(1) == torch.from_numpy(images.labels)


def _counts(classifier: nn.Module, images: ImageSet, source: bool) -> Tensor:
    assert images.labels is not None
    logits = logits_of(classifier, images.images, source=source)
    return confusion(logits.argmax(1), torch.from_numpy(images.labels), logits.shape[1])


def set_result(title: str, counts: Tensor, classes: list[str]) -> SetResult:
    """Return accuracy, its standard error and accuracy per class from confusion counts (rows true, columns predicted)."""
    count, correct = int(counts.sum()), int(counts.trace())
    accuracy = correct / count
    rows = zip(classes, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return SetResult(
        title=title,
        count=count,
        correct=correct,
        accuracy=accuracy,
        standard_error=standard_error(accuracy, count),
        per_class=tuple(ClassAccuracy(name=name, count=n, accuracy=hits / n if n else None) for name, hits, n in rows),
        confusion=counts.tolist(),
    )
