"""Which frames a run trains on, which steer it, and which only measure it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.disk_array import Pixels, Rows, blocks
from pixelscope.data.frames.duplicates import clusters, split_by_cluster
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import INDEX, FrameStore, spread
from pixelscope.data.loader import Held
from pixelscope.data.sources.relocate import find
from pixelscope.endovae.config import AugmentationConfig, EndoVAEConfig
from pixelscope.engine.augment import Transforms, augment, augment_masks, draw_transforms
from pixelscope.errors import InputError
from pixelscope.progress import ProgressCallback
from pixelscope.rng import Moment, Order, generator
from pixelscope.runs.folder import RunFolder


@dataclass(frozen=True)
class FrameSubset:
    """Some frames of a store, by their positions in it."""

    store: FrameStore
    positions: np.ndarray
    """int64, ascending."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def frames(self) -> np.ndarray:
        """Return them as uint8 (N, S, S, 3), read from disk."""
        return self.store.frames[self.positions]

    def at_most(self, count: int) -> "FrameSubset":
        """Return up to `count` of them, evenly spaced."""
        return FrameSubset(self.store, spread(self.positions, count))

    @property
    def rows(self) -> Rows:
        """Return them as rows on disk, none of them read."""
        return Rows(self.store.path / "frames.npy", self.positions)

    @property
    def insets(self) -> np.ndarray:
        """Return where their insets are, bool (N, S, S)."""
        return self.store.insets[self.positions] > 0

    @property
    def ignore_mask(self) -> np.ndarray | None:
        """Return the insets where the store says that they are left out of loss and score, else None."""
        return self.insets if self.store.settings.insets == "mask" else None

    @property
    def ignore_mask_array(self) -> Rows | None:
        """Return the same as rows on disk, uint8 (N, S, S), over 0 inside an inset."""
        masked = self.store.settings.insets == "mask"
        return Rows(self.store.path / "insets.npy", self.positions) if masked else None

    @property
    def names(self) -> list[str]:
        """Return the frames' names, `class/file`."""
        return [self.store.names[i] for i in self.positions]

    def digest(self) -> str:
        """Return a SHA-256 over the pixels."""
        digest = hashlib.sha256()
        for block in blocks(self.rows):
            digest.update(block.data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """The parts of one store, without overlap and without near-duplicates across the first three."""

    train: FrameSubset
    validation: FrameSubset
    test: dict[str, FrameSubset]
    """What is measured in the end: `normal` and `abnormal`, as far as the store has them."""

    @property
    def store(self) -> FrameStore:
        """Return the store that they lie in."""
        return self.train.store

    @property
    def everything(self) -> FrameSubset:
        """Return all frames of the store."""
        return FrameSubset(self.store, np.arange(len(self.store)))

    def digests(self) -> dict[str, str]:
        """Return what decides whether a run may go on from a checkpoint."""
        return {"train": self.train.digest(), "validation": self.validation.digest()}

    def split_digests(self) -> dict[str, str]:
        """Return the SHA-256 of each part, by the keys of run.json."""
        test = hashlib.sha256("".join(part.digest() for _, part in sorted(self.test.items())).encode()).hexdigest()
        return {"sha256": self.train.digest(), "sha256_validation": self.validation.digest(), "sha256_test": test}

    def describe(self, config: EndoVAEConfig) -> dict[str, Any]:
        """Return what run.json says about the data."""
        test = sum(len(part) for part in self.test.values())
        return {
            "frames": {
                "spec": config.frames,
                "title": _title(self.store, config),
                "count": len(self.train) + len(self.validation) + test,
                "train": len(self.train),
                "validation": len(self.validation),
                "test": test,
                **self.split_digests(),
                "notes": list(self.store.notes),
            }
        }


def load_splits(config: EndoVAEConfig, progress: ProgressCallback | None = None) -> Splits:
    """Open the store that the configuration names, or prepare the folder, and divide it by near-duplicate cluster.

    progress: called with the frames done and all frames while a folder is prepared.
    Raises InputError where there are no frames of the kind to train on, or too few to divide.
    """
    if not config.frames:
        raise InputError("No frames are given; name a folder of frames, or a store made from one, with --frames.")
    path = Path(config.frames)
    is_store = (path / INDEX).is_file()
    return split_store(FrameStore.open(path) if is_store else prepare([path], config=config.prepare, progress=progress), config)


def load_run_splits(folder: RunFolder, config: EndoVAEConfig, record: Mapping[str, Any], frames: str | None = None) -> Splits:
    """Open the frames of a run again where they lie now, divided as it was trained with.

    record: content of run.json.
    frames: where they lie, if they have moved: the store, or the folder that it was prepared from.

    Raises:
        InputError: frames are missing, or are not those of the run by the SHA-256 in its run.json.
    """

    def at(places: dict[str, str]) -> Splits:
        return load_splits(config.model_copy(update=places))

    if frames is None:
        known = {"frames": config.frames}
        splits = at(find(known, record, folder.path, lambda places: {"frames": at(places).train.digest()}))
    else:
        splits = at({"frames": frames})
    recorded = record.get("data", {}).get("frames", {})
    names = {"sha256": "training", "sha256_validation": "validation", "sha256_test": "held-out"}
    changed = [names[key] for key, digest in splits.split_digests().items() if recorded.get(key, digest) != digest]
    if changed:
        raise InputError(
            f"The {changed[0]} frames in {splits.store.path} are not those of the run {folder.path} (their SHA-256 differs), "
            "so some may have been trained on; restore them, or train again."
        )
    return splits


def with_store_settings(config: EndoVAEConfig, splits: Splits) -> EndoVAEConfig:
    """Return the configuration with what the store decides: how its frames were prepared, and where it lies."""
    return config.model_copy(update={"prepare": splits.store.settings, "frames": str(splits.store.path)})


def split_store(store: FrameStore, config: EndoVAEConfig) -> Splits:
    """Divide a store as the configuration says; the same store and settings always give the same parts."""
    split = config.split
    kinds = np.array(store.kinds)[store.labels]
    trained = np.ones(len(kinds), bool) if split.train_on == "both" else kinds == split.train_on
    positions = trained.nonzero()[0]
    if not len(positions):
        there = " and ".join(sorted(set(store.kinds)))
        raise InputError(f"{store.path} has no {split.train_on} frames, only {there}; change --split.train-on.")
    groups = clusters(store.hashes[positions], split.duplicate_distance)
    fractions = (split.validation_fraction, split.test_fraction)
    train, validation, test = split_by_cluster(groups, store.labels[positions], fractions, split.seed)
    measured = np.concatenate([positions[test], (~trained).nonzero()[0]])
    test = {kind: FrameSubset(store, np.sort(measured[kinds[measured] == kind])) for kind in ("normal", "abnormal")}
    return Splits(
        FrameSubset(store, np.sort(positions[train])),
        FrameSubset(store, np.sort(positions[validation])),
        {kind: part for kind, part in test.items() if len(part)},
    )


def _title(store: FrameStore, config: EndoVAEConfig) -> str:
    size = store.frames.shape[1]
    learnt = "frames of both kinds" if config.split.train_on == "both" else f"{config.split.train_on} frames"
    return f"{', '.join(store.classes)}; {size} x {size}; trained on {learnt}"


@dataclass(frozen=True)
class FrameBatch:
    """One step's frames."""

    images: Tensor
    """(n, 3, S, S) in [0, 1]."""
    valid_mask: Tensor | None = None
    """(n, 1, S, S), 0 where a pixel is left out of loss and score; None where all count."""


class AugmentedBatches:
    """Shuffled batches of a set of frames and the altered copies of each (the report's step 3)."""

    def __init__(
        self, frames: Pixels, insets: Pixels | None, config: AugmentationConfig, seed: int, device: torch.device
    ) -> None:
        """Hold the frames as `Held` does.

        frames: uint8 (N, S, S, 3); insets: (N, S, S), over 0 where a pixel is left out of loss and score.
        """
        self.config, self.seed, self.device = config, seed, device
        self.frames = Held(frames, device)
        self.insets = None if insets is None else Held(insets, device)
        self.epoch = len(frames) * (1 + config.copies)
        self._order = Order(self.epoch, seed, "frames")
        self._fixed = draw_transforms(self.epoch, config, generator("cpu", seed, "augmentation"))

    def __call__(self, moment: Moment) -> FrameBatch:
        """Return this rank's part of the batch at `moment`."""
        whole = self._order.take(moment.images, moment.batch_size)
        mine = moment.part(torch.arange(len(whole)))
        return self._batch(whole[mine], self._transforms(whole, moment)[mine])

    def version(self, copy: int, count: int) -> Tensor:
        """Return the first `count` frames, or a `copy` of them, as training sees them: (n, 3, S, S) in [0, 1]."""
        items = torch.arange(min(count, len(self.frames))) + copy * len(self.frames)
        return self._batch(items, self._fixed[items]).images

    def _batch(self, items: Tensor, transforms: Transforms) -> FrameBatch:
        """Return the frames of `items`: first come all originals, then all first copies, and so on."""
        transforms = transforms.to(self.device)
        frames, altered = items % len(self.frames), items >= len(self.frames)
        images = to_unit(self.frames[frames].permute(0, 3, 1, 2))
        images[altered] = augment(images[altered], transforms[altered])
        return FrameBatch(images, self._counted(frames, altered, transforms))

    def _transforms(self, items: Tensor, moment: Moment) -> Transforms:
        if not self.config.fresh:
            return self._fixed[items]
        return draw_transforms(len(items), self.config, moment.draw_together("augmentation"))

    def _counted(self, frames: Tensor, altered: Tensor, transforms: Transforms) -> Tensor | None:
        if self.insets is None:
            return None
        inside = (self.insets[frames].unsqueeze(1) > 0).float()
        inside[altered] = augment_masks(inside[altered], transforms[altered])
        return 1 - (inside > 0).float()


def as_channels_first(frames: np.ndarray | Tensor) -> Tensor:
    """Return uint8 frames (N, S, S, 3), in memory or on disk, as a tensor (N, 3, S, S), channels last in memory."""
    given = frames if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames))
    return given.permute(0, 3, 1, 2)


def to_unit(images: Tensor) -> Tensor:
    """Turn uint8 images into float32 of the same shape and layout in [0, 1]."""
    return images.float().mul_(1 / 255)


def from_unit(images: Tensor) -> Tensor:
    """Turn float images in [0, 1] into uint8 of the same shape."""
    return images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
