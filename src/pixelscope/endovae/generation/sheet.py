"""A sheet of real and generated frames, and of the generated frames that are nearest to training frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.endovae.generation.measures import Nearest
from pixelscope.endovae.report.plotting import rows_gallery

SHOWN = 10
"""Frames per row."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """Some generated frames of a run, uint8 (K, S, S, 3) each."""

    title: str
    first: Bytes
    """The first ones that were drawn."""
    closest: Bytes
    """Those nearest to a training frame, the nearest first."""
    training: Bytes
    """The training frames that these are nearest to."""

    @classmethod
    def of(cls, title: str, frames: Bytes, training: Bytes, near: Nearest) -> Self:
        """Take some of the frames (N, S, S, 3), whose nearest frames in `training` are `near`."""
        order = np.argsort(near.distance, kind="stable")[:SHOWN]
        return cls(title, frames[:SHOWN].copy(), frames[order], training[near.position[order]])


def draw_sheet(held_out: Bytes, samples: Sequence[Sample]) -> Figure:
    """Draw held-out frames, and per run generated ones, those nearest to training frames, and these training frames."""
    rows = [("real, held out", held_out[evenly_spaced(np.arange(len(held_out)), SHOWN)])]
    for one in samples:
        rows += [(one.title, one.first), ("nearest to training", one.closest), ("these training frames", one.training)]
    return rows_gallery(rows)
