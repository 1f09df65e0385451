"""Evaluation of a run: quality of its reconstructions beside linear yardsticks, and the report's findings as numbers.

The frames measured here were held out of training and of every choice; of a kind that was not trained on, these are all.
"""

import csv
import io
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import binary_auroc

from pixelscope.data.frame_store import spread
from pixelscope.data.imageset import image_hashes
from pixelscope.endovae.anomaly.calibrating import Parts, calibrate, divide_for_anomaly
from pixelscope.endovae.anomaly.calibration import FILE, Calibration
from pixelscope.endovae.anomaly.evaluation import (
    Anomaly,
    Scored,
    anomaly_table,
    describe_colours,
    evaluate_anomaly,
    number,
    score_part,
)
from pixelscope.endovae.anomaly.pictures import write_heat_maps
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.chosen import Weights, available_weights, choose
from pixelscope.endovae.cohort import Cohort, Part, load_cohort, load_own_cohort
from pixelscope.endovae.components import PrincipalComponents
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.findings import fine_detail_kept
from pixelscope.endovae.measurement import MEAN, MODEL, PCA, Measured, measure, quality_of
from pixelscope.endovae.pictures import write_pictures
from pixelscope.endovae.quality import SSIM_RULE
from pixelscope.endovae.training import SYSTEM, read_config
from pixelscope.engine.memory import keep_freed_memory
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.files import write_text

_log = logging.getLogger(__name__)

FITTED = 20_000
"""Training frames that the principal components are fitted to at most, at equal distances over all: 5 GB in float32."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over frames."""

    mean: float
    std: float


@dataclass(frozen=True)
class SetResult:
    """What was measured on one set of held-out frames."""

    title: str
    count: int
    classes: dict[str, int]
    methods: dict[str, dict[str, Spread]]
    """By method (endovae, pca, mean image), then by metric (psnr in dB, ssim, squared_error)."""
    by_class: dict[str, dict[str, Spread]]
    """The model's metrics in each class."""
    by_size: list[dict[str, float]]
    """The model's mean metrics by original size: width, height, count, psnr, ssim; most frequent first."""
    kl: list[float]
    """Mean nats of each latent dimension."""
    detail_kept: dict[str, float]
    """Share of the originals' fine energy that each method's reconstructions have."""
    spectra: dict[str, list[float]]
    """Mean energy by spatial frequency, of the originals and of each method."""
    region_error: dict[str, float]
    region_share: dict[str, float]
    unmeasured: int = 0
    """Frames without quality, as every pixel of them is left out; they are in no mean."""


@dataclass(frozen=True)
class Evaluation:
    """What a run reaches; the content of evaluation.json."""

    system: str
    images: int
    epochs: float
    rule: str
    """The rule that chose the measured weights."""
    rules: dict[str, dict[str, float]]
    """Mean metrics by each rule that the run supports."""
    latent: int
    components: int
    """Principal components of the yardstick, fitted to the training frames and their mirror images."""
    ssim_rule: str
    sets: dict[str, SetResult]
    separation: dict[str, float]
    """Area under the ROC curve of the squared error, abnormal against held-out normal frames, by method."""
    anomaly: Anomaly | None = None
    """How anomaly scores tell them apart; None where no healthy frames were trained on, or no abnormal ones are there."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.epochs:.1f} epochs; checkpoint rule {self.rule}"
        tables = ["\n".join(_set_lines(result, self)) for result in self.sets.values()]
        found = [f"separation of abnormal from normal by squared error, AUROC: {_listed(self.separation)}"]
        anomaly = [] if self.anomaly is None else [self.anomaly.to_text()]
        return "\n\n".join([head, *tables, *(found if self.separation else []), f"SSIM: {self.ssim_rule}", *anomaly])


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
    folder = RunFolder.open(run)
    config = read_config(folder)
    cohort = load_own_cohort(folder, config)
    measured_parts = cohort.held_out if frames is None else _other_frames(frames, config, cohort)
    name, weights = choose(folder, config, rule)
    components = _fit(cohort.train, config.model.latent)
    measured = {kind: measure(part, weights, components) for kind, part in measured_parts.items()}
    for kind, found in measured.items():
        _require_measured(kind, found)
    anomaly = _measure_anomaly(cohort, config, name, weights, components, None if frames is None else measured_parts)
    result = Evaluation(
        system=SYSTEM,
        images=weights.images,
        epochs=weights.images / (len(cohort.train) * (1 + config.augmentation.copies)),
        rule=name,
        rules=_by_rule(folder, config, measured_parts),
        latent=config.model.latent,
        components=len(components.directions),
        ssim_rule=SSIM_RULE,
        sets={
            kind: _result(_title(kind, config, own=frames is None), measured_parts[kind], found)
            for kind, found in measured.items()
        },
        separation=_separation(measured),
        anomaly=None if anomaly is None else anomaly.found,
    )
    if frames is None:
        if anomaly is not None:
            _store_anomaly(folder, anomaly, weights, config.seed)
        write_text(folder.evaluation, json.dumps(result.to_dict(), indent=1) + "\n")
        write_text(folder.path / "evaluation.csv", frame_table(cohort.held_out, measured))
        write_pictures(folder, cohort, weights, {kind: found.values[MODEL] for kind, found in measured.items()}, config.seed)
    return result


@dataclass(frozen=True)
class _Anomaly:
    calibration: Calibration
    parts: Parts
    scored: dict[str, Scored]
    found: Anomaly | None


def _measure_anomaly(
    cohort: Cohort,
    config: EndoVAEConfig,
    rule: str,
    weights: Weights,
    components: PrincipalComponents,
    others: dict[str, Part] | None,
) -> _Anomaly | None:
    """Calibrate on the run's own validation frames and test on its held-out ones, or on `others`."""
    own = divide_for_anomaly(cohort, config.split)
    if own is None:
        return None
    calibration = calibrate(weights, rule, cohort.train, own.choosing)
    parts = own if others is None else Parts(own.choosing, others)
    colours = describe_colours(cohort.train)
    scored = {kind: score_part(part, weights, calibration, colours, components) for kind, part in parts.test.items()}
    return _Anomaly(calibration, parts, scored, evaluate_anomaly(parts, scored, weights, calibration, components))


def _store_anomaly(folder: RunFolder, anomaly: _Anomaly, weights: Weights, seed: int) -> None:
    calibration, test = anomaly.calibration, anomaly.parts.test
    calibration.save(folder.checkpoints / FILE)
    write_text(folder.path / "anomaly.csv", anomaly_table(test, anomaly.scored, calibration))
    p = {kind: calibration.p_values(calibration.chosen, one.scores[calibration.chosen]) for kind, one in anomaly.scored.items()}
    write_heat_maps(folder, test, p, weights, calibration, seed)


def frame_table(parts: dict[str, Part], measured: dict[str, Measured]) -> str:
    """Return one CSV row a frame: its name, kind and original size, then every metric of every method, and its divergence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [(method, metric) for method in (MODEL, PCA, MEAN) for metric in ("psnr", "ssim", "squared_error")]
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
    store = load_cohort(config.model_copy(update={"frames": frames})).store
    for note in store.notes:
        _log.warning(note)
    everything = Part(store, np.arange(len(store)))
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
    some = Part(train.store, spread(train.positions, FITTED))
    images = to_unit(as_channels_first(some.frames)).contiguous()
    return PrincipalComponents.fit(torch.cat([images, images.flip(-1)]), latent)


def _by_rule(folder: RunFolder, config: EndoVAEConfig, parts: dict[str, Part]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for rule, weights in available_weights(folder, config).items():
        found[rule] = {"images": weights.images}
        for kind, part in parts.items():
            found[rule] |= {f"{kind}_{name}": _spread(values).mean for name, values in quality_of(part, weights).items()}
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
        methods={method: {name: _spread(v) for name, v in metrics.items()} for method, metrics in found.values.items()},
        by_class={
            name: {metric: _spread(v[inside]) for metric, v in model.items()}
            for name, inside in present.items()
            if known[inside].any()
        },
        by_size=_by_size(part, model, known),
        kl=found.kl.mean(0).tolist(),
        detail_kept={
            method: fine_detail_kept(torch.from_numpy(found.spectra["original"]), torch.from_numpy(found.spectra[method]))
            for method in (MODEL, PCA, MEAN)
        },
        spectra={name: values.tolist() for name, values in found.spectra.items()},
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


def _by_size(part: Part, model: dict[str, np.ndarray], known: np.ndarray) -> list[dict[str, float]]:
    sizes, which = np.unique(part.store.sizes[part.positions], axis=0, return_inverse=True)
    rows = []
    for index, (width, height) in enumerate(sizes.tolist()):
        inside = (which.reshape(-1) == index) & known
        if inside.any():
            means = {name: float(model[name][inside].mean()) for name in ("psnr", "ssim")}
            rows.append({"width": width, "height": height, "count": int(inside.sum()), **means})
    return sorted(rows, key=lambda row: -row["count"])


def _separation(measured: dict[str, Measured]) -> dict[str, float]:
    if set(measured) != {"normal", "abnormal"}:
        return {}
    found = {}
    for method in (MODEL, PCA, MEAN):
        errors = [_known(measured[kind].values[method]["squared_error"]) for kind in ("normal", "abnormal")]
        truth = torch.cat([torch.full((len(part),), index) for index, part in enumerate(errors)])
        found[method] = float(binary_auroc(torch.from_numpy(np.concatenate(errors)), truth))
    return found


def _spread(values: np.ndarray) -> Spread:
    known = _known(values)
    return Spread(float(known.mean()), float(known.std()))


def _known(values: np.ndarray) -> np.ndarray:
    """Return the values of the frames that could be measured."""
    return values[~np.isnan(values)]


def _set_lines(result: SetResult, evaluation: Evaluation) -> list[str]:
    names = {MODEL: "EndoVAE", PCA: f"PCA, {evaluation.components} components", MEAN: "mean image"}
    lines = [f"{result.title}: {result.count:,} ({_counts(result.classes)})"]
    if result.unmeasured:
        lines.append(f"  {result.unmeasured:,} of them are not measured: every pixel of them is left out as inset")
    lines.append(f"  {'':<20}  {'PSNR, dB':>14}  {'SSIM':>15}  {'fine detail kept':>16}")
    for method, metrics in result.methods.items():
        psnr, ssim = metrics["psnr"], metrics["ssim"]
        kept = f"{result.detail_kept[method]:.1%}"
        lines.append(
            f"  {names[method]:<20}  {psnr.mean:>6.2f} +- {psnr.std:<4.2f}  {ssim.mean:>6.3f} +- {ssim.std:<5.3f}  {kept:>16}"
        )
    lines.append(f"  KL by latent dimension, nats: {'  '.join(f'{value:.2f}' for value in result.kl)}")
    return lines


def _counts(classes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in classes.items())


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
