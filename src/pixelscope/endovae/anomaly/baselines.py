"""Trivial baseline scores, which a model must beat, and which reveal shortcuts in a data set."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.endovae.anomaly.scores import Values, masked_mean
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.imaging.tissue import BLACK, LUMA

BASELINES = {
    "mean colour": "Mahalanobis distance of the mean colour outside insets from those of the training frames",
    "black fraction": "fraction of black pixels outside insets",
    "JPEG size": "size in bytes of the view as JPEG of quality 85, insets included",
    "PCA error": "squared error outside insets of principal components, as many as the latent vector has dimensions",
    "PCA error, whole": "the same, insets included",
}
"""Definition of every baseline; each is of the pixels that a view shows."""
QUALITY = 85


def mean_colours(frames: NDArray[np.uint8], insets: NDArray[np.bool_]) -> Values:
    """Return the mean colour outside insets, (N, 3); NaN for a frame without a pixel outside."""
    return np.stack([masked_mean(frames[..., channel].astype(np.float32), ~insets) for channel in range(3)], axis=1)


def baseline_scores(
    frames: NDArray[np.uint8],
    insets: NDArray[np.bool_],
    colours: GaussianReference,
    errors: NDArray[np.float32],
    valid_mask: NDArray[np.bool_] | None = None,
) -> dict[str, Values]:
    """Return every baseline score of frames in one view.

    Args:
        frames: what the view shows, uint8 (N, S, S, 3).
        insets: bool (N, S, S).
        colours: of the mean colours of the training frames in this view.
        errors: (N, T, T), squared error of the principal components of the training frames, inside the view.
        valid_mask: bool (N, T, T), where these are outside insets; by default `~insets`.

    Returns:
        float64 (N,) by name; NaN for a frame without a pixel outside insets.
    """
    return {
        "mean colour": colours.distance(mean_colours(frames, insets)),
        "black fraction": masked_mean(black_pixels(frames).astype(np.float32), ~insets),
        "JPEG size": np.array([jpeg_bytes(frame) for frame in frames], np.float64),
        "PCA error": masked_mean(errors, ~insets if valid_mask is None else valid_mask),
        "PCA error, whole": errors.mean((1, 2), dtype=np.float64),
    }


def black_pixels(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of frames (N, S, S, 3) are black, (N, S, S)."""
    return frames @ np.array(LUMA) < BLACK * 255


def jpeg_bytes(frame: NDArray[np.uint8]) -> int:
    """Return the size in bytes of a frame, uint8 (S, S, 3), as JPEG of quality 85."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
    return file.tell()
