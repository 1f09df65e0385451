"""Frames as they are before any training, for the report: some of each class, and some with their altered copies."""

import numpy as np
import torch

from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.batches import AugmentedBatches, from_unit
from pixelscope.rng import generator
from pixelscope.runs.arrays import save_arrays
from pixelscope.runs.folder import RunFolder

A_CLASS = 6
"""Frames shown of each class."""
ALTERED = 5
"""Frames shown with their altered copies."""


def save_frame_samples(folder: RunFolder, store: FrameStore) -> None:
    """Store random frames of each class as samples/frames.npz."""
    shown = sample_positions(store)
    save_arrays(
        folder.samples / "frames.npz", frames=store.frames[shown], labels=store.labels[shown], classes=np.array(store.classes)
    )


def sample_positions(store: FrameStore) -> list[int]:
    """Return the positions of random frames of each class, the same ones every time."""
    shown: list[int] = []
    for label in range(len(store.classes)):
        positions = np.flatnonzero(store.labels == label)
        order = torch.randperm(len(positions), generator=generator("cpu", 0, "shown frames", label))
        shown += [int(positions[i]) for i in order[:A_CLASS]]
    return shown


def save_augmentation(folder: RunFolder, batches: AugmentedBatches) -> None:
    """Store some training frames, each with its altered copies, as samples/augmentation.npz."""
    versions = [batches.version(copy, ALTERED) for copy in range(1 + batches.config.copies)]
    images = torch.stack([from_unit(images) for images in versions], dim=1).permute(0, 1, 3, 4, 2)
    save_arrays(folder.samples / "augmentation.npz", versions=images.cpu().numpy())
