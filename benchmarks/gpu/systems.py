"""The tasks that are timed, with their batches: as a training builds them, on images made here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import digit_sets, smooth_frames, training_fabric
from benchmarks.machine import device

EPOCH_FRAMES = 4_050
"""Frames of an epoch of EndoVAE; each has two augmented copies."""


@dataclass(frozen=True)
class Built:
    """A task in training."""

    task: Any
    batches: Any
    batch_size: int
    epoch: int = 0
    """Images of an epoch, where an epoch is what is compared; else 0."""


@dataclass(frozen=True)
class System:
    """One line of the table."""

    title: str
    build: Callable[[bool], Built]
    """Takes whether to build it at tiny size."""
    plain: str
    """Function in contenders.py that makes the plain program."""


def _pixelda(tiny: bool) -> Built:
    from pixelscope.pixelda.config import PixelDAConfig
    from pixelscope.pixelda.task import PairedBatches, PixelDATask

    small = {"generator": {"blocks": 1, "width": 4}, "discriminator": {"width": 4}, "training": {"batch_size": 4}}
    config = PixelDAConfig.parse(small if tiny else {})
    fabric, _ = training_fabric("auto")
    source, target = digit_sets()
    task = PixelDATask(config, 10, fabric)
    return Built(task, PairedBatches(source, target, config.seed, device()), config.training.batch_size)


def _baseline(tiny: bool) -> Built:
    from pixelscope.pixelda.config import BaselineConfig
    from pixelscope.pixelda.task import BaselineTask, LabelledBatches

    config = BaselineConfig.parse({"training": {"batch_size": 4}} if tiny else {})
    fabric, _ = training_fabric("auto")
    task = BaselineTask(config, 10, fabric)
    return Built(task, LabelledBatches(digit_sets()[0], config.seed, device()), config.training.batch_size)


def _refinement(tiny: bool) -> Built:
    from pixelscope.pixelda.config import PixelDAConfig
    from pixelscope.pixelda.networks import StrongClassifier
    from pixelscope.pixelda.refinement.config import RefineConfig
    from pixelscope.pixelda.refinement.data import GeneratedPool, RefineBatches
    from pixelscope.pixelda.refinement.task import RefineTask
    from pixelscope.pixelda.task import build_networks

    small = {"network": {"width": 4}, "generated": {"pool_size": 16}, "training": {"batch_size": 4}}
    fixmatch = {"self_training": {"thresholds": "fixed"}, "views": {"invert": 0.5}}
    config = RefineConfig.parse({**fixmatch, **(small if tiny else {"network": {"width": 96}})})
    adapted = PixelDAConfig.parse({"generator": {"blocks": 1, "width": 4}} if tiny else {})
    fabric, _ = training_fabric("auto")
    source, target = digit_sets()
    pool = GeneratedPool(build_networks(adapted, 10)[0], adapted, source, config.seed, config.generated, fabric)
    task = RefineTask(config, StrongClassifier(10, config.network.width), torch.full((10,), 0.1), fabric)
    batches = RefineBatches(source, target.without_labels(), pool, config.seed, device())
    return Built(task, batches, config.training.batch_size)


def _endovae(tiny: bool) -> Built:
    from pixelscope.endovae.config import EndoVAEConfig
    from pixelscope.endovae.data import AugmentedBatches
    from pixelscope.endovae.task import EndoVAETask

    small = {"prepare": {"size": 16}, "model": {"width": 2}, "training": {"batch_size": 4}}
    config = EndoVAEConfig.parse(small if tiny else {})
    fabric, _ = training_fabric("auto")
    frames: np.ndarray = smooth_frames(8 if tiny else EPOCH_FRAMES, config.prepare.size)
    batches = AugmentedBatches(frames, None, config.augmentation, config.seed, device())
    return Built(EndoVAETask(config, fabric), batches, config.training.batch_size, batches.epoch)


SYSTEMS = {
    "pixelda": System("PixelDA, preset paper, batch 32", _pixelda, "pixelda_plain"),
    "baseline": System("baseline, batch 32", _baseline, "baseline_plain"),
    "refinement": System("refinement as FixMatch, width 96, batch 128", _refinement, "refinement_plain"),
    "endovae": System("EndoVAE, preset paper, batch 128, with augmentation", _endovae, "endovae_plain"),
}
