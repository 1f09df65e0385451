"""Every number that is measured frame by frame, for a model and for its linear yardsticks."""

import csv
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.imageset import image_hashes
from pixelscope.endovae.anomaly.evaluation import AnomalyMeasured, measure_anomaly, number
from pixelscope.endovae.checkpoints import SYSTEM, Checkpoint, list_checkpoints, pick
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import FrameSubset, Splits, as_channels_first, load_run_splits, load_splits, to_unit
from pixelscope.endovae.forward import BATCH, Reconstructed, reconstruct_batches
from pixelscope.endovae.metrics import REGIONS, SSIM_RULE, auroc, fine_detail_kept, psnr, regions, spectrum, squared_error, ssim
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.endovae.results import MEAN, METHODS, MODEL, PCA, Evaluation, MeanStd, SetResult, SizeResult
from pixelscope.endovae.samples import write_pictures
from pixelscope.engine.memory import keep_freed_memory
from pixelscope.errors import InputError
from pixelscope.files import write_text

Metric = Callable[[Tensor, Tensor, Tensor | None], Tensor]
METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim, "squared_error": squared_error}


@dataclass
class Measured:
    """What was measured on one part, an entry a frame, in the order of its positions."""

    values: dict[str, dict[str, np.ndarray]]
    """By method, then by metric: float (N,)."""
    kl: np.ndarray
    """Nats by frame and latent dimension, (N, latent)."""
    spectra: dict[str, np.ndarray]
    """Mean energy by frequency, (F,), of the originals ("original") and of each method's reconstructions."""
    region_error: dict[str, float]
    """Mean squared error of the model's reconstructions in each region; regions without a pixel left out."""
    region_share: dict[str, float]
    """Share of all pixels in each of these regions."""


@dataclass
class _Sums:
    values: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    kl: list[Tensor] = field(default_factory=list)
    spectra: dict[str, Tensor] = field(default_factory=dict)
    region_error: dict[str, float] = field(default_factory=dict)
    region_count: dict[str, int] = field(default_factory=dict)


def measure(part: FrameSubset, checkpoint: Checkpoint, components: PrincipalComponents) -> Measured:
    """Reconstruct the frames of a part from the posterior's mode, and measure all of it a batch at a time."""
    sums, insets = _Sums(), part.insets
    for rows, batch, valid_mask in _batches(part, checkpoint):
        _add(sums, batch, components, insets[rows], valid_mask)
    return _finished(sums, len(part))


def quality_of(part: FrameSubset, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return the model's metrics alone, float (N,) each."""
    found: dict[str, list[Tensor]] = {name: [] for name in METRICS}
    for _, batch, valid_mask in _batches(part, checkpoint):
        for name, metric in METRICS.items():
            found[name].append(metric(batch.images, batch.reconstructions, valid_mask))
    return {name: torch.cat(values).numpy() for name, values in found.items()}


def _batches(part: FrameSubset, checkpoint: Checkpoint) -> Iterator[tuple[slice, Reconstructed, Tensor | None]]:
    """Give the rows of each batch, its reconstructions, and where its pixels count."""
    ignore_mask = part.ignore_mask
    for index, batch in enumerate(reconstruct_batches(checkpoint, part.frames)):
        rows = slice(index * BATCH, index * BATCH + len(batch.images))
        yield rows, batch, None if ignore_mask is None else 1 - torch.from_numpy(ignore_mask[rows]).unsqueeze(1).float()


def _add(
    sums: _Sums, batch: Reconstructed, components: PrincipalComponents, insets: np.ndarray, valid_mask: Tensor | None
) -> None:
    methods = {
        MODEL: batch.reconstructions,
        PCA: components.reconstruct(batch.images),
        MEAN: components.mean_image(batch.images),
    }
    for method, reconstructions in methods.items():
        for name, metric in METRICS.items():
            found = sums.values.setdefault(method, {}).setdefault(name, [])
            found.append(metric(batch.images, reconstructions, valid_mask))
    for name, images in {"original": batch.images, **methods}.items():
        sums.spectra[name] = sums.spectra.get(name, torch.zeros(())) + spectrum(images).sum(0)
    sums.kl.append(batch.posterior.kl())
    errors = (batch.images - batch.reconstructions).square().mean(1)
    for name, inside in regions(batch.images, insets).items():
        sums.region_error[name] = sums.region_error.get(name, 0.0) + float(errors[inside].sum())
        sums.region_count[name] = sums.region_count.get(name, 0) + int(inside.sum())


def _finished(sums: _Sums, count: int) -> Measured:
    pixels = sum(sums.region_count.values())
    shown = [name for name in REGIONS if sums.region_count[name]]
    return Measured(
        values={
            method: {name: torch.cat(parts).numpy() for name, parts in metrics.items()}
            for method, metrics in sums.values.items()
        },
        kl=torch.cat(sums.kl).numpy(),
        spectra={name: (total / count).numpy() for name, total in sums.spectra.items()},
        region_error={name: sums.region_error[name] / sums.region_count[name] for name in shown},
        region_share={name: sums.region_count[name] / pixels for name in shown},
    )


_log = logging.getLogger(__name__)

FITTED = 20_000
"""Training frames that the principal components are fitted to at most, at equal distances over all: 5 GB in float32."""


def evaluate_endovae(run: Path, *, frames: str | None = None, rule: str = "auto") -> Evaluation:
    """Measure a run on its held-out frames, or on a store or folder of other ones, and return the numbers.

    frames: frames to measure in place of the run's own, all but those that it trained on or that chose its weights; the
        result is then returned and not stored.
    rule: `best-validation`, `last` or `ema-last`; `auto` is best-validation.
    Stores evaluation.json, evaluation.csv and anomaly.csv (a row a frame), the pictures of the report, and the calibration of
    anomaly scores beside the weights, in the run folder.
    Raises InputError where the run has no checkpoint, the rule is not available, the run's own frames have changed since the
    training, or no other frame is left to measure.
    """
    keep_freed_memory()
    checkpoints = list_checkpoints(run)
    checkpoint = pick(checkpoints, rule)
    config = checkpoint.config
    splits = load_run_splits(checkpoint.folder, config, checkpoint.record)
    others = None if frames is None else _other_frames(frames, config, splits)
    parts = splits.test if others is None else others
    components = _fit(splits.train, config.model.latent)
    measured = {kind: measure(part, checkpoint, components) for kind, part in parts.items()}
    for kind, found in measured.items():
        _require_measured(kind, found)
    anomaly = measure_anomaly(splits, checkpoint, components, others)
    result = Evaluation(
        system=SYSTEM,
        images=checkpoint.images,
        epochs=checkpoint.images / (len(splits.train) * (1 + config.augmentation.copies)),
        rule=checkpoint.rule,
        rules={one.rule: _quality(one, parts) for one in checkpoints},
        latent=config.model.latent,
        components=len(components.directions),
        ssim_rule=SSIM_RULE,
        sets={kind: _result(_title(kind, config, own=others is None), parts[kind], one) for kind, one in measured.items()},
        separation=_separation(measured),
        anomaly=None if anomaly is None else anomaly.found,
    )
    if others is None:
        _store(checkpoint, result, splits, measured, anomaly)
    return result


def _store(
    checkpoint: Checkpoint,
    result: Evaluation,
    splits: Splits,
    measured: dict[str, Measured],
    anomaly: AnomalyMeasured | None,
) -> None:
    if anomaly is not None:
        anomaly.store(checkpoint)
    result.save(checkpoint.folder.evaluation)
    write_text(checkpoint.folder.path / "evaluation.csv", frame_table(splits.test, measured))
    write_pictures(checkpoint, splits, {kind: found.values[MODEL] for kind, found in measured.items()})


def frame_table(parts: dict[str, FrameSubset], measured: dict[str, Measured]) -> str:
    """Return one CSV row a frame: its name, kind and original size, then every metric of every method, and its divergence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [(method, metric) for method in METHODS for metric in ("psnr", "ssim", "squared_error")]
    columns = [f"{method.replace(' ', '_')}_{metric}" for method, metric in metrics]
    writer.writerow(["name", "kind", "width", "height", *columns, "kl"])
    for kind, part in parts.items():
        found = measured[kind]
        for row, (name, size) in enumerate(zip(part.names, part.store.sizes[part.positions], strict=True)):
            values = [number(found.values[method][metric][row]) for method, metric in metrics]
            writer.writerow([name, kind, *size.tolist(), *values, number(found.kl[row].sum())])
    return text.getvalue()


def _other_frames(frames: str, config: EndoVAEConfig, own: Splits) -> dict[str, FrameSubset]:
    """Return the frames of another store or folder by kind, without those that the run trained on or chose its weights by."""
    # Any division serves: all its parts are put together again, by kind.
    everything = load_splits(config.model_copy(update={"frames": frames})).everything
    store = everything.store
    for note in store.notes:
        _log.warning(note)
    seen = np.concatenate([image_hashes(part.rows) for part in (own.train, own.validation)])
    unseen = ~np.isin(image_hashes(everything.rows), seen)
    kinds = np.array(store.kinds)[store.labels]
    found = {kind: FrameSubset(store, np.flatnonzero((kinds == kind) & unseen)) for kind in ("normal", "abnormal")}
    if not unseen.any():
        raise InputError(f"The run trained on every frame in {frames}, so nothing is left to measure; give other frames.")
    if not unseen.all():
        _log.warning("Left out %d of %d frames, on which the run trained or chose its weights.", (~unseen).sum(), len(unseen))
    return {kind: part for kind, part in found.items() if len(part)}


def _fit(train: FrameSubset, latent: int) -> PrincipalComponents:
    images = to_unit(as_channels_first(train.at_most(FITTED).frames)).contiguous()
    return PrincipalComponents.fit(torch.cat([images, images.flip(-1)]), latent)


def _quality(checkpoint: Checkpoint, parts: dict[str, FrameSubset]) -> dict[str, int | float]:
    found: dict[str, int | float] = {"images": checkpoint.images}
    for kind, part in parts.items():
        found |= {f"{kind}_{name}": _mean_std(values).mean for name, values in quality_of(part, checkpoint).items()}
    return found


def _title(kind: str, config: EndoVAEConfig, own: bool) -> str:
    test = own and config.split.train_on in (kind, "both")
    return f"held-out {kind} frames" if test else f"{kind} frames"


def _result(title: str, part: FrameSubset, found: Measured) -> SetResult:
    labels = part.store.labels[part.positions]
    present = {name: labels == label for label, name in enumerate(part.store.classes) if (labels == label).any()}
    model = found.values[MODEL]
    known = _measured(found)
    return SetResult(
        title=title,
        count=len(part),
        classes={name: int(inside.sum()) for name, inside in present.items()},
        methods={method: {name: _mean_std(v) for name, v in metrics.items()} for method, metrics in found.values.items()},
        by_class={
            name: {metric: _mean_std(v[inside]) for metric, v in model.items()}
            for name, inside in present.items()
            if known[inside].any()
        },
        by_size=_by_size(part, model, known),
        kl=tuple(found.kl.mean(0).tolist()),
        detail_kept={method: fine_detail_kept(found.spectra["original"], found.spectra[method]) for method in METHODS},
        spectra={name: tuple(values.tolist()) for name, values in found.spectra.items()},
        region_error=found.region_error,
        region_share=found.region_share,
        unmeasured=int((~known).sum()),
    )


def _measured(found: Measured) -> np.ndarray:
    """Return which frames have a quality, bool (N,): those of which not every pixel is left out."""
    return ~np.isnan(found.values[MODEL]["psnr"] + found.values[MODEL]["ssim"])


def _require_measured(kind: str, found: Measured) -> None:
    if not _measured(found).any():
        count = len(_measured(found))
        raise InputError(f"Every pixel of all {count:,} {kind} frames is left out as inset; give other frames to measure.")


def _by_size(part: FrameSubset, model: dict[str, np.ndarray], known: np.ndarray) -> tuple[SizeResult, ...]:
    sizes, which = np.unique(part.store.sizes[part.positions], axis=0, return_inverse=True)
    rows = []
    for index, (width, height) in enumerate(sizes.tolist()):
        inside = (which.reshape(-1) == index) & known
        if inside.any():
            means = {name: float(model[name][inside].mean()) for name in ("psnr", "ssim")}
            rows.append(SizeResult(width=width, height=height, count=int(inside.sum()), **means))
    return tuple(sorted(rows, key=lambda row: -row.count))


def _separation(measured: dict[str, Measured]) -> dict[str, float]:
    if set(measured) != {"normal", "abnormal"}:
        return {}
    found = {}
    for method in METHODS:
        found[method] = auroc(*(_known(measured[kind].values[method]["squared_error"]) for kind in ("normal", "abnormal")))
    return found


def _mean_std(values: np.ndarray) -> MeanStd:
    known = _known(values)
    return MeanStd(mean=float(known.mean()), std=float(known.std()))


def _known(values: np.ndarray) -> np.ndarray:
    """Return the values of the frames that could be measured."""
    return values[~np.isnan(values)]
