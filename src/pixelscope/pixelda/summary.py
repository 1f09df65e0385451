"""What a configuration of PixelDA amounts to, before anything runs: layers, parameters, cost."""

from typing import Literal

import torch
from torch import Tensor, nn

from pixelscope.engine import runtime
from pixelscope.engine.cost import Plan
from pixelscope.engine.summary import Summary, describe_network
from pixelscope.pixelda.baseline import build_classifier
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.task import build_networks

CLASSES = 10
"""Output classes assumed where no data says how many there are."""


def summarize(system: Literal["pixelda", "baseline"], config: BaselineConfig | None = None) -> Summary:
    """Describe the networks of a system layer by layer; the preset `paper` where no configuration is given."""
    chosen = config or (PixelDAConfig() if system == "pixelda" else BaselineConfig())
    return Summary(system, [describe_network(name, network, inputs) for name, (network, inputs) in _networks(chosen).items()])


def plan(config: BaselineConfig, system: Literal["pixelda", "baseline"] | None = None) -> Plan:
    """Work out what a training would cost, timing a few steps on random images; nothing is read or written."""
    from pixelscope.pixelda.rehearsal import rehearse

    name = "pixelda" if isinstance(config, PixelDAConfig) else "baseline"
    summary = summarize(name, config)
    speed, gflop = rehearse(config)
    return Plan(
        system=system or name,
        config=config,
        parameters={network.name: network.parameters for network in summary.networks},
        gflop_per_image=gflop,
        images=config.training.images,
        steps=-(-config.training.images // config.training.batch_size),
        machine=runtime.decide(config.runtime).describe(),
        images_per_second=speed,
    )


def _networks(config: BaselineConfig) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    image = torch.zeros(1, 3, config.data.size, config.data.size)
    if not isinstance(config, PixelDAConfig):
        return {"classifier": (build_classifier(config, CLASSES), (image,))}
    generator, discriminator, classifier = build_networks(config, CLASSES)
    z = torch.zeros(1, config.generator.noise_dim)
    return {
        "generator": (generator, (image, z)),
        "discriminator": (discriminator, (image,)),
        "classifier": (classifier, (image,)),
    }
