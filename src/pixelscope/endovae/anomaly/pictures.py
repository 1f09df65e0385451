"""The heat maps of some test frames, stored as arrays in samples/ and drawn in the report."""

from collections.abc import Mapping

import numpy as np
import torch

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.heat import overlay, smoothed
from pixelscope.endovae.anomaly.maps import map_batches
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.cohort import Part
from pixelscope.rng import generator
from pixelscope.runs.arrays import save_arrays

SHOWN = 8
"""Frames of each kind, drawn at random."""


def write_heat_maps(
    checkpoint: Checkpoint, parts: Mapping[str, Part], p: Mapping[str, np.ndarray], calibration: Calibration
) -> None:
    """Store heat maps of random test frames of each kind in samples/heat-KIND.npz of the run.

    p: the p-values of all frames by kind; frames that have none (NaN) are not shown.
    """
    seed = checkpoint.config.seed
    for kind, part in parts.items():
        scored = np.flatnonzero(~np.isnan(p[kind]))
        if not len(scored):
            continue
        shown = scored[torch.randperm(len(scored), generator=generator("cpu", seed, "heat maps"))[:SHOWN].numpy()]
        some = Part(part.store, part.positions[shown])
        frames = some.frames
        errors = smoothed(np.concatenate([maps.error for _, maps in map_batches(checkpoint, frames)])) * ~some.insets
        drawn = [overlay(frame, error, calibration.heat) for frame, error in zip(frames, errors, strict=True)]
        save_arrays(
            checkpoint.folder.samples / f"heat-{kind}.npz",
            frames=frames,
            overlays=np.stack(drawn),
            lesions=part.store.lesions[some.positions] > 0,
            p=p[kind][shown],
        )
