"""Time and images until a classifier reaches an accuracy on the target, at the demo's size: ours and the plain program.

python -m benchmarks.to_accuracy [--accuracy 0.8] [--threads 2] [--out FILE.json]

Both train on the same images and are measured on the target's test split every 50 steps, out of the clock. Target labels do
nothing but stop the clock. Ours is measured twice: T itself, and its moving average, which is what a run hands over.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.contenders import training_fabric
from benchmarks.plain.data import Digits, endless
from benchmarks.plain.pixelda import PlainPixelDA
from pixelscope.data.imageset import ImageSet
from pixelscope.pixelda.config import PixelDAConfig, preset
from pixelscope.pixelda.data import Domains, load_domains
from pixelscope.pixelda.metrics import logits_of
from pixelscope.pixelda.task import PairedBatches, PixelDATask
from pixelscope.rng import StepContext

EVERY, MOST = 50, 3000
"""Steps between two measurements, and steps after which a program has not reached it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Race both programs, print and store what they needed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.to_accuracy", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--accuracy", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/to-accuracy.json"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    config = PixelDAConfig.parse(preset("pixelda", "demo"))
    domains = load_domains(config)
    result = {"accuracy": chosen.accuracy, "threads": chosen.threads, "torch": torch.__version__}
    size = config.training.batch_size
    result["plain"] = race(*plain(domains, config), domains, chosen.accuracy, size)
    result["ours"] = race(*ours(domains, config), domains, chosen.accuracy, size)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


Step = Callable[[int], object]


def ours(domains: Domains, config: PixelDAConfig) -> tuple[Step, dict[str, nn.Module]]:
    """Return our step, and the classifiers to measure."""
    fabric, _ = training_fabric("auto")
    task = PixelDATask(config, len(domains.classes), fabric)
    batches = PairedBatches(domains.source.train, domains.training_target(), config.seed, fabric.device)
    size = config.training.batch_size

    def step(number: int) -> None:
        context = StepContext(number * size, number, size, config.seed, device=fabric.device)
        task.step(batches(context), context)

    return step, {"T": task.classifier, "moving average of T": task.averages["classifier"].network}


def plain(domains: Domains, config: PixelDAConfig) -> tuple[Step, dict[str, nn.Module]]:
    """Return the plain program's step, and its classifier."""
    torch.manual_seed(config.seed)
    model = PlainPixelDA(config.generator.blocks, config.generator.width, config.discriminator.width)
    source, target = (_forever(images, config) for images in (domains.source.train, domains.training_target()))

    def step(number: int) -> None:
        images, labels = next(source)
        model.step(images, labels, next(target)[0])

    return step, {"T": Answering(model.t)}


def race(step: Step, classifiers: dict[str, nn.Module], domains: Domains, accuracy: float, batch_size: int) -> dict[str, Any]:
    """Return by classifier the seconds, images and steps of `batch_size` after which it first reached `accuracy`."""
    assert domains.target is not None
    test, seconds, reached = domains.target.test, 0.0, {}
    for number in range(1, MOST + 1):
        began = time.perf_counter()
        step(number - 1)
        seconds += time.perf_counter() - began
        if number % EVERY == 0:
            for name in classifiers.keys() - reached.keys():
                found = _accuracy(classifiers[name], test)
                if found >= accuracy:
                    images = batch_size * number
                    reached[name] = {"seconds": round(seconds, 1), "images": images, "steps": number, "accuracy": found}
            if reached.keys() == classifiers.keys():
                break
    return reached


class Answering(nn.Module):
    """The plain classifier, called as ours is."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor, source: bool = False) -> torch.Tensor:
        """Return logits of `images`."""
        return self.classifier(images)


def _accuracy(classifier: nn.Module, test: ImageSet) -> float:
    assert test.labels is not None
    return float((logits_of(classifier, test.images).argmax(1).numpy() == test.labels).mean())


def _forever(images: ImageSet, config: PixelDAConfig) -> Iterator[Any]:
    pixels = images.images[:].transpose(0, 2, 3, 1)
    labels = np.zeros(len(images)) if images.labels is None else images.labels
    return endless(
        Digits(pixels if pixels.shape[3] == 3 else pixels[..., 0], labels.astype(np.uint8)), config.training.batch_size
    )


if __name__ == "__main__":
    sys.exit(main())
