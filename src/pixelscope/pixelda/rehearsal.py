"""A few training steps on random images, to learn what a run would cost."""

import numpy as np
import torch
from lightning_fabric import Fabric

from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.engine import runtime
from pixelscope.engine.cost import time_steps
from pixelscope.pixelda.baseline import BaselineTask, LabelledBatches
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.task import PairedBatches, PixelDATask
from pixelscope.rng import Moment

CLASSES = 10


def rehearse(config: BaselineConfig) -> tuple[float, float]:
    """Return (source images a second, GFLOP of a step for each source image), measured on one device.

    Several devices are taken to be as many times as fast.
    """
    alone = config.runtime.model_copy(update={"devices": 1, "threads": runtime.decide(config.runtime).threads})
    speed, gflop = runtime.launch(alone, _steps, config)
    return speed * config.runtime.devices, gflop


def _steps(fabric: Fabric, config: BaselineConfig) -> tuple[float, float]:
    size = config.training.batch_size
    images = _random_images(size, config.data.size)
    if isinstance(config, PixelDAConfig):
        task, batches = PixelDATask(config, CLASSES, fabric), PairedBatches(images, images, config.seed, fabric.device)
    else:
        task, batches = BaselineTask(config, CLASSES, fabric), LabelledBatches(images, config.seed, fabric.device)

    def step(moment: Moment) -> None:
        task.step(batches(moment), moment)  # pyright: ignore[reportArgumentType] - each task with its own batches

    return time_steps(step, size, config.seed, fabric.device)


def _random_images(count: int, size: int) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    classes = tuple(map(str, range(CLASSES)))
    return ImageSet(pixels.numpy(), Provenance("random", "random images"), np.arange(count) % CLASSES, classes)
