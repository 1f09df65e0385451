"""Evaluates a run: quality of its reconstructions next to linear baselines, anomaly scores, and stored images.

Test frames were not used in training, nor to choose anything; of a kind that was not trained on, all frames are test frames.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data.frames.duplicates import clusters
from pixelscope.endovae.anomaly.calibrate import AnomalySplits, split_for_anomaly
from pixelscope.endovae.anomaly.evaluation import AnomalyMeasured, measure_anomaly, number
from pixelscope.endovae.anomaly.localization import outlined
from pixelscope.endovae.anomaly.measurement import Measured, fit_references, measure, measure_quality
from pixelscope.endovae.checkpoints import SYSTEM, Checkpoint, load_checkpoints
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import FrameSubset, Splits, load_other_frames, load_run_splits, subsets_by_kind
from pixelscope.endovae.forward import LatentAxes, save_axes
from pixelscope.endovae.metrics import SSIM_METHOD, auroc, fine_detail_kept
from pixelscope.endovae.results import METHODS, METRICS, MODEL, Evaluation, MeanStd, SetResult, SizeResult
from pixelscope.endovae.samples import save_samples
from pixelscope.errors import InputError
from pixelscope.files import csv_text, keep_heap, write_text
from pixelscope.runs.folder import RunFolder

_log = logging.getLogger(__name__)


def evaluate_endovae(run: Path, *, frames: str | None = None, checkpoint: str = "auto", take_over: bool = False) -> Evaluation:
    """Measure a run on its test frames, or on other frames.

    Stores in the run folder evaluation.json, evaluation.csv and anomaly.csv (one row per frame), the images of the report and
    the calibration of the anomaly scores; nothing while another process holds the run's lock, for example to train it.

    Args:
        run: a run folder of EndoVAE.
        frames: a store or folder of other frames. Those that the run was trained or validated on or selected the anomaly score
            on are left out, with near-duplicates of them. The result is returned and not stored.
        checkpoint: `best-validation`, `ema-last` or `last`; `auto` is the first of these that the run has.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Returns:
        The results.

    Raises:
        InputError: the run has no such checkpoint, its own frames have changed since the training, other frames were prepared
            otherwise, or none is left.
    """
    keep_heap()
    if frames is not None:
        return _evaluate(run, frames, checkpoint, may_write=False)
    with RunFolder.open(run).locked_if_free("evaluated", take_over) as may_write:
        return _evaluate(run, None, checkpoint, may_write)


def _evaluate(run: Path, frames: str | None, checkpoint: str, may_write: bool) -> Evaluation:
    found, checkpoints = load_checkpoints(run, checkpoint)
    config = found.config
    splits = load_run_splits(found.folder, config, found.record)
    tested, parts = split_for_anomaly(splits, config.split), splits.test
    if frames is not None:
        parts = _other_frames(frames, config, _seen(splits, tested))
        tested = None if tested is None else replace(tested, test=parts)
    references = fit_references(found, splits.train)
    measured = {kind: measure(part, found, references, _outlined(tested, kind)) for kind, part in parts.items()}
    _require_valid_pixels(measured)
    anomaly = None if tested is None else measure_anomaly(tested, found, references, measured)
    result = Evaluation(
        system=SYSTEM,
        images=found.images,
        epochs=found.images / config.augmentation.images_per_epoch(len(splits.train)),
        checkpoint=found.name,
        checkpoints={one.name: _quality(one, parts, measured if one is found else None) for one in checkpoints},
        latent=config.code_values,
        code=config.code_shape,
        components=len(references.components.directions),
        ssim_method=SSIM_METHOD,
        sets={
            kind: _result(_title(kind, config, own=frames is None), parts[kind], one, config.model.latent)
            for kind, one in measured.items()
        },
        separation=_separation(measured),
        anomaly=None if anomaly is None else anomaly.found,
    )
    if may_write:
        _store(found, result, splits, measured, anomaly, references.axes)
    return result


def _outlined(parts: AnomalySplits | None, kind: str) -> np.ndarray | None:
    """Return the positions of the frames whose maps are compared with masks of lesions; None without any."""
    return outlined(parts.test[kind]).positions if parts is not None and kind == "abnormal" else None


def _require_valid_pixels(measured: Mapping[str, Measured]) -> None:
    for kind, found in measured.items():
        if not found.known.any():
            raise InputError(
                f"All pixels of all {len(found.known):,} {kind} frames are ignored, because they lie in insets; give other "
                "frames to measure."
            )


def frame_table(parts: dict[str, FrameSubset], measured: dict[str, Measured]) -> str:
    """Return a CSV with one row per frame: name, kind, original size, the metrics of each method, and the KL divergence."""
    metrics = [(method, metric) for method in METHODS for metric in METRICS]
    columns = [f"{method.replace(' ', '_')}_{metric}" for method, metric in metrics]
    rows: list[list[Any]] = [["name", "kind", "width", "height", *columns, "kl"]]
    for kind, part in parts.items():
        found = measured[kind]
        for row, (name, size) in enumerate(zip(part.names, part.store.sizes[part.positions], strict=True)):
            values = [number(found.values[method][metric][row]) for method, metric in metrics]
            rows.append([name, kind, *size.tolist(), *values, number(found.kl[row].sum())])
    return csv_text(rows)


def _store(
    checkpoint: Checkpoint,
    result: Evaluation,
    splits: Splits,
    measured: dict[str, Measured],
    anomaly: AnomalyMeasured | None,
    axes: LatentAxes,
) -> None:
    if anomaly is not None:
        anomaly.store(checkpoint.folder)
    write_text(checkpoint.folder.path / "evaluation.csv", frame_table(splits.test, measured))
    if checkpoint.config.model.kind == "spatial":
        save_axes(checkpoint, axes)
    save_samples(checkpoint, splits, measured, anomaly, axes)
    result.save(checkpoint.folder.evaluation)  # last, so that a run that has it has all of it


def _seen(splits: Splits, tested: AnomalySplits | None) -> list[FrameSubset]:
    """Return the frames that the weights, the checkpoint, the anomaly score or its calibration depend on."""
    selecting = [] if tested is None else list(tested.selection.values())
    return [splits.train, splits.validation, splits.calibration, *selecting]


def _other_frames(frames: str, config: EndoVAEConfig, seen: Sequence[FrameSubset]) -> dict[str, FrameSubset]:
    """Return the frames of another store or folder by kind, without those in `seen` and near-duplicates of them."""
    store = load_other_frames(config, frames)
    for note in store.notes:
        _log.warning(note)
    hashes = np.concatenate([*(part.store.hashes[part.positions] for part in seen), store.hashes])
    names = [name for part in seen for name in part.names] + list(store.names)
    groups = clusters(hashes, config.split.duplicate_distance, names)
    known = len(hashes) - len(store)
    unseen = ~np.isin(groups[known:], groups[:known])
    if not unseen.any():
        raise InputError(f"The run has seen all frames in {frames}, or near-duplicates of them; give other frames.")
    if not unseen.all():
        _log.warning(
            "Left out %d of %d frames that the run was trained or validated on or selected its score on, or near-duplicates.",
            (~unseen).sum(),
            len(unseen),
        )
    return subsets_by_kind(store, unseen)


def _quality(
    checkpoint: Checkpoint, parts: dict[str, FrameSubset], measured: Mapping[str, Measured] | None
) -> dict[str, int | float]:
    """Return the model's mean metrics per kind of frame; `measured`: of this checkpoint, if it was measured already."""
    found: dict[str, int | float] = {"images": checkpoint.images}
    for kind, part in parts.items():
        values = measure_quality(part, checkpoint) if measured is None else measured[kind].values[MODEL]
        found |= {f"{kind}_{name}": _mean_std(values[name]).mean for name in METRICS}
    return found


def _title(kind: str, config: EndoVAEConfig, own: bool) -> str:
    trained = own and config.split.train_on in (kind, "both")
    return f"{kind} test frames" if trained else f"{kind} frames"


def _result(title: str, part: FrameSubset, found: Measured, channels: int) -> SetResult:
    labels = part.store.labels[part.positions]
    present = {name: labels == label for label, name in enumerate(part.store.classes) if (labels == label).any()}
    model, known = found.values[MODEL], found.known
    spectra = {name: values.mean(0) for name, values in found.spectra.items()}
    pixels = {name: int(counts.sum()) for name, counts in found.region_pixels.items() if counts.any()}
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
        kl=tuple(found.kl.mean(0).reshape(-1, channels).sum(0).tolist()),
        detail_kept={method: fine_detail_kept(spectra["original"], spectra[method]) for method in METHODS},
        spectra={name: tuple(values.tolist()) for name, values in spectra.items()},
        region_error={name: float(found.region_error[name].sum(dtype=np.float64) / count) for name, count in pixels.items()},
        region_share={name: count / sum(pixels.values()) for name, count in pixels.items()},
        unmeasured=int((~known).sum()),
    )


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
    """Return the AUROC of the squared error per method; empty unless both kinds were measured."""
    if set(measured) != {"normal", "abnormal"}:
        return {}
    errors = {method: {kind: one.values[method]["squared_error"] for kind, one in measured.items()} for method in METHODS}
    return {method: auroc(_known(by["normal"]), _known(by["abnormal"])) for method, by in errors.items()}


def _mean_std(values: np.ndarray) -> MeanStd:
    known = _known(values)
    return MeanStd(mean=float(known.mean()), std=float(known.std()))


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]
