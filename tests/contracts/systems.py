"""Whole trainings that the contract tests sweep over: every system, at tiny size. A new one is added here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fixtures import tiny
from pixelscope import resume
from pixelscope.config import Config, merge, read_yaml
from pixelscope.data.frames.prepare import prepare
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.training import refine
from pixelscope.pixelda.training import train_baseline, train_pixelda

Settings = dict[str, Any]


@dataclass(frozen=True)
class SystemCase:
    """One system: how to make its images and a configuration, train and go on."""

    name: str
    model: type[Config]
    write: Callable[[Path], Settings]
    """Writes tiny images into a folder and returns the settings that name them."""
    spoil: Callable[[Path], object]
    """Puts other images where `write` put its own."""
    small: Settings
    length: Callable[[int], Settings]
    """Settings that train on so many images, and do everything else every so many."""
    train: Callable[..., Path]
    resume: Callable[..., Path]
    more: Callable[[int], Settings]
    """What `resume` takes to train to so many images; nothing where a training's length is settled when it starts."""
    quiet: Settings
    """Settings without draws of a rank's own."""
    loss: str
    """Name of the main loss in stats.jsonl."""
    change: tuple[str, str]
    """An edit of config.yaml that makes it another configuration."""
    every_loss: Settings = field(default_factory=dict)
    """Settings that turn on the losses that are off by default and write numbers of their own."""
    long: int = 800_000
    """Images of a training that is interrupted; few enough to train the rest of where `more` is nothing."""

    def config(self, folder: Path, images: int = 96, **changes: Any) -> Any:
        """Write the images and return a configuration that trains on `images` of them, in batches of 8."""
        return self.model.parse(merge(self.small, self.write(folder), self.length(images), changes))


def _domains(folder: Path) -> Settings:
    return dict(zip(("source", "target"), tiny.write_domains(folder), strict=True))


def _other_domains(folder: Path) -> None:
    images, labels = tiny.pictures(60, seed=9)
    np.savez(folder / "source.npz", images=images, labels=labels)


def _adapted(folder: Path) -> Settings:
    if not (folder / "adapted").exists():
        train_pixelda(tiny.pixelda(**_domains(folder), training={"images": 16}), run=folder / "adapted")
    return {"run": str(folder / "adapted")}


def _frames(folder: Path) -> Settings:
    if not (folder / "store").exists():
        tiny.write_frames(folder / "frames")
        prepare([folder / "frames"], config=PrepareConfig(size=tiny.SIZE), out=folder / "store")
    return {"frames": str(folder / "store")}


def _other_frames(folder: Path) -> None:
    values = np.load(folder / "store" / "frames.npy", allow_pickle=False)
    np.save(folder / "store" / "frames.npy", 255 - values)


def _in_images(images: int) -> Settings:
    every = max(16, images // 6 // 16 * 16)
    return {"training": {"images": images, "log_every": 16, "evaluate_every": every, "checkpoint_every": every}}


EPOCH = 16
"""Training frames of the tiny store, without copies."""


def _in_epochs(images: int) -> Settings:
    epochs = images // EPOCH
    return {
        "augmentation": {"copies_per_frame": 0},
        "training": {"epochs": epochs, "log_every": 1, "checkpoint_every": max(1, epochs // 6)},
        "schedule": {"early_stopping_patience": 100_000},
    }


STILL = dict.fromkeys(("shift", "rotation", "zoom", "shear", "colour", "invert", "erase"), 0.0)
"""Views of a refinement that alter nothing."""

_DOMAINS = {"write": _domains, "spoil": _other_domains, "length": _in_images, "resume": resume}

SYSTEMS = {
    case.name: case
    for case in (
        SystemCase(
            name="pixelda",
            model=PixelDAConfig,
            small=tiny.pixelda().model_dump(mode="json"),
            train=train_pixelda,
            more=lambda images: {"images": images},
            quiet={"discriminator": {"noise_std": 0.0, "dropout": 0.0}},
            loss="loss/generator",
            change=("discriminator: 0.13", "discriminator: 0.5"),
            **_DOMAINS,
        ),
        SystemCase(
            name="baseline",
            model=BaselineConfig,
            small=tiny.baseline().model_dump(mode="json"),
            train=train_baseline,
            more=lambda images: {"images": images},
            quiet={},
            loss="loss/classifier",
            change=("decay: 0.95", "decay: 0.5"),
            **_DOMAINS,
        ),
        SystemCase(
            name="refinement",
            model=RefineConfig,
            write=_adapted,
            spoil=_other_domains,
            small=tiny.refined().model_dump(mode="json"),
            length=_in_images,
            train=refine,
            resume=resume,
            more=lambda images: {},
            quiet={"network": {"dropout": 0.0}, "views": STILL},
            loss="loss/source",
            change=("learning_rate: 0.002", "learning_rate: 0.001"),
            long=960,
        ),
        SystemCase(
            name="endovae",
            model=EndoVAEConfig,
            write=_frames,
            spoil=_other_frames,
            small=tiny.endovae().model_dump(mode="json"),
            length=_in_epochs,
            train=train_endovae,
            resume=resume,
            more=lambda images: {"epochs": images // EPOCH},
            quiet={},
            loss="loss/total",
            change=("kl: 1.0", "kl: 0.5"),
            every_loss={"losses": {"adversarial": 0.01, "adversarial_from": 2}},
        ),
    )
}


def train_saved(name: str, folder: Path) -> None:
    """Train a system by the settings.yaml of a folder, into its folder run."""
    case = SYSTEMS[name]
    case.train(case.model.parse(read_yaml(folder / "settings.yaml")), run=folder / "run")
