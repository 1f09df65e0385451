"""Makes the calibration of a run: selects a score per view, and stores the scores of healthy frames that selected nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.data.frames.preprocess import VIEWS, ViewName
from pixelscope.endovae.anomaly.calibration import Calibration, ViewCalibration, camera_counts, is_grey
from pixelscope.endovae.anomaly.heatmap import heatmap_vmax
from pixelscope.endovae.anomaly.measurement import Measured, RawScores
from pixelscope.endovae.anomaly.scores import COMBINED_SCORES, NEVER_SELECTED, Values, count_unscored, log_spread, scores
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.config import SplitConfig
from pixelscope.endovae.data import FrameSubset, Splits
from pixelscope.endovae.metrics import auroc
from pixelscope.errors import InputError

DEFAULT: dict[ViewName, str] = {"full": "mse_no_overlay+mahalanobis", "centre": "mse_no_overlay"}
"""The scores used without abnormal frames to select one on: docs/decisions/0005-anomaly-score.md."""
SELECTION_FRACTION = 0.25
"""Fraction of the abnormal frames used to select the score; they are not tested on."""
MAX_HEATMAPS = 1_000
"""Maximum number of calibration frames that determine the brightness of heat maps."""


@dataclass(frozen=True)
class AnomalySplits:
    """Frames to select a score on, to calibrate it, and to test it, without near-duplicates across the three."""

    selection: dict[str, FrameSubset]
    """`normal`, the validation frames, which also selected the checkpoint; `abnormal` if there are enough."""
    calibration: FrameSubset
    """Healthy frames that selected nothing; the healthy frames of `selection` if there are too few for both."""
    test: dict[str, FrameSubset]

    @property
    def held_out(self) -> bool:
        """Return whether the calibration frames selected neither checkpoint nor score."""
        return not np.isin(self.calibration.positions, self.selection["normal"].positions).any()


def split_for_anomaly(splits: Splits, split: SplitConfig) -> AnomalySplits | None:
    """Return the frames that select, calibrate and test; None for a run that was not trained on healthy frames.

    The abnormal frames that select are the abnormal validation frames, if the run was trained on abnormal frames, too.
    Otherwise they are a quarter of the abnormal test frames, in whole clusters of near-duplicates.
    """
    store, test = splits.train.store, dict(splits.test)
    abnormal = store.abnormal[splits.validation.positions]
    normal = FrameSubset(store, splits.validation.positions[~abnormal])
    if abnormal.all() or split.train_on == "abnormal":
        return None
    selection = {"normal": normal}
    calibration = splits.calibration if len(splits.calibration) else normal
    if abnormal.any():
        selection["abnormal"] = FrameSubset(store, splits.validation.positions[abnormal])
    elif "abnormal" in test:
        positions = test["abnormal"].positions
        groups = store.clusters(positions, split.duplicate_distance)
        if len(np.unique(groups)) > 1:
            tested, _, selecting = split_by_cluster(groups, store.labels[positions], (0.0, SELECTION_FRACTION), split.seed)
            test["abnormal"] = FrameSubset(store, np.sort(positions[tested]))
            selection["abnormal"] = FrameSubset(store, np.sort(positions[selecting]))
    return AnomalySplits(selection, calibration, test)


def calibrate(
    checkpoint: Checkpoint,
    latent: GaussianReference,
    parts: AnomalySplits,
    selection: Mapping[str, RawScores],
    healthy: Measured,
) -> Calibration:
    """Make the calibration of a checkpoint.

    Args:
        checkpoint: the checkpoint to calibrate.
        latent: Gaussian of the posterior means of the training frames.
        parts: the frames that select, calibrate and test.
        selection: raw scores of the frames that select, by kind.
        healthy: the calibration frames; their maps determine the brightness of heat maps.

    Raises:
        InputError: no healthy frame that selects has a score, or none that calibrates.
    """
    return Calibration(
        checkpoint=checkpoint.name,
        images=checkpoint.images,
        weights_sha256=checkpoint.sha256,
        held_out=parts.held_out,
        cameras=camera_counts(parts.calibration.store.sizes[parts.calibration.positions]),
        prepare=parts.calibration.store.settings,
        grey=sum(map(is_grey, parts.calibration.frames)),
        latent=latent,
        vmax=heatmap_vmax(healthy.maps.error, healthy.maps.insets),
        views={name: _calibrate_view(name, selection, healthy.scores) for name in VIEWS},
    )


def _calibrate_view(name: ViewName, selection: Mapping[str, RawScores], healthy: RawScores) -> ViewCalibration:
    """Select the score with the largest AUROC on `selection`, except for `NEVER_SELECTED`, and score the calibration frames.

    Frames without a score, and abnormal ones whose lesion the view does not show, are left out.
    """
    raw = {kind: _shown(one, name) for kind, one in selection.items()}
    raw = {kind: one for kind, one in raw.items() if kind == "normal" or len(one["mse"])}
    calibrating = _shown(healthy, name)
    for which, one, part in (("validation", raw["normal"], selection["normal"]), ("calibration", calibrating, healthy)):
        if not len(one["mse"]):
            raise InputError(
                f"None of the {len(part.part):,} healthy {which} frames has a score on the view {name} "
                f"({count_unscored(part.views[name].raw['mse'])}), so scores cannot be calibrated; prepare other frames, or "
                "raise --split.validation-fraction."
            )
    spreads = {score: log_spread(raw["normal"][score]) for some in COMBINED_SCORES.values() for score in some}
    found = {kind: scores(values, spreads) for kind, values in raw.items()}
    areas: dict[str, float] = {}
    if "abnormal" in found:
        areas = {score: auroc(values, found["abnormal"][score]) for score, values in found["normal"].items()}
    allowed = [score for score in areas if score not in NEVER_SELECTED[name]]
    return ViewCalibration(
        selected=max(allowed, key=areas.__getitem__) if areas else DEFAULT[name],
        selection_auroc=areas,
        selection_counts={kind: len(values["mse"]) for kind, values in raw.items()},
        log_spreads=spreads,
        scores={score: tuple(np.sort(values).tolist()) for score, values in scores(calibrating, spreads).items()},
    )


def _shown(one: RawScores, view: ViewName) -> Mapping[str, Values]:
    """Return the raw scores of the frames that have them, and whose lesion a view shows."""
    raw = one.views[view].raw
    shown = np.isfinite(raw["mse"]) & ~one.part.store.hides_lesion(view)[one.part.positions]
    return {name: some[shown] for name, some in raw.items()}
