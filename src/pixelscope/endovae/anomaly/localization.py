"""How well pixel maps localize the lesions that masks outline."""

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.heatmap import smoothed
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.measurement import FrameMaps
from pixelscope.endovae.metrics import auroc, best_dice
from pixelscope.endovae.results import Localization, MapResult

MAX_FRAMES = 2_000
"""Maximum number of frames whose pixels are compared, evenly spaced."""
Map = NDArray[np.float32]


def outlined(part: FrameSubset) -> FrameSubset:
    """Return the frames whose pixels are compared: those that came with a mask, at most `MAX_FRAMES`, evenly spaced."""
    return FrameSubset(part.store, part.positions[part.store.has_lesion[part.positions]]).at_most(MAX_FRAMES)


def localize(part: FrameSubset, maps: FrameMaps) -> Localization | None:
    """Compare maps with the lesion masks of frames.

    Args:
        part: the frames.
        maps: of the frames `outlined(part)`.

    Returns:
        None unless there are pixels both inside and outside lesions.
    """
    store, positions = part.store, maps.positions
    inside, valid = store.lesions[positions] > 0, ~maps.insets
    truth = inside[valid]
    if truth.all() or not truth.any():
        return None

    def compared(values: Map) -> MapResult:
        scores = values[valid]
        return MapResult(auroc=auroc(scores[~truth], scores[truth]), dice=best_dice(scores, truth))

    side = inside.shape[1]
    found = {
        "error, smoothed": compared(smoothed(maps.error)),
        "1 - SSIM": compared(padded(maps.dissimilarity, side)),
        "PCA error, smoothed": compared(smoothed(maps.pca_error)),
        "nearness to the centre": compared(np.broadcast_to(_nearness(side), inside.shape)),
    }
    count = int(store.has_lesion[part.positions].sum())
    return Localization(frames=count, lesion_share=float(truth.mean()), maps=found)


def padded(dissimilarity: Map, side: int) -> Map:
    """Return maps (N, S - 10, S - 10) as (N, S, S), padded with the nearest value where no window fits."""
    inner = dissimilarity.shape[-1]
    nearest = np.clip(np.arange(side) - (side - inner) // 2, 0, inner - 1)
    return dissimilarity[:, nearest][:, :, nearest]


def _nearness(side: int) -> Map:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return -(axis[:, None] ** 2 + axis[None, :] ** 2)
