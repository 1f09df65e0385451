"""Heat maps: smoothed reconstruction errors over a frame; nothing here needs torch."""

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SMOOTHING = 1 / 48
"""Standard deviation of the Gaussian blur as a fraction of the frame's side: 2 pixels at 96."""
VMAX_QUANTILE = 0.99
"""Quantile of the calibration frames' pixels at which a heat map is brightest."""
MAX_ALPHA = 0.75
"""Opacity of a heat map where it is brightest."""


def smoothed(errors: Map) -> Map:
    """Return error maps (N, S, S) blurred by a few pixels, because single pixels are noise."""
    kernel = _gaussian(SMOOTHING * errors.shape[-1])
    blurred = [cv2.sepFilter2D(one.astype(np.float64), -1, kernel, kernel, borderType=cv2.BORDER_REFLECT) for one in errors]
    return np.asarray(blurred, np.float32).reshape(errors.shape)


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """Return the weights of a Gaussian blur, cut off at four standard deviations."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def heatmap_vmax(errors: Map, insets: NDArray[np.bool_]) -> float:
    """Return the error at which heat maps are brightest, given error maps (N, S, S) of healthy frames; never 0."""
    values = smoothed(errors)[~insets]
    return max(float(np.quantile(values, VMAX_QUANTILE)), 1e-6) if len(values) else 1.0


def overlay(frame: Bytes, errors: Map, vmax: float) -> Bytes:
    """Lay a smoothed error map over a frame, black to yellow, more opaque for larger errors.

    Args:
        frame: uint8 (H, W, 3).
        errors: (H, W), resized to the frame.
        vmax: error of maximum brightness.

    Returns:
        uint8 (H, W, 3).
    """
    heat = np.clip(errors / vmax, 0, 1)
    coloured = cv2.cvtColor(cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    alpha = (MAX_ALPHA * heat)[..., None]
    return (frame * (1 - alpha) + coloured * alpha).round().astype(np.uint8)
