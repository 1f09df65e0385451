"""Maps of where a reconstruction differs, laid over the frame; nothing here needs torch."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Map = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SMOOTHING = 1 / 48
"""Standard deviation of the Gaussian that smooths a map, as a share of the frame's side: 2 pixels at 96."""
VMAX_QUANTILE = 0.99
"""Share of the calibration frames' pixels that lie under the value at which a map is at its brightest."""
MAX_ALPHA = 0.75
"""How much of the frame a map hides where it is at its brightest."""


def smoothed(errors: Map) -> Map:
    """Return error maps (N, S, S) smoothed over a few pixels: single pixels are noise."""
    sigma = SMOOTHING * errors.shape[-1]
    return np.asarray(ndimage.gaussian_filter(errors, (0, sigma, sigma)), np.float32)


def heatmap_vmax(errors: Map, insets: NDArray[np.bool_]) -> float:
    """Return the value at which maps are drawn brightest, from error maps (N, S, S) of healthy frames; never 0."""
    values = smoothed(errors)[~insets]
    return max(float(np.quantile(values, VMAX_QUANTILE)), 1e-6) if len(values) else 1.0


def overlay(frame: Bytes, errors: Map, brightest: float) -> Bytes:
    """Lay a smoothed error map over a frame, black to yellow, the more opaque the larger the error; uint8 (H, W, 3).

    frame: uint8, shape (H, W, 3); errors: shape (H, W), for example brought from the model's size to the frame's.
    """
    heat = np.clip(errors / brightest, 0, 1)
    coloured = cv2.cvtColor(cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = (MAX_ALPHA * heat)[..., None]
    return (frame * (1 - opacity) + coloured * opacity).round().astype(np.uint8)
