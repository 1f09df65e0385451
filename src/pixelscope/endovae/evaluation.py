"""Evaluation of a run: quality of its reconstructions beside linear yardsticks, and the report's findings as numbers.

The frames measured here were held out of training and of every choice; of a kind that was not trained on, these are all.
"""

import csv
import io
import logging
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.classification import binary_auroc

from pixelscope.data.imageset import image_hashes
from pixelscope.endovae.anomaly.evaluation import AnomalyMeasured, measure_anomaly, number
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.checkpoints import SYSTEM, Checkpoint, list_checkpoints, pick
from pixelscope.endovae.cohort import Cohort, Part, load_cohort, load_own_cohort
from pixelscope.endovae.components import PrincipalComponents
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.findings import fine_detail_kept
from pixelscope.endovae.measurement import Measured, measure, quality_of
from pixelscope.endovae.pictures import write_pictures
from pixelscope.endovae.quality import SSIM_RULE
from pixelscope.endovae.results import METHODS, MODEL, Evaluation, MeanStd, SetResult, SizeResult
from pixelscope.engine.memory import keep_freed_memory
from pixelscope.errors import InputError
from pixelscope.files import write_text

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
    cohort = load_own_cohort(checkpoint.folder, config, checkpoint.record)
    others = None if frames is None else _other_frames(frames, config, cohort)
    parts = cohort.held_out if others is None else others
    components = _fit(cohort.train, config.model.latent)
    measured = {kind: measure(part, checkpoint, components) for kind, part in parts.items()}
    for kind, found in measured.items():
        _require_measured(kind, found)
    anomaly = measure_anomaly(cohort, checkpoint, components, others)
    result = Evaluation(
        system=SYSTEM,
        images=checkpoint.images,
        epochs=checkpoint.images / (len(cohort.train) * (1 + config.augmentation.copies)),
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
        _store(checkpoint, result, cohort, measured, anomaly)
    return result


def _store(
    checkpoint: Checkpoint,
    result: Evaluation,
    cohort: Cohort,
    measured: dict[str, Measured],
    anomaly: AnomalyMeasured | None,
) -> None:
    if anomaly is not None:
        anomaly.store(checkpoint)
    result.save(checkpoint.folder.evaluation)
    write_text(checkpoint.folder.path / "evaluation.csv", frame_table(cohort.held_out, measured))
    write_pictures(checkpoint, cohort, {kind: found.values[MODEL] for kind, found in measured.items()})


def frame_table(parts: dict[str, Part], measured: dict[str, Measured]) -> str:
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


def _other_frames(frames: str, config: EndoVAEConfig, own: Cohort) -> dict[str, Part]:
    """Return the frames of another store or folder by kind, without those that the run trained on or chose its weights by."""
    # Any division serves: all its parts are put together again, by kind.
    everything = load_cohort(config.model_copy(update={"frames": frames})).everything
    store = everything.store
    for note in store.notes:
        _log.warning(note)
    seen = np.concatenate([image_hashes(part.rows) for part in (own.train, own.validation)])
    unseen = ~np.isin(image_hashes(everything.rows), seen)
    kinds = np.array(store.kinds)[store.labels]
    found = {kind: Part(store, np.flatnonzero((kinds == kind) & unseen)) for kind in ("normal", "abnormal")}
    if not unseen.any():
        raise InputError(f"The run trained on every frame in {frames}, so nothing is left to measure; give other frames.")
    if not unseen.all():
        _log.warning("Left out %d of %d frames, on which the run trained or chose its weights.", (~unseen).sum(), len(unseen))
    return {kind: part for kind, part in found.items() if len(part)}


def _fit(train: Part, latent: int) -> PrincipalComponents:
    images = to_unit(as_channels_first(train.at_most(FITTED).frames)).contiguous()
    return PrincipalComponents.fit(torch.cat([images, images.flip(-1)]), latent)


def _quality(checkpoint: Checkpoint, parts: dict[str, Part]) -> dict[str, int | float]:
    found: dict[str, int | float] = {"images": checkpoint.images}
    for kind, part in parts.items():
        found |= {f"{kind}_{name}": _mean_std(values).mean for name, values in quality_of(part, checkpoint).items()}
    return found


def _title(kind: str, config: EndoVAEConfig, own: bool) -> str:
    held_out = own and config.split.train_on in (kind, "both")
    return f"held-out {kind} frames" if held_out else f"{kind} frames"


def _result(title: str, part: Part, found: Measured) -> SetResult:
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
        detail_kept={
            method: fine_detail_kept(torch.from_numpy(found.spectra["original"]), torch.from_numpy(found.spectra[method]))
            for method in METHODS
        },
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


def _by_size(part: Part, model: dict[str, np.ndarray], known: np.ndarray) -> tuple[SizeResult, ...]:
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
        errors = [_known(measured[kind].values[method]["squared_error"]) for kind in ("normal", "abnormal")]
        truth = torch.cat([torch.full((len(part),), index) for index, part in enumerate(errors)])
        found[method] = float(binary_auroc(torch.from_numpy(np.concatenate(errors)), truth))
    return found


def _mean_std(values: np.ndarray) -> MeanStd:
    known = _known(values)
    return MeanStd(mean=float(known.mean()), std=float(known.std()))


def _known(values: np.ndarray) -> np.ndarray:
    """Return the values of the frames that could be measured."""
    return values[~np.isnan(values)]
