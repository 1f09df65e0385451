"""Makes the calibration of a run: selects a score and stores how healthy validation frames score."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax
from pixelscope.endovae.anomaly.scores import COMBINED_SCORES, NEVER_SELECTED, Values, log_spread, scores
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.config import SplitConfig
from pixelscope.endovae.data import FrameSubset, Splits
from pixelscope.endovae.measurement import FrameMaps
from pixelscope.endovae.metrics import auroc
from pixelscope.errors import InputError

DEFAULT = "mse_no_overlay+mahalanobis"
"""The score used without abnormal frames to select one on: docs/decisions/0005-anomaly-score.md."""
SELECTION_FRACTION = 0.25
"""Fraction of the abnormal frames used to select the score; they are not tested on."""
MAX_HEATMAPS = 1_000
"""Maximum number of calibration frames that determine the brightness of heat maps."""


@dataclass(frozen=True)
class AnomalySplits:
    """Frames to select and calibrate a score on, and frames to test it on, without near-duplicates across the two."""

    selection: dict[str, FrameSubset]
    """`normal`, the validation frames, which also calibrate; `abnormal` if there are enough."""
    test: dict[str, FrameSubset]


def split_for_anomaly(splits: Splits, split: SplitConfig) -> AnomalySplits | None:
    """Return the frames that select, calibrate and test; None for a run that was not trained on healthy frames.

    A run that was trained on abnormal frames has abnormal validation frames. Otherwise whole clusters of near-duplicates of
    the abnormal test frames are used.
    """
    store, test = splits.train.store, dict(splits.test)
    abnormal = store.abnormal[splits.validation.positions]
    normal = FrameSubset(store, splits.validation.positions[~abnormal])
    if abnormal.all() or split.train_on == "abnormal":
        return None
    if abnormal.any():
        return AnomalySplits({"normal": normal, "abnormal": FrameSubset(store, splits.validation.positions[abnormal])}, test)
    if "abnormal" not in test:
        return AnomalySplits({"normal": normal}, test)
    positions = test["abnormal"].positions
    groups = store.clusters(positions, split.duplicate_distance)
    if len(np.unique(groups)) < 2:
        return AnomalySplits({"normal": normal}, test)
    tested, _, selecting = split_by_cluster(groups, store.labels[positions], (0.0, SELECTION_FRACTION), split.seed)
    test["abnormal"] = FrameSubset(store, np.sort(positions[tested]))
    return AnomalySplits({"normal": normal, "abnormal": FrameSubset(store, np.sort(positions[selecting]))}, test)


def calibrate(
    checkpoint: Checkpoint, latent: GaussianReference, selection: Mapping[str, Mapping[str, Values]], maps: FrameMaps
) -> Calibration:
    """Make the calibration of a checkpoint.

    Selects the score with the largest AUROC on `selection`, except for `NEVER_SELECTED`. Frames without visible tissue are
    left out.

    Args:
        checkpoint: what is calibrated.
        latent: of the posterior means of the training frames.
        selection: raw scores of the frames that select, by kind; `normal` calibrates.
        maps: of healthy frames; they determine the brightness of heat maps.

    Raises:
        InputError: no healthy frame is left.
    """
    raw = _with_tissue(selection)
    spreads = {name: log_spread(raw["normal"][name]) for parts in COMBINED_SCORES.values() for name in parts}
    found = {kind: scores(values, spreads) for kind, values in raw.items()}
    areas: dict[str, float] = {}
    if "abnormal" in found:
        areas = {name: auroc(values, found["abnormal"][name]) for name, values in found["normal"].items()}
    return Calibration(
        checkpoint=checkpoint.name,
        images=checkpoint.images,
        weights_sha256=checkpoint.sha256,
        count=len(raw["normal"]["mse"]),
        selected=max((name for name in areas if name not in NEVER_SELECTED), key=areas.__getitem__) if areas else DEFAULT,
        selection_auroc=areas,
        selection_counts={kind: len(values["mse"]) for kind, values in raw.items()},
        latent=latent,
        log_spreads=spreads,
        vmax=heatmap_vmax(maps.error, maps.insets),
        scores={name: tuple(np.sort(values).tolist()) for name, values in found["normal"].items()},
    )


def _with_tissue(raw: Mapping[str, Mapping[str, Values]]) -> dict[str, dict[str, Values]]:
    """Return the raw scores of the frames with visible tissue; a kind without any is left out."""
    found = {}
    for kind, values in raw.items():
        visible = np.isfinite(values["mse"])
        if visible.any():
            found[kind] = {name: some[visible] for name, some in values.items()}
    if "normal" not in found:
        raise InputError(
            f"No tissue is visible in any of the {len(raw['normal']['mse']):,} healthy validation frames, so scores cannot be "
            "calibrated; prepare other frames, or raise --split.validation-fraction."
        )
    return found
