"""How well pixel maps localize the lesions that masks outline."""

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.baselines import pca_errors
from pixelscope.endovae.anomaly.heatmap import smoothed
from pixelscope.endovae.anomaly.maps import error_map_batches
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.metrics import auroc, best_dice
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.endovae.results import Localization, MapResult

MAX_FRAMES = 2_000
"""Maximum number of frames whose pixels are compared, evenly spaced."""
Map = NDArray[np.float32]


def localize(part: FrameSubset, checkpoint: Checkpoint, components: PrincipalComponents) -> Localization | None:
    """Compare maps with the lesion masks of frames; None unless there are pixels both inside and outside lesions."""
    masked = part.positions[part.store.has_lesion[part.positions]]
    if not len(masked):
        return None
    some = FrameSubset(part.store, masked).at_most(MAX_FRAMES)
    inside, valid = some.store.lesions[some.positions] > 0, ~some.insets
    truth = inside[valid]
    if truth.all() or not truth.any():
        return None

    def compared(values: Map) -> MapResult:
        scores = values[valid]
        return MapResult(auroc=auroc(scores[~truth], scores[truth]), dice=best_dice(scores, truth))

    frames, side = some.frames, inside.shape[1]
    maps = [maps for _, maps in error_map_batches(checkpoint, frames)]
    found = {
        "error, smoothed": compared(smoothed(np.concatenate([one.error for one in maps]))),
        "1 - SSIM": compared(padded(np.concatenate([one.dissimilarity for one in maps]), side)),
        "PCA error, smoothed": compared(smoothed(pca_errors(frames, components))),
        "nearness to the centre": compared(np.broadcast_to(_nearness(side), inside.shape)),
    }
    return Localization(frames=len(masked), lesion_share=float(truth.mean()), maps=found)


def padded(dissimilarity: Map, side: int) -> Map:
    """Return maps (N, S - 10, S - 10) as (N, S, S), padded with the nearest value where no window fits."""
    inner = dissimilarity.shape[-1]
    nearest = np.clip(np.arange(side) - (side - inner) // 2, 0, inner - 1)
    return dissimilarity[:, nearest][:, :, nearest]


def _nearness(side: int) -> Map:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return -(axis[:, None] ** 2 + axis[None, :] ** 2)
