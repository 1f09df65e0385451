"""Evaluates how well anomaly scores separate abnormal from healthy frames, next to trivial baselines. For research only.

Each class of healthy frames is compared separately: frames of another camera than the abnormal ones are easily distinguished.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelscope.endovae.anomaly.baselines import BASELINES
from pixelscope.endovae.anomaly.calibrate import MAX_HEATMAPS, AnomalySplits, calibrate
from pixelscope.endovae.anomaly.calibration import FILE, RATE, Calibration
from pixelscope.endovae.anomaly.localization import localize
from pixelscope.endovae.anomaly.scores import NO_TISSUE, SCORES, Values, scores
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.measurement import Measured, References, measure
from pixelscope.endovae.metrics import auroc_with_ci
from pixelscope.endovae.results import Anomaly, ScoreSeparation
from pixelscope.endovae.samples import save_heatmaps
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.inference.table import csv_text

MIN_MARGIN = 0.03
"""Minimum AUROC margin over every trivial baseline; a warning is printed below it."""


@dataclass(frozen=True)
class Scored:
    """Scores of one subset, float64 (N,) each; NaN where there is nothing to measure."""

    scores: dict[str, Values]
    baselines: dict[str, Values]

    @property
    def visible(self) -> np.ndarray:
        """Return the frames with visible tissue, bool (N,)."""
        return np.isfinite(self.scores["mse"])

    def select(self, rows: np.ndarray) -> "Scored":
        """Return the scores of some frames, by position or bool (N,)."""
        return Scored(*({name: values[rows] for name, values in some.items()} for some in (self.scores, self.baselines)))


@dataclass(frozen=True)
class AnomalyMeasured:
    """The anomaly evaluation of a run, per frame and in total."""

    calibration: Calibration
    test: dict[str, FrameSubset]
    scored: dict[str, Scored]
    p: dict[str, Values]
    """p-values of the selected score, (N,); NaN where there is nothing to measure."""
    found: Anomaly | None

    def store(self, checkpoint: Checkpoint) -> None:
        """Write the calibration, anomaly.csv and heat maps into the run folder."""
        folder = checkpoint.folder
        self.calibration.save(folder.checkpoints / FILE)
        write_text(folder.path / "anomaly.csv", anomaly_table(self.test, self.scored, self.p))
        save_heatmaps(checkpoint, self.test, self.p, self.calibration)


def measure_anomaly(
    parts: AnomalySplits, checkpoint: Checkpoint, references: References, measured: Mapping[str, Measured]
) -> AnomalyMeasured:
    """Calibrate on the frames that select a score, and test on the others.

    Args:
        parts: the frames that select, and the frames to test.
        checkpoint: what is evaluated.
        references: of the training frames.
        measured: the frames to test and others, by kind, with the maps of `outlined` abnormal frames. Frames that select and
            are not among them are measured here.
    """
    normal = parts.selection["normal"]
    healthy = measure(normal, checkpoint, references, normal.at_most(MAX_HEATMAPS).positions)
    selection = {"normal": healthy.scores}
    if "abnormal" in parts.selection:
        part, known = parts.selection["abnormal"], measured.get("abnormal")
        found = known if known is not None and known.scores.covers(part) else measure(part, checkpoint, references)
        selection["abnormal"] = found.scores.select(part)
    calibration = calibrate(checkpoint, references.latent, {kind: one.raw for kind, one in selection.items()}, healthy.maps)
    tested = {kind: measured[kind].scores.select(part) for kind, part in parts.test.items()}
    scored = {kind: Scored(scores(one.raw, calibration.log_spreads), one.baselines) for kind, one in tested.items()}
    selected = calibration.selected
    p = {kind: calibration.p_values(selected, one.scores[selected]) for kind, one in scored.items()}
    found = evaluate_anomaly(parts.test, scored, p, calibration)
    if found is not None:
        found = found.model_copy(update={"localization": localize(parts.test["abnormal"], measured["abnormal"].maps)})
    return AnomalyMeasured(calibration, parts.test, scored, p, found)


def evaluate_anomaly(
    test: Mapping[str, FrameSubset], scored: Mapping[str, Scored], p: Mapping[str, Values], calibration: Calibration
) -> Anomaly | None:
    """Compare the scores of healthy and abnormal test frames with visible tissue.

    Returns:
        None unless there are frames of both kinds.

    Raises:
        InputError: no frame of a kind shows tissue.
    """
    if set(test) != {"normal", "abnormal"}:
        return None
    for kind, one in scored.items():
        if not one.visible.any():
            raise InputError(f"No tissue is visible in any of the {len(one.visible):,} {kind} test frames; give others.")
    visible = {kind: one.visible for kind, one in scored.items()}
    seen = {kind: one.select(visible[kind]) for kind, one in scored.items()}
    flagged = {kind: p[kind][which] <= RATE for kind, which in visible.items()}
    groups = {"all": np.ones(len(test["normal"]), bool), **_by_class(test["normal"])}
    groups = {name: which[visible["normal"]] for name, which in groups.items() if which[visible["normal"]].any()}
    found = _separations(seen["normal"].scores, seen["abnormal"].scores, groups)
    baselines = _separations(seen["normal"].baselines, seen["abnormal"].baselines, groups)
    shares = {name: float(flagged["normal"][which].mean()) for name, which in groups.items()}
    return Anomaly(
        selected=calibration.selected,
        selection_auroc=calibration.selection_auroc,
        selection_counts=calibration.selection_counts,
        counts={name: int(which.sum()) for name, which in groups.items()} | {"abnormal": int(visible["abnormal"].sum())},
        scores=found,
        baselines=baselines,
        rate=RATE,
        flagged=shares | {"abnormal": float(flagged["abnormal"].mean())},
        localization=None,
        warnings=_warnings(found[calibration.selected], baselines, calibration.selected),
        unscored={kind: int((~which).sum()) for kind, which in visible.items() if not which.all()},
    )


def anomaly_table(parts: Mapping[str, FrameSubset], scored: Mapping[str, Scored], p: Mapping[str, Values]) -> str:
    """Return a CSV with one row per test frame: name, class, kind, p-value, flagged, all scores, all baselines, and error."""
    rows: list[list[Any]] = [["name", "class", "kind", "p", "flagged", *SCORES, *BASELINES, "error"]]
    for kind, part in parts.items():
        found = scored[kind]
        classes = [part.store.classes[label] for label in part.store.labels[part.positions]]
        columns = [*(found.scores[name] for name in SCORES), *(found.baselines[name] for name in BASELINES)]
        for row, (name, label) in enumerate(zip(part.names, classes, strict=True)):
            values = [number(column[row]) for column in columns]
            flagged, error = (int(p[kind][row] <= RATE), "") if found.visible[row] else ("", NO_TISSUE)
            rows.append([name, label, kind, number(p[kind][row]), flagged, *values, error])
    return csv_text(rows)


def number(value: float) -> str:
    """Return a number for a table; empty for NaN."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _by_class(part: FrameSubset) -> dict[str, np.ndarray]:
    labels = part.store.labels[part.positions]
    return {part.store.classes[label]: labels == label for label in np.unique(labels)}


def _separations(
    normal: Mapping[str, Values], abnormal: Mapping[str, Values], groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, ScoreSeparation]]:
    """Return AUROC and average precision by score, then by group of normal frames, against all abnormal ones."""
    return {
        name: {group: auroc_with_ci(values[which], abnormal[name]) for group, which in groups.items()}
        for name, values in normal.items()
    }


def _warnings(
    model: Mapping[str, ScoreSeparation], baselines: Mapping[str, Mapping[str, ScoreSeparation]], selected: str
) -> tuple[str, ...]:
    found = []
    for group, one in model.items():
        area = one.auroc.value
        near = {name: by[group].auroc.value for name, by in baselines.items() if by[group].auroc.value > area - MIN_MARGIN}
        if near:
            rivals = " and ".join(f"{name} ({value:.3f})" for name, value in near.items())
            where = "all healthy frames" if group == "all" else group
            found.append(
                f"Warning: against {where}, {selected} (AUROC {area:.3f}) is less than {MIN_MARGIN:g} above trivial baselines: "
                f"{rivals}. Do not credit the network with the separation."
            )
    return tuple(found)
