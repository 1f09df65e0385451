"""Figures of a cross-validation: AUROC of every score, and heat maps of the selected detector."""

from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pixelscope.data.frames.store import FrameStore, evenly_spaced
from pixelscope.endovae.anomaly.heatmap import overlay
from pixelscope.endovae.anomaly.statistics import conformal_p
from pixelscope.endovae.detection.model import FittedDetector
from pixelscope.endovae.detection.results import DetectionResult, ScoreResult
from pixelscope.endovae.report.anomaly import HeatMaps, Point, heatmap_gallery, separation_panel
from pixelscope.files import atomic_file

SHOWN = 8
"""Frames per kind in the figure of heat maps."""
DPI = 144


def draw_detection(
    store: FrameStore, healthy: NDArray[np.int64], result: DetectionResult, fitted: FittedDetector, folder: Path
) -> list[Path]:
    """Write scores.png, and maps.png into a folder; return their paths.

    Args:
        store: the frames.
        healthy: positions of healthy frames that the detector was not fitted to; some are shown.
        result: what scores.png shows.
        fitted: what maps.png shows.
        folder: where the files are written.
    """
    figures = {"scores.png": _separation(result), "maps.png": _maps(store, healthy, fitted)}
    written = []
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI)
        written.append(folder / name)
    return written


def _separation(result: DetectionResult) -> Figure:
    trivial = {name: _points(one, result) for name, one in (result.baselines | result.shortcuts).items()}
    return separation_panel({name: _points(one, result) for name, one in result.scores.items()}, trivial, result.selected)


def _points(one: ScoreResult, result: DetectionResult) -> dict[str, Point]:
    return {group: (area.value, area.low, area.high) for group in result.groups for area in [one.auroc[group]]}


def _maps(store: FrameStore, healthy: NDArray[np.int64], fitted: FittedDetector) -> Figure:
    """Draw frames of both kinds above their heat maps."""
    view, groups = store.view(fitted.view), []
    for kind, members in (("normal", healthy), ("abnormal", np.flatnonzero(store.abnormal))):
        positions = evenly_spaced(members, SHOWN)
        frames = np.asarray(view.frames[positions])
        found = fitted(frames)
        side = frames.shape[1]
        maps = np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in found.maps])
        overlays = np.stack([overlay(frame, one, fitted.calibration.vmax) for frame, one in zip(frames, maps, strict=True)])
        p = conformal_p(fitted.calibration.scores, found.scores)
        groups.append(HeatMaps(kind, frames, overlays, np.asarray(view.lesions[positions]) > 0, p))
    return heatmap_gallery(groups)
