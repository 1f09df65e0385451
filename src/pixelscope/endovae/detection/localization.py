"""How well the maps of detectors localize lesions inside frames that have one."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from pixelscope.endovae.detection.results import MapResult
from pixelscope.endovae.metrics import auroc, best_dice
from pixelscope.imaging.tissue import LUMA

SIDE = 56
"""Side in pixels at which maps and lesions are compared."""
MAX_FALSE_POSITIVES = 0.3
"""False-positive rate up to which the overlap with regions is integrated (Bergmann et al., CVPR 2019, section 5.2)."""
THRESHOLDS = 200

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def compared(maps: Floats) -> Floats:
    """Return maps (N, h, w) at the side at which they are compared, (N, SIDE, SIDE)."""
    return np.stack([cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for one in maps.astype(np.float32)])


def compared_lesions(lesions: NDArray[np.uint8]) -> Mask:
    """Return masks uint8 (N, S, S) at that side, bool: pixels of which lesions cover more than half."""
    small = [cv2.resize((one > 0).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for one in lesions]
    return np.stack(small) > 0.5


def measure_maps(maps: Floats, lesions: Mask) -> MapResult:
    """Compare maps (N, SIDE, SIDE) with lesions, bool of the same shape; there are pixels inside and outside lesions."""
    scores, truth = maps[lesions], maps[~lesions]
    return MapResult(
        auroc=auroc(truth, scores),
        aupro=region_overlap(maps, lesions),
        dice=best_dice(maps.reshape(-1), lesions.reshape(-1)),
        hottest=hottest_inside(maps, lesions),
    )


def hottest_inside(maps: Floats, lesions: Mask) -> float:
    """Return the fraction of frames with a lesion whose hottest pixel lies on it."""
    flat, inside = maps.reshape(len(maps), -1), lesions.reshape(len(lesions), -1)
    some = inside.any(1)
    return float(inside[some, flat[some].argmax(1)].mean())


def region_overlap(maps: Floats, lesions: Mask) -> float:
    """Return the area under the curve of per-region overlap against the false-positive rate, up to 0.3, divided by 0.3.

    A region is a connected lesion of one frame; all count alike, whatever their size.
    """
    outside = np.sort(maps[~lesions])[::-1]
    rates = np.linspace(0, MAX_FALSE_POSITIVES, THRESHOLDS)
    thresholds = outside[np.minimum((rates * len(outside)).astype(np.int64), len(outside) - 1)]
    overlaps = []
    for one, lesion in zip(maps, lesions, strict=True):
        count, regions = cv2.connectedComponents(lesion.astype(np.uint8))
        for number in range(1, count):
            inside = np.sort(one[regions == number])
            overlaps.append(1 - np.searchsorted(inside, thresholds, side="right") / len(inside))
    return float(trapezoid(np.mean(overlaps, 0), rates) / MAX_FALSE_POSITIVES)


def trivial_maps(frames: NDArray[np.uint8]) -> dict[str, Floats]:
    """Return maps (N, SIDE, SIDE) that know nothing of disease, for frames uint8 (N, S, S, 3)."""
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    blob = -(axis[:, None] ** 2 + axis[None, :] ** 2)
    return {
        "blob in the middle": np.broadcast_to(blob, (len(frames), SIDE, SIDE)).copy(),
        "brightness": compared((frames @ np.array(LUMA)).astype(np.float32)),
        "everything": np.zeros((len(frames), SIDE, SIDE), np.float32),
    }
