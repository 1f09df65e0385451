"""Distance in a latent space."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mahalanobis(points: ArrayLike, mean: ArrayLike, precision: ArrayLike) -> NDArray[np.float64]:
    """Return sqrt((x - mean)^T precision (x - mean)) of each of `points` (N, D); precision: (D, D), an inverse covariance."""
    centred = np.asarray(points, np.float64) - np.asarray(mean, np.float64)
    return np.sqrt(np.einsum("ni,ij,nj->n", centred, np.asarray(precision, np.float64), centred).clip(0))
