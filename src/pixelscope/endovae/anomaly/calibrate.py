"""How a run's calibration is made: from held-out healthy frames, and abnormal ones set apart for the choice of a score."""

from dataclasses import dataclass

import numpy as np

from pixelscope.data.frames.duplicates import clusters, split_by_cluster
from pixelscope.endovae.anomaly.calibration import Calibration, GaussianReference
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax
from pixelscope.endovae.anomaly.maps import error_map_batches
from pixelscope.endovae.anomaly.scores import COMBINED_SCORES, COMPARED, Values, log_spread, raw_scores, scores
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.config import SplitConfig
from pixelscope.endovae.data import FrameSubset, Splits
from pixelscope.endovae.metrics import auroc
from pixelscope.errors import InputError

DEFAULT = "picture+latent"
"""The score used where no abnormal frames are there to choose one by: docs/decisions/0005-anomaly-score.md."""
SET_APART = 0.25
"""Share of the abnormal frames that the score is chosen by; they are then no part of the test."""
DRAWN = 1_000
"""Calibration frames that the brightness of heat maps is set by at most."""
DESCRIBED = 20_000
"""Training frames that the latent space is described by at most."""


@dataclass(frozen=True)
class AnomalySplits:
    """What a score is chosen by and what it is tested on, without near-duplicates in both."""

    choosing: dict[str, FrameSubset]
    """`normal`, the validation frames; and `abnormal` where there are enough of them to set some apart."""
    test: dict[str, FrameSubset]


def split_for_anomaly(splits: Splits, split: SplitConfig) -> AnomalySplits | None:
    """Return the frames that calibrate, choose and test; None where no healthy frames were trained on.

    Abnormal frames that were trained on have validation frames of their own; else some of the held-out ones are set apart,
    whole clusters of near-duplicates.
    """
    abnormal = splits.store.abnormal[splits.validation.positions]
    normal = _part(splits, splits.validation.positions[~abnormal])
    if not len(normal) or split.train_on == "abnormal":
        return None
    test = dict(splits.test)
    if abnormal.any():
        return AnomalySplits({"normal": normal, "abnormal": _part(splits, splits.validation.positions[abnormal])}, test)
    if "abnormal" not in test:
        return AnomalySplits({"normal": normal}, test)
    positions = test["abnormal"].positions
    groups = clusters(splits.store.hashes[positions], split.duplicate_distance)
    if len(np.unique(groups)) < 2:
        return AnomalySplits({"normal": normal}, test)
    kept, _, apart = split_by_cluster(groups, splits.store.labels[positions], (0.0, SET_APART), split.seed)
    test["abnormal"] = _part(splits, positions[kept])
    return AnomalySplits({"normal": normal, "abnormal": _part(splits, positions[apart])}, test)


def fit_latent_reference(checkpoint: Checkpoint, train: FrameSubset) -> GaussianReference:
    """Return where the posterior means of the training frames lie, told from at most `DESCRIBED` of them."""
    some = error_map_batches(checkpoint, train.at_most(DESCRIBED).frames)
    return GaussianReference.fit(np.concatenate([maps.mean for _, maps in some]))


def compute_raw_scores(checkpoint: Checkpoint, part: FrameSubset, latent: GaussianReference) -> dict[str, Values]:
    """Return the measures of a part's frames, float64 (N,) each; NaN for a frame in which no tissue is seen."""
    frames, insets = part.frames, part.insets
    batches = [raw_scores(maps, frames[rows], insets[rows], latent) for rows, maps in error_map_batches(checkpoint, frames)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def calibrate(checkpoint: Checkpoint, train: FrameSubset, choosing: dict[str, FrameSubset]) -> Calibration:
    """Make the calibration of a checkpoint.

    Of the scores that see no inset, that of the greatest AUROC on `choosing` is chosen. Frames without tissue are left out;
    raises InputError where no healthy frame is left.
    """
    latent = fit_latent_reference(checkpoint, train)
    measured = _with_tissue({kind: compute_raw_scores(checkpoint, part, latent) for kind, part in choosing.items()})
    spreads = {name: log_spread(measured["normal"][name]) for parts in COMBINED_SCORES.values() for name in parts}
    found = {kind: scores(values, spreads) for kind, values in measured.items()}
    choice: dict[str, float] = {}
    if "abnormal" in found:
        choice = {name: auroc(values, found["abnormal"][name]) for name, values in found["normal"].items()}
    return Calibration(
        rule=checkpoint.rule,
        images=checkpoint.images,
        weights=checkpoint.sha256,
        count=len(measured["normal"]["whole"]),
        chosen=max((name for name in choice if name not in COMPARED), key=choice.__getitem__) if choice else DEFAULT,
        choice=choice,
        choice_counts={kind: len(values["whole"]) for kind, values in measured.items()},
        latent=latent,
        spread=spreads,
        heat=_hottest(checkpoint, choosing["normal"]),
        scores={name: tuple(np.sort(values).tolist()) for name, values in found["normal"].items()},
    )


def _with_tissue(measured: dict[str, dict[str, Values]]) -> dict[str, dict[str, Values]]:
    """Return the measures of the frames in which tissue is seen, by kind; a kind without any is left out."""
    found = {}
    for kind, values in measured.items():
        seen = np.isfinite(values["whole"])
        if seen.any():
            found[kind] = {name: some[seen] for name, some in values.items()}
    if "normal" not in found:
        raise InputError(
            f"No tissue is seen in any of the {len(measured['normal']['whole']):,} healthy validation frames, so that scores "
            "cannot be calibrated; prepare other frames, or raise --split.validation-fraction."
        )
    return found


def _hottest(checkpoint: Checkpoint, normal: FrameSubset) -> float:
    some = normal.at_most(DRAWN)
    return heatmap_vmax(np.concatenate([maps.error for _, maps in error_map_batches(checkpoint, some.frames)]), some.insets)


def _part(splits: Splits, positions: np.ndarray) -> FrameSubset:
    return FrameSubset(splits.store, np.sort(positions))
