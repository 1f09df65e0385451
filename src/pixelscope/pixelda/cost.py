"""Layers, parameters and cost of a configuration, computed before training."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.cost import Plan, Summary, describe_network, speed_of_all, time_steps, training_runtime
from pixelscope.engine.launch import launch
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig, require_effect
from pixelscope.pixelda.task import BaselineTask, LabelledBatches, PairedBatches, PixelDATask, build_classifier, build_networks
from pixelscope.rng import StepContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLASSES = 10
"""Number of output classes assumed; no data is read."""


def summarize(system: Literal["pixelda", "baseline"], config: BaselineConfig | None = None) -> Summary:
    """Return the layers of a system's networks; of preset `paper` if no configuration is given.

    Raises:
        InputError: a setting has no effect next to the others.

    Example:
        >>> print(pixelscope.pixelda.summarize("pixelda").to_text())
    """
    chosen = config or (PixelDAConfig() if system == "pixelda" else BaselineConfig())
    require_effect(chosen)
    with torch.device("meta"):
        found = [describe_network(name, network, inputs) for name, (network, inputs) in _networks(chosen).items()]
    return Summary(system, found)


def plan(config: BaselineConfig, system: Literal["pixelda", "baseline"] | None = None) -> Plan:
    """Estimate the cost of a training by timing a few steps on random images; reads and writes nothing.

    Example:
        >>> config = pixelscope.pixelda.PixelDAConfig(source="my/labelled", target="my/unlabelled")
        >>> print(pixelscope.pixelda.plan(config).to_text())
    """
    name = "pixelda" if isinstance(config, PixelDAConfig) else "baseline"
    summary = summarize(name, config).require_memory()
    runtime, machine = training_runtime(config.runtime)
    speed, gflop = rehearse(config, runtime)
    return Plan(
        system=system or name,
        config=config,
        parameters={network.name: network.parameters for network in summary.networks},
        gflop_per_image=gflop,
        images=config.training.images,
        steps=-(-config.training.images // config.training.batch_size),
        machine=machine,
        images_per_second=speed,
        devices=runtime.devices,
    )


def _networks(config: BaselineConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    image = torch.zeros(1, 3, config.data.size, config.data.size)
    if not isinstance(config, PixelDAConfig):
        return {"classifier": (build_classifier(config, CLASSES), (image,))}
    generator, discriminator, classifier = build_networks(config, CLASSES)
    z = torch.zeros(1, config.generator.noise_dim)
    judge = {"judge": (build_classifier(config, CLASSES), (image,))} if config.has_judge else {}
    return {
        "generator": (generator, (image, z)),
        "discriminator": (discriminator, (image,)),
        "classifier": (classifier, (image,)),
        **judge,
    }


def rehearse(config: BaselineConfig, runtime: RuntimeConfig) -> tuple[float, float]:
    """Return source images per second, and GFLOP per source image of a step.

    Measured on one device; see `speed_of_all`.

    Args:
        config: the settings.
        runtime: what it would run on, as `training_runtime` returns it.
    """
    speed, gflop = launch(runtime.model_copy(update={"devices": 1}), _steps, config)
    return speed_of_all(speed, runtime), gflop


def _steps(fabric: "Fabric", config: BaselineConfig) -> tuple[float, float]:
    size = config.training.batch_size
    images = _random_images(size, config.data.size)
    if isinstance(config, PixelDAConfig):
        task, batches = PixelDATask(config, CLASSES, fabric), PairedBatches(images, images, config.seed, fabric.device)
    else:
        task, batches = BaselineTask(config, CLASSES, fabric), LabelledBatches(images, config.seed, fabric.device)

    def step(context: StepContext) -> None:
        task.step(batches(context), context)  # pyright: ignore[reportArgumentType] - each task with its own batches

    return time_steps(step, size, config.seed, fabric.device)


def _random_images(count: int, size: int) -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    classes = tuple(map(str, range(CLASSES)))
    return ImageSet(pixels.numpy(), Provenance("random", "random images"), np.arange(count) % CLASSES, classes)
