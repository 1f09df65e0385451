"""Cross-validation of detectors: every frame is tested once, by detectors that were not fitted to it or a near-duplicate.

Folds hold whole clusters of near-duplicates. In each fold, detectors are fitted to the training frames. One is selected on
frames that are not tested, and a threshold is set on healthy frames that select nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.data.frames.preprocess import View
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.baselines import baseline_scores, cross_validated, mean_colours, shortcut_features
from pixelscope.endovae.anomaly.calibration import RATE
from pixelscope.endovae.anomaly.localization import baseline_maps, measure_maps, resized_lesions, resized_maps
from pixelscope.endovae.anomaly.scores import shows_tissue
from pixelscope.endovae.anomaly.statistics import GaussianReference, conformal_p, few_clusters_warning, few_frames_warning
from pixelscope.endovae.detection.config import LITE0, DetectConfig, DetectorName, chosen_detectors
from pixelscope.endovae.detection.detectors import FITS, Detection, features_to_fit
from pixelscope.endovae.detection.features import FrameFeatures, PretrainedExtractor, learned_extractor, pretrained_extractor
from pixelscope.endovae.detection.results import ALL, SELECTED, DetectionResult, ScoreResult
from pixelscope.endovae.metrics import ClusterBootstrap, auroc, auroc_lead, auroc_with_ci
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.endovae.results import RegionMapResult
from pixelscope.errors import InputError, plural
from pixelscope.imaging.resize import resize_frames
from pixelscope.rng import derive
from pixelscope.runs.progress import ProgressCallback

Positions = NDArray[np.int64]

UNUSED = -1
"""Cluster and part of frames that are left out."""
MIN_CALIBRATION = 2
"""Minimum number of calibration frames of a fold: scores are divided by the standard deviation of theirs."""


@dataclass(frozen=True)
class Fold:
    """Frames of one fold, by position in the store, int64, ascending; no cluster is in two of them."""

    train: Positions
    """Healthy frames that detectors are fitted to."""
    selection: Positions
    """Healthy and abnormal frames that select a detector."""
    calibration: Positions
    """Healthy frames that set the threshold and select nothing."""
    test: Positions
    """Healthy and abnormal frames."""


def make_folds(store: FrameStore, used: NDArray[np.bool_], count: int, distance: int, seed: int) -> list[Fold]:
    """Divide the frames of a store.

    Near-duplicates are clustered once, over both kinds. In each fold one part is tested. Of the next one, half of the healthy
    frames without abnormal near-duplicates calibrate; all other frames select. The healthy frames of all other parts are
    trained on.

    Args:
        store: has healthy and abnormal frames.
        used: bool (N,), the frames to divide.
        count: number of folds, at least 3.
        distance: maximum Hamming distance of near-duplicates.
        seed: of all random choices.

    Raises:
        InputError: there is one kind of frames only, or there are too few clusters.
    """
    positions = np.flatnonzero(used)
    groups = np.full(len(store), UNUSED)
    groups[positions] = store.clusters(positions, distance)
    parts = np.full(len(store), UNUSED)
    parts[positions] = _parts(store, groups, count, seed)[groups[positions]]
    return [_fold(store, groups, parts, k, (k + 1) % count, seed) for k in range(count)]


def halves(positions: Positions, groups: Positions, seed: int, fraction: float = 0.5) -> tuple[Positions, Positions]:
    """Return `fraction` of the healthy frames `positions`, in whole clusters, and the others; `groups` are their clusters.

    Raises:
        InputError: there are fewer than two clusters.
    """
    found, groups = np.unique(groups, return_inverse=True)
    if len(found) < 2:
        raise InputError(
            f"{plural(len(positions), 'healthy frame')} in {plural(len(found), 'cluster')} of near-duplicates cannot be "
            "divided; give more frames, or lower --folds."
        )
    rest, _, first = split_by_cluster(groups, np.zeros(len(groups), np.int64), (0.0, fraction), seed)
    return np.sort(positions[first]), np.sort(positions[rest])


def _fold(store: FrameStore, groups: Positions, parts: Positions, tested: int, following: int, seed: int) -> Fold:
    """Return the fold in which the part `tested` is tested, and the part `following` selects and calibrates.

    groups, parts: int64 (N,), cluster and part of each frame of the store, `UNUSED` for frames that are left out.
    """
    healthy, here = (parts != UNUSED) & ~store.abnormal, parts == following
    among_abnormal = np.isin(groups, groups[(parts != UNUSED) & store.abnormal])
    alone = np.flatnonzero(healthy & here & ~among_abnormal)
    calibration, selection = halves(alone, groups[alone], seed)
    if len(calibration) < MIN_CALIBRATION:
        raise InputError(
            f"A fold has {plural(len(calibration), 'healthy frame')} to calibrate scores, and needs {MIN_CALIBRATION}; give "
            "more frames, or lower --folds."
        )
    return Fold(
        train=np.flatnonzero(healthy & ~here & (parts != tested)),
        selection=np.sort(np.concatenate([selection, np.flatnonzero(here & among_abnormal)])),
        calibration=calibration,
        test=np.flatnonzero(parts == tested),
    )


def _parts(store: FrameStore, groups: Positions, count: int, seed: int) -> Positions:
    """Return the part of each cluster, int64 (clusters,).

    The clusters of each class are dealt, the largest first, to the part that has the fewest frames of the class. Clusters
    with abnormal frames come first, and a cluster of both kinds counts for its abnormal class.
    """
    part_of = np.full(groups.max(initial=-1) + 1, UNUSED)
    filled = np.zeros((len(store.classes), count), np.int64)
    for kind in ("abnormal", "healthy"):
        members = _members(store, groups, kind, count)
        of_kind = np.array([(name == "abnormal") == (kind == "abnormal") for name in store.kinds])
        rng = np.random.default_rng(derive(seed, "folds", kind))
        # Clusters that were dealt as abnormal fill their parts first.
        order = {cluster: (part_of[cluster] == UNUSED, -len(some), rng.random()) for cluster, some in members.items()}
        for cluster in sorted(members, key=order.__getitem__):
            label = int(np.bincount(store.labels[members[cluster]]).argmax())
            if part_of[cluster] == UNUSED:
                part_of[cluster] = np.lexsort((filled[of_kind].sum(0), filled[label]))[0]
            filled[label, part_of[cluster]] += len(members[cluster])
        if not filled[of_kind].sum(0).all():
            raise InputError(
                f"{count} folds cannot all have {kind} frames, because too many are near-duplicates of the other kind; give "
                "more, or lower --folds."
            )
    return part_of


def _members(store: FrameStore, groups: Positions, kind: str, count: int) -> dict[int, Positions]:
    """Return the frames of one kind by cluster, which are at least `count` clusters."""
    positions = np.flatnonzero((groups != UNUSED) & (store.abnormal == (kind == "abnormal")))
    if not len(positions):
        raise InputError(f"{store.path} has no {kind} frames; give a folder or store that has classes of both kinds.")
    members = {int(group): positions[groups[positions] == group] for group in np.unique(groups[positions])}
    if len(members) < count:
        raise InputError(
            f"{count} folds need at least {count} groups of {kind} frames that are not near-duplicates of each other, and "
            f"there are {len(members)}; give more, or lower --folds."
        )
    return members


MAX_FRAMES = 4_000
"""Maximum number of frames that are measured, evenly spaced: a frame's features take 400 KB."""
BASELINE_SIDE = 96
"""Side in pixels at which trivial baselines are computed."""
COMPONENTS = 6
BATCH = 64
"""Frames in which tissue is looked for at a time."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def with_tissue(view: View, positions: Positions) -> Positions:
    """Return the frames in which a view shows tissue; `score` gives no other frame a score."""
    parts = [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    visible = [shows_tissue(np.asarray(view.frames[rows]), np.asarray(view.insets[rows]) > 0) for rows in parts]
    return positions[np.concatenate([np.empty(0, bool), *visible])]


@dataclass(frozen=True)
class Frames:
    """The frames of a store that are measured, in one view."""

    store: FrameStore
    positions: Positions
    """In the store, ascending."""
    pixels: NDArray[np.uint8]
    """(N, S, S, 3)."""
    insets: Mask
    lesions: NDArray[np.uint8]
    groups: Positions
    """Cluster of near-duplicates of each frame, (N,)."""
    clipped: int
    """Abnormal frames left out because their lesion covers too little of the view."""
    blank: int
    """Frames left out because the view shows no tissue."""

    @classmethod
    def read(cls, store: FrameStore, config: DetectConfig) -> "Frames":
        """Read the frames, at most `MAX_FRAMES`, that show tissue in the view, and their lesion if they have a mask.

        Raises:
            InputError: insets cover the whole view of a frame, or the view shows the lesion of no abnormal frame.
        """
        view = store.view(config.view)
        covered = [name for name, inset in zip(store.names, view.insets, strict=True) if inset.all()]
        if covered:
            raise InputError(
                f"Insets cover the whole view {config.view} of {covered[0]}; remove the frame, or use another --view."
            )
        clipped = store.hides_lesion(config.view, config.min_lesion)
        if clipped.any() and not (store.abnormal & ~clipped).any():
            raise InputError(
                f"The view {config.view} shows a lesion of {config.min_lesion:.1%} of its area or more in none of "
                f"{plural(int(clipped.sum()), 'abnormal frame')}; lower --min-lesion, or use another --view."
            )
        chosen = evenly_spaced(np.flatnonzero(~clipped), MAX_FRAMES)
        positions = with_tissue(view, chosen)
        pixels, insets, lesions = (np.asarray(array[positions]) for array in (view.frames, view.insets, view.lesions))
        groups = store.clusters(positions, config.duplicate_distance)
        blank = len(chosen) - len(positions)
        return cls(store, positions, pixels, insets > 0, lesions, groups, int(clipped.sum()), blank)

    @property
    def abnormal(self) -> Mask:
        """Return the abnormal frames, bool (N,)."""
        return self.store.abnormal[self.positions]

    @property
    def classes(self) -> NDArray[np.str_]:
        """Return the class of each healthy frame, and `abnormal`, (N,)."""
        names = [name if kind == "normal" else kind for name, kind in zip(self.store.classes, self.store.kinds, strict=True)]
        return np.array(names)[self.store.labels[self.positions]]

    @property
    def outlined(self) -> Mask:
        """Return the abnormal frames with pixels both inside and outside a lesion, bool (N,)."""
        shares = resized_lesions(self.lesions).mean((1, 2))
        return self.abnormal & self.store.has_lesion[self.positions] & (shares > 0) & (shares < 1)

    def rows(self, positions: Positions) -> Positions:
        """Return the rows of frames of the store, all of them measured."""
        return np.searchsorted(self.positions, positions)


@dataclass(frozen=True)
class FoldResult:
    """Results of one fold on its test frames."""

    rows: Positions
    """The test frames."""
    scores: dict[str, Floats]
    """By detector, standardized by the calibration frames."""
    baselines: dict[str, Floats]
    """By trivial baseline, likewise."""
    maps: dict[str, RegionMapResult]
    """By detector and baseline map; empty if no tested frame has a lesion and pixels outside it."""
    selection: dict[str, float]
    """AUROC by detector on the frames that select."""
    p: Floats
    """p-values by the selected detector."""
    calibrated_on: int
    """Number of calibration frames."""

    @property
    def selected(self) -> str:
        """Return the detector with the largest AUROC on the frames that select."""
        return max(self.selection, key=self.selection.__getitem__)


def cross_validate(store: FrameStore, config: DetectConfig, progress: ProgressCallback | None = None) -> DetectionResult:
    """Measure detectors on a store.

    Args:
        store: healthy and abnormal frames.
        config: view, detectors, folds and seed.
        progress: called with the folds done and all folds.

    Raises:
        InputError: one kind of frames is missing, or there are too few.
    """
    names = chosen_detectors(config.detectors)
    frames = Frames.read(store, config)
    used = np.zeros(len(store), bool)
    used[frames.positions] = True
    folds = make_folds(store, used, config.folds, config.duplicate_distance, config.seed)
    lite0: list[DetectorName] = [name for name in names if name in LITE0]
    mirrored = config.mirrored and any(FITS[name].uses_pooled for name in lite0)
    extractor = pretrained_extractor(mirrored=mirrored) if lite0 else None
    pretrained = None if extractor is None else Pretrained(extractor, extractor.features(frames.pixels))
    results = []
    for number, fold in enumerate(folds):
        found = _detections(frames, frames.rows(fold.train), names, pretrained, config, number)
        results.append(_measure_fold(frames, fold, found))
        if progress is not None:
            progress(number + 1, len(folds))
    return _summarised(config, frames, results)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network, and its features of all frames, which are the same in every fold."""

    extractor: PretrainedExtractor
    features: FrameFeatures


def _detections(
    frames: Frames,
    train: Positions,
    names: Sequence[DetectorName],
    pretrained: Pretrained | None,
    config: DetectConfig,
    number: int,
) -> Iterator[tuple[str, Detection]]:
    """Fit each detector to `train`, and yield its scores and maps of all frames."""
    pixels, seed = frames.pixels[train], derive(config.seed, "fold", number)
    lite0: list[DetectorName] = [name for name in names if name in LITE0]
    learned: list[DetectorName] = [name for name in names if name not in LITE0]
    if pretrained is not None:
        extractor, features = pretrained.extractor, pretrained.features
        if any(FITS[name].uses_lesion_maps for name in lite0):
            features = extractor.trained_on(pixels, config.images, config.seed, number).with_lesion_maps(features)
        known = features_to_fit(lite0, extractor, features[train], pixels, seed)
        yield from _fitted(lite0, known, features, config.seed)
    if learned:
        extractor = learned_extractor(pixels, config.images, config.seed, number)
        features = extractor.features(frames.pixels)
        known = features_to_fit(learned, extractor, features[train], pixels, seed)
        yield from _fitted(learned, known, features, config.seed)


def _fitted(
    names: Sequence[DetectorName], known: FrameFeatures, features: FrameFeatures, seed: int
) -> Iterator[tuple[str, Detection]]:
    for name in names:
        yield name, FITS[name].fit(known, seed).detect(features)


def _measure_fold(frames: Frames, fold: Fold, detections: Iterator[tuple[str, Detection]]) -> FoldResult:
    test, calibration, selection = (frames.rows(some) for some in (fold.test, fold.calibration, fold.selection))
    outlined = test[frames.outlined[test]]
    lesions = resized_lesions(frames.lesions[outlined]) if len(outlined) else None
    scores, maps = {}, {}
    for name, found in detections:
        scores[name] = _standardized(found.scores, calibration)
        if lesions is not None:
            maps[name] = measure_maps(resized_maps(found.maps[outlined]), lesions)
    if lesions is not None:
        maps |= {name: measure_maps(one, lesions) for name, one in baseline_maps(frames.pixels[outlined]).items()}
    abnormal = frames.abnormal[selection]
    areas = {name: auroc(one[selection][~abnormal], one[selection][abnormal]) for name, one in scores.items()}
    selected = scores[max(areas, key=areas.__getitem__)]
    baselines = _baselines(frames, frames.rows(fold.train))
    return FoldResult(
        test,
        {name: one[test] for name, one in scores.items()},
        {name: _standardized(one, calibration)[test] for name, one in baselines.items()},
        maps,
        areas,
        conformal_p(np.sort(selected[calibration]), selected[test]),
        len(calibration),
    )


def _standardized(scores: Floats, calibration: Positions) -> Floats:
    """Return scores (N,) in standard deviations of the calibration frames, so that folds can be compared."""
    known = scores[calibration]
    return (scores - known.mean()) / max(float(known.std()), 1e-12)


def _baselines(frames: Frames, train: Positions) -> dict[str, Floats]:
    """Return the trivial baselines of all frames, fitted to `train`, (N,) by name."""
    small = resize_frames(frames.pixels, BASELINE_SIDE)
    insets = resize_frames(frames.insets.astype(np.uint8) * 255, BASELINE_SIDE) > 0
    images = torch.from_numpy(small).permute(0, 3, 1, 2).float().div_(255)
    components = PrincipalComponents.fit(images[torch.from_numpy(train)], COMPONENTS)
    errors = (images - components.reconstruct(images)).square().mean(1).numpy()
    colours = mean_colours(small[train], insets[train])
    reference = GaussianReference.fit(colours[np.isfinite(colours).all(1)])
    return baseline_scores(small, insets, reference, errors)


def _summarised(config: DetectConfig, frames: Frames, results: Sequence[FoldResult]) -> DetectionResult:
    classes, outlined = frames.classes, frames.outlined
    scores = {name: _gathered(frames, results, [one.scores[name] for one in results]) for name in results[0].scores}
    scores[SELECTED] = _gathered(frames, results, [one.scores[one.selected] for one in results])
    trivial = {name: _gathered(frames, results, [one.baselines[name] for one in results]) for name in results[0].baselines}
    groups = {ALL: ~frames.abnormal} | {name: classes == name for name in dict.fromkeys(classes[~frames.abnormal].tolist())}
    selection = {name: float(np.mean([one.selection[name] for one in results])) for name in results[0].selection}
    few = few_frames_warning(min(one.calibrated_on for one in results), RATE, " in a fold")
    return DetectionResult(
        store=str(frames.store.path),
        view=config.view,
        folds=config.folds,
        seed=config.seed,
        images=config.images,
        counts={name: int(rows.sum()) for name, rows in (groups | {"abnormal": frames.abnormal}).items()},
        clusters={
            kind: len(np.unique(frames.groups[frames.abnormal == (kind == "abnormal")])) for kind in ("normal", "abnormal")
        },
        invisible=frames.clipped,
        min_lesion=config.min_lesion,
        blank=frames.blank,
        scores={name: _separation(frames, one, groups, trivial) for name, one in scores.items()},
        baselines={name: _separation(frames, one, groups) for name, one in trivial.items()},
        shortcuts=_shortcuts(config, frames, groups),
        selected=max(selection, key=selection.__getitem__),
        selected_by_fold=tuple(one.selected for one in results),
        selection_auroc=selection,
        rate=RATE,
        flagged={} if few else _flagged(frames, results),
        warnings=(*few, *few_clusters_warning(_clusters(frames, groups)), *_left_out(frames)),
        lesion_frames=int(outlined.sum()),
        lesion_share=float(resized_lesions(frames.lesions[outlined]).mean()) if outlined.any() else 0.0,
        maps=_maps(results),
    )


def _clusters(frames: Frames, groups: Mapping[str, Mask]) -> dict[str, int]:
    """Return the number of clusters of each class of healthy frames, and of the abnormal ones."""
    rows = {name: some for name, some in groups.items() if name != ALL} | {"abnormal": frames.abnormal}
    return {name: len(np.unique(frames.groups[some])) for name, some in rows.items()}


def _left_out(frames: Frames) -> tuple[str, ...]:
    """Return a warning if the store has more frames than are measured."""
    count = len(frames.store) - frames.clipped - frames.blank
    if len(frames.positions) == count:
        return ()
    return (f"Warning: {len(frames.positions):,} of {count:,} frames were measured, evenly spaced over the store.",)


def _gathered(frames: Frames, results: Sequence[FoldResult], by_fold: Sequence[Floats]) -> Floats:
    """Return the scores of all frames, (N,), each from the fold that tests it."""
    found = np.full(len(frames.positions), np.nan)
    for one, values in zip(results, by_fold, strict=True):
        found[one.rows] = values
    return found


def _separation(
    frames: Frames, scores: Floats, groups: Mapping[str, Mask], trivial: Mapping[str, Floats] | None = None
) -> ScoreResult:
    """Return how scores (N,) separate abnormal frames from each group, and their lead over the best of `trivial`, if given."""
    areas, leads = {}, {}
    for group, normal in groups.items():
        bootstrap = ClusterBootstrap.of(frames.groups[normal], frames.groups[frames.abnormal])

        def kinds(values: Floats, rows: Mask = normal) -> tuple[Floats, Floats]:
            return values[rows], values[frames.abnormal]

        areas[group] = auroc_with_ci(*kinds(scores), bootstrap).auroc
        if trivial is not None:
            best = max(trivial.values(), key=lambda values: auroc(*kinds(values)))
            leads[group] = auroc_lead(kinds(scores), kinds(best), bootstrap)
    return ScoreResult(auroc=areas, lead=leads)


def _shortcuts(config: DetectConfig, frames: Frames, groups: Mapping[str, Mask]) -> dict[str, ScoreResult]:
    """Return how well classifiers that see no tissue, or the mean colour alone, separate abnormal from healthy frames."""
    features, colours = shortcut_features(frames.store, config.view, frames.positions)
    found = {}
    for name, values in (("no tissue", features), ("mean colour alone", colours)):
        scores = cross_validated(values, frames.abnormal, frames.groups)
        if scores is not None:
            found[name] = _separation(frames, scores, groups)
    return found


def _flagged(frames: Frames, results: Sequence[FoldResult]) -> dict[str, float]:
    """Return the fraction of frames with p <= RATE per healthy class, and of the abnormal ones."""
    flagged = _gathered(frames, results, [one.p for one in results]) <= RATE
    classes = frames.classes
    return {name: float(flagged[classes == name].mean()) for name in dict.fromkeys(classes.tolist())}


def _maps(results: Sequence[FoldResult]) -> dict[str, RegionMapResult]:
    """Return how well maps localize lesions, mean over folds: those of detectors, and the baseline maps."""
    known = [one.maps for one in results if one.maps]
    return {name: _mean_map([maps[name] for maps in known]) for name in (known[0] if known else ())}


def _mean_map(found: Sequence[RegionMapResult]) -> RegionMapResult:
    return RegionMapResult(
        **{key: float(np.mean([getattr(one, key) for one in found])) for key in RegionMapResult.model_fields}
    )
