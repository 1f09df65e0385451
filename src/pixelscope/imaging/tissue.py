"""Mask of tissue in prepared frames: without border, insets and specular reflections."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.imaging.content_area import channels

Flags = NDArray[np.bool_]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""
BLACK, BRIGHT = 0.10, 0.75
"""Maximum brightness of a black pixel; minimum channel value of a glint."""
FLAT = 8
"""Maximum difference of values within a channel in what has a single colour, but for noise."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
"""A pixel and its four neighbours."""


def tissue_mask(frames: NDArray[np.uint8], insets: Flags) -> Flags:
    """Return where frames show tissue, including dark lumen; bool (N, S, S).

    Excluded are insets, black that touches the frame's edge, glints, and one pixel around the last two, because resizing blurs
    them. If the rest has a single colour, but for noise, it is not tissue either: a covered lens, or an empty image.

    Args:
        frames: uint8 (N, S, S, 3).
        insets: bool (N, S, S), True inside.
    """
    return np.stack([_tissue(frame, inset) for frame, inset in zip(frames, insets, strict=True)])


def touching_edge(black: Flags) -> Flags:
    """Return the connected parts of `black`, bool (H, W), that touch the frame's edge."""
    labels = np.asarray(cv2.connectedComponents(black.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1])
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(edge[edge > 0]))


def _tissue(frame: NDArray[np.uint8], inset: Flags) -> Flags:
    border = touching_edge(frame @ np.array(LUMA) < BLACK * 255)
    red, green, blue = channels(frame)
    glints = np.asarray(cv2.min(cv2.min(red, green), blue)) > BRIGHT * 255
    around = cv2.dilate((border | glints).astype(np.uint8), _CROSS) > 0
    left = ~(inset | around)
    colours = frame[left]
    return left & bool(len(colours) and (colours.max(0) - colours.min(0) > FLAT).any())
