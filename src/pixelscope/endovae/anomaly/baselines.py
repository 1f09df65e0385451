"""Trivial anomaly scores: what a model must beat to be worth its name, and what gives a data set's shortcuts away."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.endovae.anomaly.calibration import GaussianReference
from pixelscope.endovae.anomaly.scores import Values, masked_mean
from pixelscope.endovae.data import as_channels_first, to_unit
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.imaging.tissue import BLACK, LUMA

BASELINES = {
    "mean colour": "Mahalanobis distance of the frame's mean colour outside insets from those of the training frames",
    "black fraction": "share of black pixels outside insets",
    "JPEG size": "bytes of the prepared frame as JPEG of quality 85, insets included",
    "PCA error": "squared error outside insets of as many principal components as the latent vector has dimensions",
    "PCA error, whole": "the same over the whole frame",
}
QUALITY = 85


def mean_colours(frames: NDArray[np.uint8], insets: NDArray[np.bool_]) -> Values:
    """Return the mean colour outside insets, (N, 3); NaN for a frame that is all inset."""
    return np.stack([masked_mean(frames[..., channel].astype(np.float32), ~insets) for channel in range(3)], axis=1)


def baseline_scores(
    frames: NDArray[np.uint8], insets: NDArray[np.bool_], colours: GaussianReference, components: PrincipalComponents
) -> dict[str, Values]:
    """Return every trivial score of uint8 frames (N, S, S, 3), float64 (N,) each; NaN where there is nothing to measure.

    colours: of the training frames' mean colours.
    """
    errors = pca_errors(frames, components)
    black = (frames @ np.array(LUMA) < BLACK * 255).astype(np.float32)
    return {
        "mean colour": colours.distance(mean_colours(frames, insets)),
        "black fraction": masked_mean(black, ~insets),
        "JPEG size": np.array([_jpeg_bytes(frame) for frame in frames], np.float64),
        "PCA error": masked_mean(errors, ~insets),
        "PCA error, whole": errors.mean((1, 2), dtype=np.float64),
    }


def pca_errors(frames: NDArray[np.uint8], components: PrincipalComponents) -> NDArray[np.float32]:
    """Return the squared error of the components at each pixel, (N, S, S)."""
    images = to_unit(as_channels_first(frames)).contiguous()
    return (images - components.reconstruct(images)).square().mean(1).numpy()


def _jpeg_bytes(frame: NDArray[np.uint8]) -> int:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
    return file.tell()
