"""A test fixture: a small run folder, synthetic but shaped like a real one. No number in it was measured."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.metrics import set_result
from pixelscope.pixelda.results import ORACLE, CheckpointResult, CurvePoint, Evaluation, Oracle, SetResult

WriteRun = Callable[..., Path]

DIGITS = tuple("0123456789")
IMAGES, BATCH, EVERY = 27_200, 32, 320
TITLES = {"source": "MNIST, handwritten digits", "target": "MNIST-M, index-aligned: made by difference blending"}


def write_run(
    path: Path,
    *,
    system: str = "pixelda",
    classes: Sequence[str] = DIGITS,
    baseline: bool = True,
    target_labels: bool = True,
    evaluated: bool = True,
    done: float = 1.0,
    moments: int = 9,
    reached: float = 0.83,
    warnings: bool = True,
) -> Path:
    """Write a run folder to `path` and return it.

    done: share of the planned steps; moments: evaluations; reached: about the accuracy on the target at the end.
    """
    rng = np.random.default_rng(0)
    adapted = system == "pixelda"
    images = int(IMAGES * done) // BATCH * BATCH
    path.mkdir(parents=True)
    kind = PixelDAConfig if adapted else BaselineConfig
    kind.parse({"source": "demo:mnist", "target": "demo:mnist-m", "training": {"images": IMAGES}}).save(path / "config.yaml")
    _write_json(path / "run.json", _record(path.name, system, classes, images, done))
    at = [round(p) // BATCH * BATCH for p in np.linspace(0, images, moments)] if moments > 1 else [images]
    lines = [_evaluation(p, images, adapted, rng) for p in at]
    lines += [_train(p, images, adapted, len(classes), rng) for p in range(EVERY, images + 1, EVERY)]
    lines += _warnings(images) if warnings and adapted else []
    lines.sort(key=lambda line: line["images"])
    (path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if evaluated:
        end = reached if adapted else 0.537
        made_evaluation(system, classes, at, end, target_labels, rng).save(path / "evaluation.json")
    if adapted:
        write_samples(path / "samples", classes, at, target_labels, reached)
    if adapted and baseline:
        write_run(path / "baseline", system="baseline", classes=classes, target_labels=target_labels)
    return path


def write_samples(folder: Path, classes: Sequence[str], at: Sequence[int], target_labels: bool, reached: float) -> None:
    rng = np.random.default_rng(1)
    folder.mkdir()
    labels = rng.integers(len(classes), size=16)
    source = np.stack([digit(int(label)) for label in labels])
    target = np.stack([coloured(image, rng) for image in source])
    save(folder, "pairs", source=source, target=target, labels=labels)
    there = rng.integers(len(classes), size=16)
    save(
        folder,
        "gallery",
        source=source,
        generated=np.stack([coloured(image, rng) for image in source]),
        target=np.stack([coloured(digit(int(label)), rng) for label in there]),
        source_labels=labels,
        source_predictions=labels,
        generated_predictions=_mistaken(labels, 0.95, len(classes), rng),
        target_labels=there if target_labels else np.full(16, -1),
        target_predictions=_mistaken(there, reached, len(classes), rng),
    )
    four, ten = (np.stack([digit(i % len(classes)) for i in range(n)]) for n in (4, min(10, len(classes))))
    save(folder, "styles", source=four, generated=np.stack([[coloured(i, rng) for _ in range(10)] for i in four]))
    drawn = np.stack([[_halfway(image, rng, k / max(1, len(at) - 1)) for image in ten] for k in range(len(at))])
    save(folder, "progress", images=np.array(at), generated=drawn, source=ten)


def save(folder: Path, name: str, **arrays: np.ndarray) -> None:
    np.savez_compressed(folder / f"{name}.npz", **arrays)


def digit(label: int) -> np.ndarray:
    """Return a white digit on black, uint8 (32, 32, 3)."""
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((16, 16), str(label % 10), fill=255, font=ImageFont.load_default(26), anchor="mm")
    return np.asarray(image)[..., None].repeat(3, 2)


def coloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image blended with a random coloured background by difference."""
    low = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(low).resize((32, 32), Image.Resampling.BICUBIC), int)
    return np.abs(background - image).astype(np.uint8)


def _halfway(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    return (share * coloured(image, rng) + (1 - share) * np.full_like(image, 128)).astype(np.uint8)


def _mistaken(labels: np.ndarray, accuracy: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(labels)) < accuracy, labels, (labels + 1) % classes)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _record(name: str, system: str, classes: Sequence[str], images: int, done: float) -> dict[str, Any]:
    sizes = {"count": 5000, "train": 3800, "validation": 200, "test": 1000}
    origin = {"licence": "CC BY-SA 3.0", "citation": "LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998"}
    specs = {"source": "demo:mnist", "target": "demo:mnist-m"}
    parameters = {"generator": 62_755, "discriminator": 1_543_233, "classifier": 359_290}
    return {
        "system": system,
        "state": "finished" if done == 1 else "stopped",
        "name": name,
        "versions": {"python": "3.11.9", "pixelscope": "0.2.0", "torch": "2.13.0"},
        "git": "0123456789abcdef0123456789abcdef01234567",
        "command": f"pixelscope pixelda {'train' if system == 'pixelda' else 'baseline'} --preset demo",
        "seed": 0,
        "hardware": {"cpu": "A processor", "cores": 2, "accelerator": "none", "system": "Linux x86_64"},
        "runtime": {"devices": 1, "accelerator": "cpu", "precision": "bf16-mixed", "threads": 2},
        "data": {
            role: {"spec": spec, "title": TITLES[role], **sizes, "sha256": 8 * f"{i}f0a3154", **origin, "notes": ["Packaged."]}
            for i, (role, spec) in enumerate(specs.items())
        },
        "classes": list(classes),
        "parameters": parameters if system == "pixelda" else {"classifier": 359_290},
        "sessions": 1,
        "images": images,
        "steps": images // BATCH,
        "seconds": 187.3,
        "images_per_second": 145.2,
    }


def _train(at: int, end: int, adapted: bool, classes: int, rng: np.random.Generator) -> dict[str, Any]:
    left = float(np.exp(-5 * at / end))

    def near(value: float, spread: float = 0.12) -> float:
        return float(value * np.exp(spread * rng.standard_normal()))

    line = {"kind": "train", "images": at, "step": at // BATCH, "seconds": at / 145, "images_per_second": near(145)}
    line |= {
        "loss/classifier": near(0.06 + 2.2 * left),
        "gradient/classifier": near(0.4),
        "accuracy/batch_source": 1 - 0.9 * left,
    }
    if not adapted:
        return line
    histogram = rng.dirichlet(np.full(classes, 60.0))
    return line | {
        "loss/discriminator": near(1.25),
        "loss/generator": near(0.011 + 0.02 * left),
        "loss/generator_domain": near(0.85),
        "loss/generator_task": near(0.1 + 2 * left),
        "probability/real": min(0.99, near(0.6)),
        "probability/generated": min(0.99, near(0.42)),
        "gradient/generator_domain": near(0.02 + 0.2 * left, 0.4),
        "gradient/generator_task": near(0.004 + 0.01 * left, 0.5),
        "gradient/generator": near(0.03),
        "gradient/discriminator": near(1.4),
        "histogram/source": rng.dirichlet(np.full(classes, 300.0)).tolist(),
        "histogram/generated": histogram.tolist(),
    }


def _learnt(at: int, end: int, low: float, high: float) -> float:
    return high - (high - low) * float(np.exp(-6 * at / end))


def _evaluation(at: int, end: int, adapted: bool, rng: np.random.Generator) -> dict[str, Any]:
    line = {
        "kind": "evaluation",
        "images": at,
        "step": at // BATCH,
        "accuracy/source_train": _learnt(at, end, 0.1, 0.995),
        "accuracy/source_test": _learnt(at, end, 0.1, 0.978),
        "loss/source_train": 2.3 - _learnt(at, end, 0, 2.28),
        "loss/source_test": 2.3 - _learnt(at, end, 0, 2.22),
    }
    return line | ({"diversity": 0.001 + 0.05 * at / end} if adapted else {})


def _warnings(end: int) -> list[dict[str, Any]]:
    text = "D tells real from generated almost always (mean probability 0.99 against 0.01)"
    found = [("overpowering discriminator", 0.2), ("overpowering discriminator", 0.23), ("collapse", 0.1)]
    return [{"kind": "warning", "images": int(at * end) // 320 * 320, "step": 0, "cause": c, "text": text} for c, at in found]


def made_evaluation(
    system: str, classes: Sequence[str], at: Sequence[int], reached: float, labelled: bool, rng: np.random.Generator
) -> Evaluation:
    """Return what evaluation.json says after evaluations at the given numbers of images."""
    accuracies = {"source_test": (1000, 0.98), "target_test": (1000, reached), "target_all": (5000, reached + 0.004)}
    sets = {
        name: made_set(name, count, accuracy, classes, rng)
        for name, (count, accuracy) in accuracies.items()
        if labelled or name == "source_test"
    }
    values = {name: one.accuracy for name, one in sets.items()}
    headline = "ema-last" if system == "pixelda" else "last"
    checkpoints = {name: CheckpointResult(images=at[-1], **values) for name in dict.fromkeys(("last", headline, "best-source"))}
    curve = []
    for p in at:
        averaged = _learnt(p, at[-1], 0.1, reached)
        found = {"target_test": averaged + 0.02 * rng.standard_normal(), "ema_target_test": averaged} if labelled else {}
        curve.append(CurvePoint(images=p, step=p // BATCH, **found))
    oracle = Oracle(label=ORACLE, images=at[-2] if len(at) > 1 else at[-1], target_test=reached + 0.011)
    return Evaluation(
        system="pixelda" if system == "pixelda" else "baseline",
        images=at[-1],
        steps=at[-1] // BATCH,
        classes=list(classes),
        checkpoint=headline,
        checkpoints=checkpoints,
        sets=sets,
        oracle=oracle if labelled else None,
        curve=curve,
    )


def made_set(name: str, count: int, accuracy: float, classes: Sequence[str], rng: np.random.Generator) -> SetResult:
    """Return the result on one set, whose counts agree with each other."""
    labels = np.arange(count) % len(classes)
    missed = rng.permutation(count) >= round(accuracy * count)
    predictions = (labels + missed * rng.integers(1, len(classes), size=count)) % len(classes)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, predictions), 1)
    return set_result(name, torch.from_numpy(confusion), list(classes))
