"""Images, frames and settings that a training of a second suffices for: what the benchmarks of reliability work on."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 16
"""Side of the images; the smallest that the networks take."""
CLASSES = ("dark", "grey", "light")
RUNTIME = {"accelerator": "cpu", "precision": "32-true", "threads": 1}
TRAINING = {"batch_size": 8, "images": 96, "log_every": 16, "evaluate_every": 32, "checkpoint_every": 16, "ema_half_life": 32}


def small_domains(folder: Path, count: int = 48) -> None:
    """Write source.npz, target.npz, both labelled by brightness, and a folder of photos in class folders."""
    for name, seed, coloured in (("source", 0, False), ("target", 1, True)):
        random = np.random.default_rng(seed)
        labels = np.arange(count) % len(CLASSES)
        images = random.integers(0, 60, (count, SIZE, SIZE, 3 if coloured else 1)) + 80 * labels[:, None, None, None]
        np.savez(folder / f"{name}.npz", images=np.broadcast_to(images, (count, SIZE, SIZE, 3)).astype(np.uint8), labels=labels)
    with np.load(folder / "source.npz") as stored:
        for index, (image, label) in enumerate(zip(stored["images"], stored["labels"], strict=True)):
            place = folder / "photos" / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index:02d}.png")


def small_frames(folder: Path, normal: int = 20, abnormal: int = 6) -> None:
    """Write smooth frames as PNG files in frames/normal-tiny and frames/polyps."""
    ramp = np.linspace(-1, 1, SIZE)
    for seed, (name, count) in enumerate((("normal-tiny", normal), ("polyps", abnormal))):
        random, place = np.random.default_rng(seed), folder / "frames" / name
        place.mkdir(parents=True)
        tilt, light = random.normal(size=(2, count, 1, 1, 3)), random.uniform(40, 215, (count, 1, 1, 3))
        shaded = light + 60 * (tilt[0] * ramp[:, None, None] + tilt[1] * ramp[None, :, None])
        for index, frame in enumerate(shaded.clip(0, 255).astype(np.uint8)):
            Image.fromarray(frame).save(place / f"{index:02d}.png")


def small_settings(system: str, given: Path) -> dict[str, Any]:
    """Return the settings of a small training on what `small_domains` and `small_frames` wrote, and on runs/pixelda."""
    domains = {"source": f"arrays:{given / 'source.npz'}", "target": f"arrays:{given / 'target.npz'}"}
    classifier = {**domains, "data": {"size": SIZE}, "training": {**TRAINING, "sample_every": 48}, "runtime": RUNTIME}
    networks = {"generator": {"blocks": 1, "width": 4, "noise_dim": 3}, "discriminator": {"width": 4}}
    return {
        "baseline": classifier,
        "pixelda": {**classifier, **networks},
        "refinement": {
            "run": str(given / "pixelda"),
            "network": {"width": 4},
            "generated": {"pool_size": 16, "refresh_every": 48},
            "self_training": {"rampup_images": 0, "thresholds": "fixed", "threshold": 0.4},
            "training": TRAINING,
            "runtime": RUNTIME,
        },
        "endovae": {
            "frames": str(given / "frames"),
            "prepare": {"size": SIZE},
            "model": {"latent": 3, "width": 2},
            "augmentation": {"copies_per_frame": 0},
            "training": {"batch_size": 8, "epochs": 6, "sample_every": 2, "checkpoint_every": 1},
            "runtime": RUNTIME,
        },
    }[system]
