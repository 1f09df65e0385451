"""Layers, parameters and estimated cost of a configuration of EndoVAE."""

from typing import TYPE_CHECKING

import torch

from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import AugmentedBatches, load_splits, with_store_settings
from pixelscope.endovae.task import EndoVAETask, build_discriminator, build_networks
from pixelscope.engine.cost import Plan, Summary, describe_network, speed_of_all, time_steps, training_runtime
from pixelscope.engine.launch import launch
from pixelscope.rng import StepContext, generator

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def summarize_endovae(config: EndoVAEConfig | None = None) -> Summary:
    """Describe encoder and decoder layer by layer, by default those of preset `paper`.

    Example:
        >>> print(pixelscope.endovae.summarize().to_text())
    """
    chosen = config or EndoVAEConfig()
    with torch.device("meta"):
        encoder, decoder = build_networks(chosen)
        image = torch.zeros(1, 3, chosen.prepare.size, chosen.prepare.size)
        z = torch.zeros(1, chosen.code_values)
        networks = [describe_network("encoder", encoder, (image,)), describe_network("decoder", decoder, (z,))]
    return Summary("endovae", networks)


def plan_endovae(config: EndoVAEConfig) -> Plan:
    """Estimate the cost of a training by timing a few steps, without creating a run folder.

    Prepares the frames first, because the length of an epoch depends on them. Assumes all configured epochs; early stopping
    may end the training before.

    Example:
        >>> config = pixelscope.endovae.EndoVAEConfig(frames="stores/kvasir")
        >>> print(pixelscope.endovae.plan(config).to_text())
    """
    config = config.with_settings({})  # Refuses settings that have no effect next to the defaults of others.
    splits = load_splits(config)
    config = with_store_settings(config, splits)
    config.model.code_shape(config.prepare.size)
    networks = summarize_endovae(config).require_memory().networks
    epoch = config.augmentation.images_per_epoch(len(splits.train))
    config.training.require_average(epoch)
    images = config.training.epochs * epoch
    parameters = {network.name: network.parameters for network in networks}
    if config.losses.adversarial:
        parameters["discriminator"] = sum(p.numel() for p in build_discriminator(config).parameters())
    runtime, machine = training_runtime(config.runtime)
    speed, gflop = launch(runtime.model_copy(update={"devices": 1}), _timed_steps, config)
    return Plan(
        system="endovae",
        config=config,
        images=images,
        parameters=parameters,
        gflop_per_image=gflop,
        steps=-(-images // config.training.batch_size),
        machine=machine,
        images_per_second=speed_of_all(speed, runtime),
        devices=runtime.devices,
    )


def _timed_steps(fabric: "Fabric", config: EndoVAEConfig) -> tuple[float, float]:
    """Return images per second and GFLOP per image, of steps without and with the adversarial loss as often as they occur."""
    share = 1 - config.losses.adversarial_from / config.training.epochs if config.losses.adversarial else 0.0
    speed, gflop = _timed(fabric, config.with_settings({"losses": {"adversarial": 0.0}}))
    if not share:
        return speed, gflop
    other_speed, other_gflop = _timed(fabric, config)
    return 1 / ((1 - share) / speed + share / other_speed), (1 - share) * gflop + share * other_gflop


def _timed(fabric: "Fabric", config: EndoVAEConfig) -> tuple[float, float]:
    """Return images per second and GFLOP per image; an adversarial loss counts from the first step."""
    size, count = config.prepare.size, config.training.batch_size
    frames = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator("cpu", 0, "frames"))
    task = EndoVAETask(config, fabric)
    batches = AugmentedBatches(frames.numpy(), None, config.augmentation, config.seed, fabric.device)

    def step(context: StepContext) -> None:
        task.step(batches(context), context)

    return time_steps(step, count, config.seed, fabric.device)
