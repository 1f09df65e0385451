"""How well maps of single pixels mark the lesions that masks outline."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.baselines import pca_errors
from pixelscope.endovae.anomaly.heatmap import smoothed
from pixelscope.endovae.anomaly.maps import error_map_batches
from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.metrics import auroc, best_dice
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.endovae.results import Localization, MapResult

MOST = 2_000
"""Frames whose pixels are compared at most, at equal distances over all."""
Map = NDArray[np.float32]


def padded(dissimilarity: Map, side: int) -> Map:
    """Return maps (N, S - 10, S - 10) as (N, S, S): at the rim, where no window fits, the nearest value."""
    margin = (side - dissimilarity.shape[-1]) // 2
    return np.pad(dissimilarity, ((0, 0), (margin, margin), (margin, margin)), mode="edge")


def localize(part: FrameSubset, checkpoint: Checkpoint, components: PrincipalComponents) -> Localization | None:
    """Compare maps with the lesion masks of a part's frames; None where no pixel is in a lesion, or none is outside."""
    masked = part.positions[part.store.has_lesion[part.positions]]
    if not len(masked):
        return None
    some = FrameSubset(part.store, masked).at_most(MOST)
    inside, valid_mask = some.store.lesions[some.positions] > 0, ~some.insets
    truth = inside[valid_mask]
    if truth.all() or not truth.any():
        return None
    side = inside.shape[1]
    frames = some.frames
    errors, dissimilarity = _maps(checkpoint, frames)
    drawn: dict[str, Callable[[], Map]] = {
        "error, smoothed": lambda: smoothed(errors),
        "1 - SSIM": lambda: padded(dissimilarity, side),
        "PCA error, smoothed": lambda: smoothed(pca_errors(frames, components)),
        "nearness to the centre": lambda: np.broadcast_to(_nearness(side), inside.shape),
    }
    found = {name: _compare(draw()[valid_mask], truth) for name, draw in drawn.items()}
    return Localization(frames=len(masked), lesion_share=float(truth.mean()), maps=found)


def _maps(checkpoint: Checkpoint, frames: NDArray[np.uint8]) -> tuple[Map, Map]:
    kept: list[ErrorMaps] = [maps for _, maps in error_map_batches(checkpoint, frames)]
    return np.concatenate([maps.error for maps in kept]), np.concatenate([maps.dissimilarity for maps in kept])


def _compare(values: NDArray[np.float32], truth: NDArray[np.bool_]) -> MapResult:
    return MapResult(auroc=auroc(values[~truth], values[truth]), dice=best_dice(values, truth))


def _nearness(side: int) -> Map:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return -(axis[:, None] ** 2 + axis[None, :] ** 2)
