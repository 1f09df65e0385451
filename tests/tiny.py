"""Tiny images and configurations of the real classes, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from pixelscope.config import merge
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.refinement.config import RefineConfig

SIZE = 16
CLASSES = ("bright", "left", "top")


def pictures(count: int, seed: int = 0, coloured: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (count, SIZE, SIZE, 3) and labels of three classes that a small network learns at once."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = random.integers(0, 60, (count, SIZE, SIZE, 3))
    images[labels == 0] += 150
    images[labels == 1, :, : SIZE // 2] += 150
    images[labels == 2, : SIZE // 2] += 150
    if coloured:
        images = np.abs(random.integers(0, 255, (count, 1, 1, 3)) - images)
    return images.astype(np.uint8), labels


def image_set(count: int = 30, seed: int = 0, coloured: bool = False, labelled: bool = True) -> ImageSet:
    """Return `pictures` as an ImageSet."""
    images, labels = pictures(count, seed, coloured)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    known = labels if labelled else None
    return ImageSet(planes, Provenance("tiny", "tiny pictures"), known, CLASSES if labelled else ())


def scaled(images: np.ndarray) -> torch.Tensor:
    """Return uint8 images as a network takes them, in [-1, 1]."""
    return torch.from_numpy(images) / 127.5 - 1


def write_domains(folder: Path, count: int = 60) -> tuple[str, str]:
    """Write a labelled source and a labelled target as arrays; returns their specifications."""
    for name, seed, coloured in (("source", 0, False), ("target", 1, True)):
        images, labels = pictures(count, seed, coloured)
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    return f"arrays:{folder / 'source.npz'}", f"arrays:{folder / 'target.npz'}"


def settings(**changes: Any) -> dict[str, Any]:
    """Return settings small enough for a training of a second, with `changes` laid over them."""
    small: dict[str, Any] = {
        "data": {"size": SIZE},
        "training": {
            "batch_size": 8,
            "images": 96,
            "log_every": 16,
            "evaluate_every": 48,
            "sample_every": 48,
            "checkpoint_every": 32,
            "ema_half_life": 64,
        },
        "runtime": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    }
    return merge(small, changes)


def baseline(**changes: Any) -> BaselineConfig:
    """Return a tiny baseline."""
    return BaselineConfig.parse(settings(**changes))


def pixelda(**changes: Any) -> PixelDAConfig:
    """Return a tiny PixelDA."""
    networks = {"generator": {"blocks": 1, "width": 4, "noise_dim": 3}, "discriminator": {"width": 4}}
    return PixelDAConfig.parse(merge(settings(), networks, changes))


def refined(**changes: Any) -> RefineConfig:
    """Return a tiny refinement."""
    small = {
        "network": {"width": 4},
        "generated": {"pool_size": 16, "refresh_every": 48},
        "self_training": {"rampup_images": 0, "threshold": 0.4},
        "training": {
            "batch_size": 8,
            "images": 96,
            "log_every": 16,
            "evaluate_every": 32,
            "checkpoint_every": 32,
            "ema_half_life": 32,
        },
        "runtime": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    }
    return RefineConfig.parse(merge(small, changes))


def endovae(**changes: Any) -> EndoVAEConfig:
    """Return a tiny EndoVAE."""
    small = {
        "prepare": {"size": SIZE},
        "model": {"latent": 3, "width": 2},
        "training": {"batch_size": 8, "epochs": 3, "sample_every": 1, "checkpoint_every": 1},
        "runtime": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    }
    return EndoVAEConfig.parse(merge(small, changes))


def frames(count: int = 20, seed: int = 0) -> np.ndarray:
    """Return smooth uint8 frames (count, SIZE, SIZE, 3) that a few latent numbers tell apart."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, SIZE)
    tilt, light = random.normal(size=(2, count, 1, 1, 3)), random.uniform(40, 215, (count, 1, 1, 3))
    shaded = light + 60 * (tilt[0] * ramp[:, None, None] + tilt[1] * ramp[None, :, None])
    return shaded.clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, normal: int = 20, abnormal: int = 6) -> Path:
    """Write frames as PNG files in the class folders normal-tiny and polyps."""
    for seed, (name, count) in enumerate((("normal-tiny", normal), ("polyps", abnormal))):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(frames(count, seed)):
            Image.fromarray(frame).save(folder / name / f"{number:02d}.png")
    return folder


def fabric(precision: str = "32-true") -> Fabric:
    """Return a launched single-process fabric on the CPU."""
    made = Fabric(accelerator="cpu", devices=1, precision=precision)  # pyright: ignore[reportArgumentType]
    made.launch()
    return made
