"""Measures how well maps localize the lesions that masks outline, next to maps that know nothing of disease."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from pixelscope.endovae.anomaly.heatmap import smoothed
from pixelscope.endovae.anomaly.measurement import FrameMaps
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.metrics import auroc, best_dice
from pixelscope.endovae.results import Localization, MapResult, RegionMapResult
from pixelscope.imaging.insets import LUMA

MAX_FRAMES = 2_000
"""Maximum number of frames whose pixels are compared, evenly spaced."""
CENTRE = "nearness to the centre"
"""Name of the baseline map that is highest in the centre of the frame."""
SIDE = 56
"""Side in pixels to which maps of detectors and lesion masks are resized before they are compared."""
MAX_FALSE_POSITIVES = 0.3
"""False-positive rate up to which the overlap with regions is integrated (Bergmann et al., CVPR 2019, section 5.2)."""
THRESHOLDS = 200
"""Number of false-positive rates at which the overlap is measured."""

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


def outlined(part: FrameSubset) -> FrameSubset:
    """Return the frames whose mask shows a lesion in the full view: at most `MAX_FRAMES`, evenly spaced."""
    store = part.store
    shown = store.has_lesion & ~store.hides_lesion("full")
    return FrameSubset(store, part.positions[shown[part.positions]]).at_most(MAX_FRAMES)


def localize(part: FrameSubset, maps: FrameMaps) -> Localization | None:
    """Compare error maps with the lesion masks of frames.

    Args:
        part: the frames.
        maps: error maps of the frames `outlined(part)`.

    Returns:
        None unless there are pixels both inside and outside lesions.
    """
    store, positions = part.store, maps.positions
    lesions, valid = store.lesions[positions] > 0, ~maps.insets
    truth = lesions[valid]
    if truth.all() or not truth.any():
        return None
    side = lesions.shape[1]
    found = {
        "error, smoothed": smoothed(maps.error),
        "1 - SSIM": padded(maps.dissimilarity, side),
        "PCA error, smoothed": smoothed(maps.pca_error),
        CENTRE: np.broadcast_to(nearness_to_centre(side), lesions.shape),
    }
    return Localization(
        frames=len(positions),
        lesion_share=float(truth.mean()),
        maps={name: measure_pixels(one[valid], truth) for name, one in found.items()},
    )


def measure_pixels(scores: Map, lesions: Mask) -> MapResult:
    """Compare the values of pixels (N,) with lesions, bool (N,); there are pixels inside and outside lesions."""
    return MapResult(auroc=auroc(scores[~lesions], scores[lesions]), dice=best_dice(scores, lesions))


def measure_maps(maps: Map, lesions: Mask) -> RegionMapResult:
    """Compare maps (N, S, S) with lesions, bool of the same shape; there are pixels inside and outside lesions."""
    pixels = measure_pixels(maps.reshape(-1), lesions.reshape(-1))
    return RegionMapResult(
        auroc=pixels.auroc,
        dice=pixels.dice,
        aupro=region_overlap(maps, lesions),
        hottest=hottest_inside(maps, lesions),
    )


def hottest_inside(maps: Map, lesions: Mask) -> float:
    """Return the fraction of frames with a lesion whose highest value lies on it; equal ones count by their fraction."""
    flat, inside = maps.reshape(len(maps), -1), lesions.reshape(len(lesions), -1)
    highest = flat == flat.max(1, keepdims=True)
    shares = (highest & inside).sum(1) / highest.sum(1)
    return float(shares[inside.any(1)].mean())


def region_overlap(maps: Map, lesions: Mask) -> float:
    """Return AUPRO: the area under the curve of per-region overlap against the false-positive rate, up to 0.3, divided by 0.3.

    A region is a connected lesion of one frame. Regions of all sizes weigh the same. The curve is straight between the points
    of two thresholds, so that equal values of a saturated or constant map count as in the AUROC.
    """
    outside = np.sort(maps[~lesions])[::-1]
    rates = np.linspace(0, MAX_FALSE_POSITIVES, THRESHOLDS)
    thresholds = outside[np.minimum((rates * len(outside)).astype(np.int64), len(outside) - 1)]
    # False-positive rates of the curve's points on both sides: above a threshold, and at it or above.
    before, after = (np.searchsorted(-outside, -thresholds, side) / len(outside) for side in ("left", "right"))
    share = ((rates - before) / (after - before)).clip(0, 1)
    overlaps = []
    for one, lesion in zip(maps, lesions, strict=True):
        count, regions = cv2.connectedComponents(lesion.astype(np.uint8))
        for number in range(1, count):
            inside = np.sort(one[regions == number])
            above, reached = (1 - np.searchsorted(inside, thresholds, side) / len(inside) for side in ("right", "left"))
            overlaps.append(above + share * (reached - above))
    return float(trapezoid(np.mean(overlaps, 0), rates) / MAX_FALSE_POSITIVES)


def resized_maps(maps: Map) -> Map:
    """Return maps (N, h, w), resized to (N, SIDE, SIDE)."""
    return np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for one in maps.astype(np.float32)])


def resized_lesions(lesions: NDArray[np.uint8]) -> Mask:
    """Return masks uint8 (N, S, S) as bool (N, SIDE, SIDE): True where lesions cover more than half of a pixel."""
    small = [cv2.resize((one > 0).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in lesions]
    return np.stack(small) > 0.5


def baseline_maps(frames: NDArray[np.uint8]) -> dict[str, Map]:
    """Return maps (N, SIDE, SIDE) that know nothing of disease, for frames uint8 (N, S, S, 3)."""
    shape = (len(frames), SIDE, SIDE)
    return {
        CENTRE: np.broadcast_to(nearness_to_centre(SIDE), shape).copy(),
        "brightness": resized_maps((frames @ np.array(LUMA)).astype(np.float32)),
        "constant": np.zeros(shape, np.float32),
    }


def nearness_to_centre(side: int) -> Map:
    """Return a map (side, side) that falls with the squared distance from the centre."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    return -(axis[:, None] ** 2 + axis[None, :] ** 2)


def padded(dissimilarity: Map, side: int) -> Map:
    """Return maps (N, S - 10, S - 10) as (N, S, S): where no window fits, pixels have the nearest value."""
    inner = dissimilarity.shape[-1]
    nearest = np.clip(np.arange(side) - (side - inner) // 2, 0, inner - 1)
    return dissimilarity[:, nearest][:, :, nearest]
