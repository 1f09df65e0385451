"""A test fixture: a small run folder of EndoVAE, synthetic but shaped like a real one. No number in it was measured."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelscope.data.frames.preprocess import stages, write_stages
from pixelscope.data.frames.store import ClassSummary, FrameSummary
from pixelscope.endovae.anomaly.baselines import BASELINES
from pixelscope.endovae.anomaly.scores import SCORES
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.metrics import SSIM_METHOD
from pixelscope.endovae.results import (
    Anomaly,
    CameraResult,
    Evaluation,
    Interval,
    Lead,
    Localization,
    MapResult,
    MeanStd,
    ScoreSeparation,
    SetResult,
    ShortcutTest,
    SizeResult,
    ViewResult,
)
from pixelscope.imaging.content_area import find_content_area
from pixelscope.runs.folder import save_arrays

WriteRun = Callable[..., Path]

EPOCH, BATCH, LATENT = 3288, 128, 6
COUNTS = {"normal-cecum": 491, "normal-colon": 279, "polyps": 600}
KINDS = {"normal-cecum": "normal", "normal-colon": "normal", "polyps": "abnormal"}
HELD_OUT = {"normal": {"normal-cecum": 49, "normal-colon": 28}, "abnormal": {"polyps": 600}}
SIZES = {"normal": ((720, 576, 40), (633, 532, 37)), "abnormal": ((622, 530, 580), (1348, 1070, 20))}
PSNR = {
    "normal": {"endovae": 21.3, "pca": 20.0, "mean image": 14.1},
    "abnormal": {"endovae": 17.4, "pca": 17.2, "mean image": 12.9},
}
SSIM = {
    "normal": {"endovae": 0.571, "pca": 0.539, "mean image": 0.41},
    "abnormal": {"endovae": 0.505, "pca": 0.489, "mean image": 0.38},
}
REGIONS = {"tissue": 0.62, "lumen": 0.09, "glints": 0.03, "inset": 0.08, "border": 0.18}


def write_run(
    path: Path,
    *,
    size: int = 32,
    width: int = 2,
    latent: int = LATENT,
    kinds: Sequence[str] = ("normal", "abnormal"),
    evaluated: bool = True,
    epochs: int = 40,
    state: str = "finished",
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder to `path` and return it.

    kinds: of the held-out frames; epochs: done, of 40; changes: settings that differ.
    """
    rng = np.random.default_rng(0)
    path.mkdir(parents=True)
    values = {"prepare": {"size": size}, "model": {"latent": latent, "width": width}, "training": {"epochs": 40}}
    EndoVAEConfig.parse({**values, **(changes or {})}).save(path / "config.yaml")
    _write_json(path / "run.json", _record(path.name, epochs, state, rng))
    summary(size).save(path / "frames.json")
    lines = _statistics(epochs, rng)
    (path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    write_samples(path / "samples", size, latent, kinds, epochs, rng)
    if evaluated:
        evaluation(size, latent, kinds, epochs, rng).save(path / "evaluation.json")
        write_rows(path / "evaluation.csv", kinds, rng)
    return path


def summary(size: int) -> FrameSummary:
    """Return what frames.json says of frames of three classes."""
    classes = tuple(
        ClassSummary(
            name=name,
            kind=KINDS[name],
            count=count,
            sizes={"633 x 532": count - 30, "720 x 576": 17, "622 x 530": 8, "5 x 4": 3, "4 x 4": 2},
            masks=0,
            insets={"black": 12},
        )
        for name, count in COUNTS.items()
    )
    both = tuple(
        ClassSummary(
            name=f"all {kind}",
            kind=kind,
            count=sum(c.count for c in classes if c.kind == kind),
            sizes={"633 x 532": 1},
            masks=0,
            insets={},
        )
        for kind in ("normal", "abnormal")
    )
    note = "Skipped 1 unreadable of 1,371 frames: polyps/broken.jpg."
    return FrameSummary(
        store="stores/kvasir-0123456789ab",
        size=size,
        method="robust",
        count=sum(COUNTS.values()),
        classes=classes,
        kinds=both,
        notes=(note,),
    )


def write_samples(folder: Path, size: int, latent: int, kinds: Sequence[str], epochs: int, rng: np.random.Generator) -> None:
    """Write the pictures of a run, all of smooth random images."""
    folder.mkdir()

    def some(*shape: int) -> np.ndarray:
        return np.stack([smooth(size, size, rng) for _ in range(int(np.prod(shape)))]).reshape(*shape, size, size, 3)

    positions = (0, 100, 200, 491, 600, 700, 770, 900, 1200)
    write_stages(folder / "preparation.npz", [_stages(position, rng) for position in positions])
    save_arrays(folder / "frames.npz", frames=some(9), labels=np.repeat([0, 1, 2], 3), classes=np.array(list(COUNTS)))
    save_arrays(folder / "augmentation.npz", versions=some(5, 3))
    moments = np.arange(0, epochs + 1, 10) * EPOCH
    drawn = {"reconstructions": some(len(moments), 5), "generated": some(len(moments), 5)}
    save_arrays(folder / "progress.npz", images=moments, originals=some(5), **drawn)
    for kind in kinds:
        for number, which in enumerate(("random", "worst", "best")):
            psnr, ssim = 14.0 + 3 * number + np.arange(5) / 10, 0.4 + 0.1 * number + np.arange(5) / 100
            name = f"reconstructions-{kind}-{which}.npz"
            save_arrays(folder / name, originals=some(5), reconstructions=some(5), psnr=psnr, ssim=ssim)
    save_arrays(folder / "generated.npz", generated=some(9))
    save_arrays(folder / "interpolation.npz", ends=some(3, 2), frames=some(3, 9))
    if len(kinds) == 2:
        for kind in kinds:
            lesions = np.zeros((4, size, size), bool)
            lesions[:, size // 4 : size // 2, size // 4 : size // 2] = kind == "abnormal"
            p = np.array([0.5, 0.2, 0.04, 0.01])
            save_arrays(folder / f"heatmaps-{kind}.npz", frames=some(4), overlays=some(4), lesions=lesions, p=p)
    shown = min(latent, 8)
    kl = np.linspace(3.1, 0.02, shown)
    traversal = {"frames": some(shown, 9), "values": np.linspace(-3, 3, 9), "dimensions": np.arange(shown)[::-1], "kl": kl}
    save_arrays(folder / "traversal.npz", **traversal)


def smooth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random image, uint8 (height, width, 3)."""
    low = rng.integers(30, 240, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC))


def bordered(rng: np.random.Generator) -> np.ndarray:
    """Return a frame, uint8 (96, 120, 3), bright inside a black border and darker below."""
    frame = np.zeros((96, 120, 3), np.uint8)
    frame[8:88, 10:110] = smooth(80, 100, rng)
    frame[70:88, 10:110] //= 4
    return frame


def evaluation(size: int, latent: int, kinds: Sequence[str], epochs: int, rng: np.random.Generator) -> Evaluation:
    """Return what evaluation.json says of sets of these kinds."""
    sets = {kind: _set(kind, size, latent, rng) for kind in kinds}
    means = {
        f"{kind}_{metric}": values[kind]["endovae"] for kind in kinds for metric, values in (("psnr", PSNR), ("ssim", SSIM))
    }
    both = len(kinds) == 2
    return Evaluation(
        system="endovae",
        images=30 * EPOCH,
        epochs=30.0,
        checkpoint="best-validation",
        checkpoints={"best-validation": {"images": 30 * EPOCH, **means}, "last": {"images": epochs * EPOCH, **means}},
        latent=latent,
        components=latent,
        ssim_method=SSIM_METHOD,
        sets=sets,
        separation={"endovae": 0.909, "pca": 0.836, "mean image": 0.7} if both else {},
        anomaly=_anomaly(rng) if both else None,
    )


def _anomaly(rng: np.random.Generator) -> Anomaly:
    """Return how scores tell polyps from two classes of healthy frames; the trivial scores are hardly behind."""

    def separations(center: float) -> dict[str, ScoreSeparation]:
        values = {group: center + 0.02 * rng.standard_normal() for group in ("all", "normal-cecum", "normal-colon")}
        intervals = {group: Interval(value=v, low=v - 0.03, high=v + 0.02) for group, v in values.items()}
        return {group: ScoreSeparation(auroc=one, average_precision=one) for group, one in intervals.items()}

    def view(best: float, trivial: float) -> ViewResult:
        groups = ("all", "normal-cecum", "normal-colon")
        lead = Interval(value=best - trivial, low=best - trivial - 0.22, high=best - trivial + 0.09)
        near = Interval(value=trivial, low=trivial - 0.04, high=trivial + 0.04)
        return ViewResult(
            selected="mse_no_overlay+mahalanobis",
            selection_auroc=dict.fromkeys(SCORES, 0.88) | {"mse_no_overlay+mahalanobis": 0.93},
            selection_counts={"normal": 39, "abnormal": 150},
            calibration_count=38,
            counts={"all": 77, "normal-cecum": 49, "normal-colon": 28, "abnormal": 450},
            scores={name: separations(best) for name in SCORES},
            baselines={name: separations(trivial) for name in BASELINES},
            leads={group: Lead(baseline="black fraction", difference=lead) for group in groups},
            flagged={"all": 0.05, "normal-cecum": 0.02, "normal-colon": 0.09, "abnormal": 0.7},
            cameras={
                "normal-cecum, 633 x 532": CameraResult(count=34, flagged=0.0),
                "normal-cecum, 720 x 576": CameraResult(count=15, flagged=0.07),
                "normal-colon, 633 x 532": CameraResult(count=28, flagged=0.09),
            },
            shortcuts=ShortcutTest(frames=1370, shortcuts=dict.fromkeys(groups, near), mean_colour=dict.fromkeys(groups, near)),
            warnings=("Warning: against normal-colon, it is not clearly above the trivial baseline black fraction.",),
        )

    return Anomaly(
        headline="centre",
        views={"full": view(0.9, 0.7), "centre": view(0.8, 0.65)},
        rate=0.05,
        localization=Localization(frames=120, lesion_share=0.18, maps={"error, smoothed": MapResult(auroc=0.71, dice=0.42)}),
        warnings=("Warning: 40% of the 77 healthy test frames are 720 x 576, and 5% of the 38 calibration frames.",),
    )


def write_rows(path: Path, kinds: Sequence[str], rng: np.random.Generator) -> None:
    """Write a row a frame, as evaluation.csv has them."""
    methods = ("endovae", "pca", "mean_image")
    columns = [f"{method}_{metric}" for method in methods for metric in ("psnr", "ssim", "squared_error")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "kind", "width", "height", *columns, "kl"])
        for kind in kinds:
            for width, height, count in SIZES[kind]:
                for number in range(count):
                    psnr = PSNR[kind]["endovae"] + rng.normal()
                    values = [f"{value:.6g}" for value in (psnr, 0.5, 10 ** (-psnr / 10)) * len(methods)]
                    writer.writerow([f"{kind}/{number}.jpg", kind, width, height, *values, "12.3"])


def _set(kind: str, size: int, latent: int, rng: np.random.Generator) -> SetResult:
    def metrics(psnr: float, ssim: float) -> dict[str, MeanStd]:
        found = {"psnr": (psnr, 2.4), "ssim": (ssim, 0.1), "squared_error": (10 ** (-psnr / 10), 0.004)}
        return {metric: MeanStd(mean=mean, std=std) for metric, (mean, std) in found.items()}

    methods = {method: metrics(psnr, SSIM[kind][method]) for method, psnr in PSNR[kind].items()}
    frequency = np.arange(size // 2 + 1)
    original = 1e4 / (1 + frequency) ** 2.2
    keep = {"original": 1, "endovae": np.exp(-frequency / 4), "pca": np.exp(-frequency / 3), "mean image": np.exp(-frequency)}
    return SetResult(
        title=f"{kind} frames",
        count=sum(HELD_OUT[kind].values()),
        classes=HELD_OUT[kind],
        methods=methods,
        by_class={name: metrics(PSNR[kind]["endovae"] + i, 0.5) for i, name in enumerate(HELD_OUT[kind])},
        by_size=tuple(
            SizeResult(width=w, height=h, count=n, psnr=PSNR[kind]["endovae"] + rng.normal(), ssim=0.5)
            for w, h, n in SIZES[kind]
        ),
        kl=tuple(np.linspace(3.1, 0.02, latent)[::-1].tolist()),
        detail_kept={"endovae": 0.021, "pca": 0.013, "mean image": 0.001},
        spectra={name: (original * share).tolist() for name, share in keep.items()},
        region_error={name: 0.004 + 0.03 * share for name, share in REGIONS.items()},
        region_share=dict(REGIONS),
    )


def _stages(position: int, rng: np.random.Generator) -> Any:
    frame = bordered(rng)
    return stages(position, frame, find_content_area(frame))


def _record(name: str, epochs: int, state: str, rng: np.random.Generator) -> dict[str, Any]:
    title = "normal-cecum, normal-colon, polyps; trained on normal frames"
    sizes = {"count": 1370, "train": 616, "validation": 39, "calibration": 38, "test": 677}
    return {
        "system": "endovae",
        "state": state,
        "name": name,
        "versions": {"python": "3.11.9", "pixelscope": "0.2.0", "torch": "2.13.0"},
        "git": "0123456789abcdef0123456789abcdef01234567",
        "command": "pixelscope endovae train --preset paper",
        "seed": 0,
        "hardware": {"cpu": "A processor", "cores": 2, "accelerator": "none", "system": "Linux x86_64"},
        "runtime": {"devices": 1, "accelerator": "cpu", "precision": "bf16-mixed", "threads": 2},
        "data": {"frames": {"spec": "stores/kvasir", "title": title, **sizes, "sha256": 8 * "f0a31540", "notes": []}},
        "parameters": {"encoder": 9_842_380, "decoder": 1_282_467},
        "sessions": 1,
        "epoch": EPOCH,
        "images": epochs * EPOCH,
        "steps": epochs * EPOCH // BATCH,
        "seconds": 18_720.4,
        "images_per_second": 31.2,
        **({"ended": "Early stopping: no lower validation loss for 10 epochs."} if state == "finished" else {}),
    }


def _statistics(epochs: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    lines = [_evaluated(epoch, rng) for epoch in range(epochs + 1)]
    lines += [_trained(quarter / 4, rng) for quarter in range(1, 4 * epochs + 1)]
    if epochs > 2:
        text = "KL 0.01 nats: the decoder ignores the latent vector; lower --losses.kl, or train on more frames."
        warning = {"kind": "warning", "images": EPOCH, "step": 25, "cause": "posterior collapse", "text": text}
        lines += [warning, {**warning, "images": 2 * EPOCH}]
    return sorted(lines, key=lambda line: line["images"])


def _terms(epoch: float) -> tuple[float, float]:
    """Return reconstruction and divergence in nats: nothing happens for three epochs, then it takes off."""
    since = max(0.0, epoch - 3)
    return 4880 + 1508 * float(np.exp(-since / 4)), 19.6 * (1 - float(np.exp(-since / 3)))


def _trained(epoch: float, rng: np.random.Generator) -> dict[str, Any]:
    reconstruction, kl = _terms(epoch)
    reconstruction += 30 * rng.standard_normal()
    kl = abs(kl + 0.3 * rng.standard_normal())
    numbers = {"loss/total": reconstruction + kl, "loss/reconstruction": reconstruction, "loss/kl": kl}
    norms = {"gradient/encoder": 40.0, "gradient/decoder": 25.0}
    at = {"images": round(epoch * EPOCH), "step": round(epoch * EPOCH / BATCH)}
    return {"kind": "train", **at, "images_per_second": 31.2, **numbers, **norms}


def _evaluated(epoch: int, rng: np.random.Generator) -> dict[str, Any]:
    reconstruction, kl = _terms(epoch)
    reconstruction += 40 + 1.5 * max(0, epoch - 30) - (20 if epoch == 30 else 0)
    rate = 1e-3 * 0.5 ** ((epoch >= 24) + (epoch >= 35))
    numbers = {"total": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    losses = {f"loss/validation_{name}": value for name, value in numbers.items()}
    return {"kind": "evaluation", "images": epoch * EPOCH, "step": epoch * EPOCH // BATCH, **losses, "learning_rate": rate}


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
