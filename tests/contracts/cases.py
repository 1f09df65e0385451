"""What the contract tests sweep over: every network and every task of every system. A new one is added here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixtures import tiny
from pixelscope.endovae.data import AugmentedBatches
from pixelscope.endovae.networks import Decoder, Encoder, PatchDiscriminator, SpatialDecoder, SpatialEncoder
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine.task import Task
from pixelscope.pixelda.networks import Classifier, Discriminator, Generator, ResidualClassifier, StrongClassifier
from pixelscope.pixelda.refinement.data import GeneratedPool, RefineBatches
from pixelscope.pixelda.refinement.task import RefineTask
from pixelscope.pixelda.task import BaselineTask, LabelledBatches, PairedBatches, PixelDATask, build_networks


@dataclass(frozen=True)
class NetworkCase:
    """A network, inputs for a batch, and the shape of one image's output."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    output: tuple[int, ...]


@dataclass(frozen=True)
class TaskCase:
    """A task in training, with its batches, and which networks each of its optimizers trains."""

    name: str
    build: Callable[..., tuple[Task[Any], Any]]
    """Takes the device, by default the CPU; the batches have `__call__`, `read` and `make`."""
    trains: dict[str, set[str]]


def images(count: int, size: int = 32) -> Tensor:
    """Return float images in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count)) * 2 - 1


def z(count: int) -> Tensor:
    """Return noise of ten numbers an image."""
    return torch.rand(count, 10, generator=torch.Generator().manual_seed(count)) * 2 - 1


def _pixelda(device: str = "cpu", **changes: Any) -> tuple[PixelDATask, PairedBatches]:
    config, one = tiny.pixelda(**changes), tiny.fabric(accelerator=device)
    target = tiny.image_set(seed=1, coloured=True)
    return PixelDATask(config, 3, one), PairedBatches(tiny.image_set(), target, config.seed, one.device)


def _baseline(device: str = "cpu", **changes: Any) -> tuple[BaselineTask, LabelledBatches]:
    config, one = tiny.baseline(**changes), tiny.fabric(accelerator=device)
    return BaselineTask(config, 3, one), LabelledBatches(tiny.image_set(), config.seed, one.device)


def unit(count: int, size: int = 96) -> Tensor:
    """Return float images in [0, 1]."""
    return (images(count, size) + 1) / 2


def _endovae(device: str = "cpu", masked: bool = False, **changes: Any) -> tuple[EndoVAETask, AugmentedBatches]:
    config, one = tiny.endovae(**changes), tiny.fabric(accelerator=device)
    insets = np.zeros((20, tiny.SIZE, tiny.SIZE), np.uint8) if masked else None
    if insets is not None:
        insets[:, 10:, :5] = 1
    frames, validation = (tiny.frames(count, seed) for count, seed in ((20, 0), (6, 1)))
    task = EndoVAETask(config, one, validation, None if insets is None else insets[:6], half_life=40)
    return task, AugmentedBatches(frames, insets, config.augmentation, config.seed, one.device)


def _refined(
    device: str = "cpu", kind: str = "strong", private: bool = False, **changes: Any
) -> tuple[RefineTask, RefineBatches]:
    config, one = tiny.refined(training={"images": 16_000}, **changes), tiny.fabric(accelerator=device)
    source = tiny.image_set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = StrongClassifier(3, 4) if kind == "strong" else Classifier(3, tiny.SIZE, private)
        start = Classifier(3, tiny.SIZE)
    adapted = tiny.pixelda()
    pool = GeneratedPool(build_networks(adapted, 3)[0], adapted, source, 0, config.generated, one)
    target = tiny.image_set(seed=1, coloured=True, labelled=False)
    task = RefineTask(config, network, torch.full((3,), 1 / 3), one, start=start)
    return task, RefineBatches(source, target, pool, 0, one.device)


NETWORKS = [
    NetworkCase("G", Generator, lambda n: (images(n), z(n)), (3, 32, 32)),
    NetworkCase("G, no blocks", lambda: Generator(blocks=0, width=8), lambda n: (images(n), z(n)), (3, 32, 32)),
    NetworkCase("G, 48 pixels", lambda: Generator(size=48, blocks=1, width=8), lambda n: (images(n, 48), z(n)), (3, 48, 48)),
    NetworkCase("D", Discriminator, lambda n: (images(n),), ()),
    NetworkCase("D, 48 pixels", lambda: Discriminator(size=48, width=8), lambda n: (images(n, 48),), ()),
    NetworkCase("T", Classifier, lambda n: (images(n),), (10,)),
    NetworkCase("stronger T", lambda: StrongClassifier(5, 4, 0.0), lambda n: (images(n),), (5,)),
    NetworkCase("encoder", lambda: Encoder(width=4), lambda n: (unit(n),), (2, 6)),
    NetworkCase("encoder, 32 pixels", lambda: Encoder(32, 3, 2), lambda n: (unit(n, 32),), (2, 3)),
    NetworkCase("decoder", lambda: Decoder(width=4), lambda n: (z(n)[:, :6],), (3, 96, 96)),
    NetworkCase("decoder, 32 pixels", lambda: Decoder(32, 10, 2), lambda n: (z(n),), (3, 32, 32)),
    NetworkCase("spatial encoder", lambda: SpatialEncoder(4, 3, 4, 1), lambda n: (unit(n, 32),), (2, 192)),
    NetworkCase("spatial decoder", lambda: SpatialDecoder(16, 16, 10, 4, 1), lambda n: (z(n),), (3, 16, 16)),
    NetworkCase("discriminator of patches", PatchDiscriminator, lambda n: (unit(n, 32),), (1, 4, 4)),
    NetworkCase("T, 48 pixels, 4 classes", lambda: Classifier(4, 48), lambda n: (images(n, 48),), (4,)),
    NetworkCase("residual T", lambda: ResidualClassifier(5, 6), lambda n: (images(n),), (5,)),
    NetworkCase("residual T, 64 pixels", lambda: ResidualClassifier(5, 3), lambda n: (images(n, 64),), (5,)),
]

RESIDUAL = {"kind": "residual", "width": 4}
SPATIAL = {
    "model": {"kind": "spatial", "latent": 3, "width": 4, "blocks": 1},
    "losses": {"cross_entropy": 0.0, "l1": 1.0, "ssim": 0.1, "kl": 1e-5},
}
ADVERSARIAL = {**SPATIAL, "losses": {**SPATIAL["losses"], "adversarial": 0.1, "adversarial_from": 1}}
EVERY_LOSS = {
    "self_training": {"rampup_images": 0, "thresholds": "adaptive", "threshold": 0.95, "weak_views": 2},
    "regularization": {"entropy": 0.1, "virtual_adversarial": 1.0},
}
_ENDOVAE_TRAINS = {"autoencoder": {"encoder", "decoder"}}
_ADVERSARIAL_TRAINS = {"autoencoder": {"decoder"}, "discriminator": {"discriminator"}}
_REFINED_TRAINS = {"classifier": {"classifier"}}
_PIXELDA_TRAINS = {"discriminator_classifier": {"discriminator", "classifier"}, "generator": {"generator"}}

TASKS = [
    TaskCase("baseline", _baseline, {"classifier": {"classifier"}}),
    TaskCase("baseline, residual T", lambda: _baseline(classifier=RESIDUAL), {"classifier": {"classifier"}}),
    TaskCase("pixelda", _pixelda, _PIXELDA_TRAINS),
    TaskCase("pixelda, residual T", lambda: _pixelda(classifier=RESIDUAL), _PIXELDA_TRAINS),
    TaskCase("pixelda, own batch for G", lambda: _pixelda(reuse_generated_batch=False), _PIXELDA_TRAINS),
    TaskCase("pixelda, content loss", lambda: _pixelda(losses={"content": 1.0}), _PIXELDA_TRAINS),
    TaskCase("endovae", _endovae, _ENDOVAE_TRAINS),
    TaskCase("endovae, sum of values", lambda: _endovae(losses={"reduction": "sum"}), _ENDOVAE_TRAINS),
    TaskCase("endovae, spatial code", lambda: _endovae(**SPATIAL), _ENDOVAE_TRAINS),
    TaskCase("endovae, adversarial", partial(_endovae, masked=True, **ADVERSARIAL), _ADVERSARIAL_TRAINS),
    TaskCase("endovae, fresh copies", lambda: _endovae(augmentation={"resample_every_epoch": True}), _ENDOVAE_TRAINS),
    TaskCase("endovae, insets left out", lambda: _endovae(masked=True), _ENDOVAE_TRAINS),
    TaskCase("pixelda, private layers", lambda: _pixelda(classifier={"private_first_layer": True}), _PIXELDA_TRAINS),
    TaskCase("refinement", _refined, _REFINED_TRAINS),
    TaskCase("refinement of the paper's T", lambda: _refined(kind="paper"), _REFINED_TRAINS),
    TaskCase("refinement of T with private layers", lambda: _refined(kind="paper", private=True), _REFINED_TRAINS),
    TaskCase("refinement with every loss", lambda: _refined(**EVERY_LOSS), _REFINED_TRAINS),
    TaskCase("refinement, source and generated only", lambda: _refined(self_training={"enabled": False}), _REFINED_TRAINS),
]
