"""Evaluates how well anomaly scores separate abnormal from healthy frames, next to trivial baselines. For research only.

Each class of healthy frames is compared separately, because frames of another camera than the abnormal ones are easy to
separate.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.preprocess import VIEWS, ViewName
from pixelscope.endovae.anomaly.baselines import BASELINES, cross_validated, shortcut_features
from pixelscope.endovae.anomaly.calibrate import MAX_HEATMAPS, AnomalySplits, calibrate
from pixelscope.endovae.anomaly.calibration import (
    FILE,
    HEADLINE,
    RATE,
    Calibration,
    Size,
    camera_names,
    camera_warnings,
    group_sizes,
    selecting_warning,
    size_title,
)
from pixelscope.endovae.anomaly.localization import localize
from pixelscope.endovae.anomaly.measurement import Measured, RawScores, References, measure
from pixelscope.endovae.anomaly.scores import SCORES, Values, count_unscored, scores, why_unscored
from pixelscope.endovae.anomaly.statistics import few_clusters_warning, few_frames_warning
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.metrics import ClusterBootstrap, auroc_lead, auroc_with_ci
from pixelscope.endovae.results import Anomaly, CameraResult, Interval, Lead, ScoreSeparation, ShortcutTest, ViewResult
from pixelscope.errors import InputError, plural
from pixelscope.files import csv_text, write_text
from pixelscope.imaging.config import MIN_LESION
from pixelscope.runs.folder import RunFolder

MAX_SHORTCUT_FRAMES = 5_000
"""Maximum number of frames of the shortcut test, evenly spaced."""
Flags = np.ndarray


LEFT_OUT = f"left out of the measures: the lesion covers less than {MIN_LESION:.0%} of this view"
"""`error` of a frame that has a score."""


@dataclass(frozen=True)
class Scored:
    """Scores of one subset in one view, float64 (N,) each; NaN where there is nothing to measure, infinite where outputs of the
    model are not finite."""

    part: FrameSubset
    clusters: np.ndarray
    """The cluster of near-duplicates of each frame, int64 (N,)."""
    scores: dict[str, Values]
    baselines: dict[str, Values]
    p: Values
    """p-values of the selected score."""

    @property
    def visible(self) -> Flags:
        """Return the frames that have scores, bool (N,)."""
        return np.isfinite(self.scores["mse"])

    @property
    def flagged(self) -> Flags:
        """Return the flagged frames, bool (N,)."""
        return self.p <= RATE

    def select(self, rows: np.ndarray) -> "Scored":
        """Return the scores of some frames, by position or bool (N,)."""
        part = FrameSubset(self.part.store, self.part.positions[rows])
        scores, baselines = ({name: one[rows] for name, one in some.items()} for some in (self.scores, self.baselines))
        return Scored(part, self.clusters[rows], scores, baselines, self.p[rows])


@dataclass(frozen=True)
class AnomalyMeasured:
    """The anomaly evaluation of a run, per frame and in total."""

    calibration: Calibration
    scored: dict[ViewName, dict[str, Scored]]
    """By view and kind."""
    found: Anomaly | None

    def store(self, folder: RunFolder) -> None:
        """Write the calibration and anomaly.csv into the run folder."""
        self.calibration.save(folder.checkpoints / FILE)
        write_text(folder.path / "anomaly.csv", anomaly_table(self.scored, self.calibration))


def measure_anomaly(
    parts: AnomalySplits, checkpoint: Checkpoint, references: References, measured: Mapping[str, Measured]
) -> AnomalyMeasured:
    """Select a score per view, calibrate it on other frames, and test it on a third set.

    Args:
        parts: the frames that select, calibrate and test.
        checkpoint: the checkpoint to evaluate.
        references: references fitted to the training frames.
        measured: measurements by kind, which include the test frames, with the maps of `outlined` abnormal frames. Frames of
            `parts.selection` that they lack are measured here.
    """
    some = parts.calibration.at_most(MAX_HEATMAPS).positions
    healthy = measure(parts.calibration, checkpoint, references, some)
    selection = {kind: _raw_scores(part, checkpoint, references, measured) for kind, part in parts.selection.items()}
    calibration = calibrate(checkpoint, references.latent, parts, selection, healthy)
    distance = checkpoint.config.split.duplicate_distance
    scored: dict[ViewName, dict[str, Scored]] = {
        view: {
            kind: _scored(part, view, measured[kind].scores.select(part), calibration, distance)
            for kind, part in parts.test.items()
        }
        for view in VIEWS
    }
    if set(parts.test) != {"normal", "abnormal"}:
        return AnomalyMeasured(calibration, scored, None)
    found = Anomaly(
        headline=HEADLINE,
        views={view: evaluate_view(view, scored[view], calibration, distance) for view in VIEWS},
        rate=RATE,
        localization=localize(parts.test["abnormal"], measured["abnormal"].maps),
        warnings=(*few_frames_warning(calibration.views[HEADLINE].count, RATE), *_calibration_warnings(parts)),
    )
    return AnomalyMeasured(calibration, scored, found)


def evaluate_view(view: ViewName, scored: Mapping[str, Scored], calibration: Calibration, distance: int) -> ViewResult:
    """Compare the scores of the healthy and abnormal test frames that have one, and whose lesion is shown, in one view.

    Args:
        view: the view.
        scored: scores of the test frames, by kind.
        calibration: the calibration of the run.
        distance: maximum Hamming distance of near-duplicates.

    Raises:
        InputError: no frame of a kind has a score, or no abnormal one shows its lesion.
    """
    for kind, one in scored.items():
        if not one.visible.any():
            raise InputError(
                f"None of the {len(one.visible):,} {kind} test frames has a score on the view {view} "
                f"({count_unscored(one.scores['mse'])}); give others."
            )
    tested = scored["abnormal"].part
    hidden = tested.store.hides_lesion(view)[tested.positions] & scored["abnormal"].visible
    normal = scored["normal"].select(scored["normal"].visible)
    abnormal = scored["abnormal"].select(scored["abnormal"].visible & ~hidden)
    if not len(abnormal.part):
        raise InputError(
            f"The view {view} shows a lesion of {MIN_LESION:.0%} of its area or more in none of "
            f"{plural(int(hidden.sum()), 'abnormal test frame')}; give others."
        )
    groups = {"all": np.ones(len(normal.part), bool), **_by_class(normal.part)}
    draws = {name: ClusterBootstrap.of(normal.clusters[which], abnormal.clusters) for name, which in groups.items()}
    found = _separations(normal.scores, abnormal.scores, groups, draws)
    baselines = _separations(normal.baselines, abnormal.baselines, groups, draws)
    known = calibration.views[view]
    few = few_frames_warning(known.count, RATE)
    leads = {
        name: _lead(
            normal.select(which), abnormal, known.selected, {one: by[name] for one, by in baselines.items()}, draws[name]
        )
        for name, which in groups.items()
    }
    return ViewResult(
        selected=known.selected,
        selection_auroc=known.selection_auroc,
        selection_counts=known.selection_counts,
        calibration_count=known.count,
        counts={name: int(which.sum()) for name, which in groups.items()} | {"abnormal": len(abnormal.part)},
        scores=found,
        baselines=baselines,
        leads=leads,
        flagged={} if few else _flagged_by_group(normal, abnormal, groups),
        cameras={} if few else _flagged_by_camera(normal),
        shortcuts=shortcut_test(view, abnormal.part, distance, tuple(groups)),
        warnings=(*_warnings(view, known.selected, found[known.selected], leads), *_few_clusters(view, draws)),
        unscored=_counts({kind: np.isnan(one.scores["mse"]) for kind, one in scored.items()}),
        not_finite=_counts({kind: np.isinf(one.scores["mse"]) for kind, one in scored.items()}),
        invisible=int(hidden.sum()),
    )


def _counts(flags: Mapping[str, Flags]) -> dict[str, int]:
    """Return the number of flagged frames by kind, without kinds that have none."""
    return {kind: int(some.sum()) for kind, some in flags.items() if some.any()}


def _few_clusters(view: ViewName, draws: Mapping[str, ClusterBootstrap]) -> tuple[str, ...]:
    """Return a warning if a class of healthy frames, or the abnormal ones, are too few clusters for intervals."""
    counts = {name: draw.counts[0] for name, draw in draws.items() if name != "all"}
    return few_clusters_warning(counts | {"abnormal": draws["all"].counts[1]}, f" on the view {view}")


def shortcut_test(view: ViewName, part: FrameSubset, distance: int, groups: tuple[str, ...]) -> ShortcutTest | None:
    """Measure how well a classifier separates the frames of a store without seeing tissue.

    Args:
        view: what the classifier can see.
        part: any frames of the store; all its frames are classified, but those whose lesion the view does not show.
        distance: maximum Hamming distance of near-duplicates, which are held out together.
        groups: classes of healthy frames, and `all`.

    Returns:
        None where a kind has too few clusters.
    """
    store = part.store
    positions = evenly_spaced(np.flatnonzero(~store.hides_lesion(view)), MAX_SHORTCUT_FRAMES)
    abnormal, clusters, labels = store.abnormal[positions], store.clusters(positions, distance), store.labels[positions]
    found: list[dict[str, Interval]] = []
    for features in shortcut_features(store, view, positions):
        values = cross_validated(features, abnormal, clusters)
        if values is None:
            return None
        areas = {}
        for name in groups:
            normal = ~abnormal if name == "all" else labels == store.classes.index(name)
            draw = ClusterBootstrap.of(clusters[normal], clusters[abnormal])
            areas[name] = auroc_with_ci(values[normal], values[abnormal], draw).auroc
        found.append(areas)
    return ShortcutTest(frames=len(positions), shortcuts=found[0], mean_colour=found[1])


def anomaly_table(scored: Mapping[ViewName, Mapping[str, Scored]], calibration: Calibration) -> str:
    """Return a CSV with one row per view and test frame: name, class, kind, p-value, flagged, scores, baselines, and error.

    The p-value is of the selected score. `flagged` is empty where there are too few calibration frames to flag any frame.
    `error` says which frames the measures of a view leave out, and why.
    """
    head = ["view", "name", "class", "kind", "p", "flagged", *SCORES, *BASELINES, "error"]
    rows = (
        _rows(view, kind, found, not few_frames_warning(calibration.views[view].count, RATE))
        for view, by_kind in scored.items()
        for kind, found in by_kind.items()
    )
    return csv_text([head, *chain.from_iterable(rows)])


def _rows(view: ViewName, kind: str, found: Scored, can_flag: bool) -> Iterator[list[Any]]:
    store, positions = found.part.store, found.part.positions
    measured = {name: np.where(found.visible, values, np.nan) for name, values in found.scores.items()}
    columns = [*(measured[name] for name in SCORES), *(found.baselines[name] for name in BASELINES)]
    hidden = store.hides_lesion(view)[positions]
    for row, (name, label) in enumerate(zip(found.part.names, store.labels[positions].tolist(), strict=True)):
        flagged, error = int(found.flagged[row]) if can_flag else "", LEFT_OUT if hidden[row] else ""
        if not found.visible[row]:
            flagged, error = "", why_unscored(found.scores["mse"][row])
        values = [number(column[row]) for column in columns]
        yield [view, name, store.classes[label], kind, number(found.p[row]), flagged, *values, error]


def number(value: float) -> str:
    """Return a number for a table; empty for NaN."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _raw_scores(
    part: FrameSubset, checkpoint: Checkpoint, references: References, measured: Mapping[str, Measured]
) -> RawScores:
    """Return the raw scores of a part; measure them unless `measured` has them."""
    known = next((one.scores for one in measured.values() if one.scores.covers(part)), None)
    return measure(part, checkpoint, references).scores if known is None else known.select(part)


def _scored(part: FrameSubset, view: ViewName, raw: RawScores, calibration: Calibration, distance: int) -> Scored:
    known, one = calibration.views[view], raw.views[view]
    found = scores(one.raw, known.log_spreads)
    clusters = part.store.clusters(part.positions, distance)
    return Scored(part, clusters, found, one.baselines, known.p_values(known.selected, found[known.selected]))


def _by_class(part: FrameSubset) -> dict[str, Flags]:
    labels = part.store.labels[part.positions]
    return {part.store.classes[label]: labels == label for label in np.unique(labels)}


def _separations(
    normal: Mapping[str, Values],
    abnormal: Mapping[str, Values],
    groups: Mapping[str, Flags],
    draws: Mapping[str, ClusterBootstrap],
) -> dict[str, dict[str, ScoreSeparation]]:
    """Return AUROC and average precision by score, then by group of normal frames, against all abnormal ones."""
    return {
        name: {group: auroc_with_ci(values[which], abnormal[name], draws[group]) for group, which in groups.items()}
        for name, values in normal.items()
    }


def _lead(
    normal: Scored, abnormal: Scored, selected: str, baselines: Mapping[str, ScoreSeparation], draw: ClusterBootstrap
) -> Lead:
    """Compare the selected score with the baseline of the largest AUROC on the same frames, which favours the baseline."""
    best = max(baselines, key=lambda name: baselines[name].auroc.value)
    one = normal.scores[selected], abnormal.scores[selected]
    return Lead(baseline=best, difference=auroc_lead(one, (normal.baselines[best], abnormal.baselines[best]), draw))


def _sizes(part: FrameSubset) -> list[Size]:
    return [(int(width), int(height)) for width, height in part.store.sizes[part.positions]]


def _cameras(part: FrameSubset, groups: Mapping[Size, Size]) -> list[str]:
    return camera_names(_sizes(part), [part.store.classes[label] for label in part.store.labels[part.positions]], groups)


def _flagged_by_group(normal: Scored, abnormal: Scored, groups: Mapping[str, Flags]) -> dict[str, float]:
    shares = {name: float(normal.flagged[which].mean()) for name, which in groups.items()}
    return shares | {"abnormal": float(abnormal.flagged.mean())}


def _flagged_by_camera(normal: Scored) -> dict[str, CameraResult]:
    found = np.array(_cameras(normal.part, group_sizes(_sizes(normal.part))))
    shares = {str(name): normal.flagged[found == name] for name in np.unique(found)}
    return {name: CameraResult(count=len(flagged), flagged=float(flagged.mean())) for name, flagged in shares.items()}


def _calibration_warnings(parts: AnomalySplits) -> tuple[str, ...]:
    """Return warnings on calibration frames that also selected, and on cameras that they lack."""
    known, healthy, abnormal = parts.calibration, parts.test["normal"], parts.test["abnormal"]
    groups = group_sizes([size for part in (known, healthy, abnormal) for size in _sizes(part)])
    same = Counter(_cameras(known, groups))
    ours, theirs = (Counter(size_title(groups[size]) for size in _sizes(part)) for part in (known, abnormal))
    found = [
        *camera_warnings(same, Counter(_cameras(healthy, groups)), "healthy test frames"),
        *camera_warnings(ours, theirs, "abnormal test frames"),
    ]
    if not parts.held_out:
        found.append(selecting_warning(len(known)))
    return tuple(found)


def _warnings(
    view: ViewName, selected: str, model: Mapping[str, ScoreSeparation], leads: Mapping[str, Lead]
) -> tuple[str, ...]:
    """Return a warning for each group of healthy frames in which a trivial baseline may be as good."""
    return tuple(
        f"Warning: on the view {view}, against {'all healthy frames' if group == 'all' else group}, {selected} (AUROC "
        f"{model[group].auroc.value:.3f}) is not clearly above the trivial baseline {lead.baseline}: by {lead.difference}. "
        "Do not credit the network with the separation."
        for group, lead in leads.items()
        if lead.difference.low <= 0
    )
