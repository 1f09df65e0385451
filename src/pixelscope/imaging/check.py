"""Checks images that a caller gives in memory."""

import numpy as np

from pixelscope.errors import InputError


def require_rgb(images: np.ndarray, size: int | None = None) -> None:
    """Raise InputError unless `images` are uint8 RGB (N, H, W, 3); with `size`, both H and W must equal it.

    Values of 0 to 1, or of 16 bits, have a result too, and nothing else would say that it is wrong.
    """
    wanted = ("H", "W") if size is None else (size, size)
    found = np.asarray(images)
    if found.ndim == 4 and found.shape[3] == 3 and found.dtype == np.uint8 and (size is None or found.shape[1:3] == wanted):
        return
    raise InputError(
        f"The images are {found.dtype} of shape {found.shape}; give uint8 RGB arrays (N, {wanted[0]}, {wanted[1]}, 3)."
    )
