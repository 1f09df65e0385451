"""Frames of a run: their split into training, validation and test, and augmented training batches."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.disk_array import DiskArray, Pixels, evenly_spaced, rows_sha256
from pixelscope.data.frames.duplicates import split_by_cluster
from pixelscope.data.frames.prepare import open_or_prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.data.loader import DeviceImages, StepBatches, under, with_prefix
from pixelscope.data.sources.relocate import find
from pixelscope.endovae.config import AugmentationConfig, EndoVAEConfig, SplitConfig
from pixelscope.engine.augment import Transforms, augment, augment_masks, draw_transforms
from pixelscope.errors import InputError
from pixelscope.imaging.convert import range_text
from pixelscope.rng import ShuffledOrder, StepContext, generator
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.progress import ProgressCallback


@dataclass(frozen=True)
class FrameSubset:
    """Some frames of a store."""

    store: FrameStore
    positions: np.ndarray
    """Indices into the store, int64, ascending."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def frames(self) -> np.ndarray:
        """Return the frames, uint8 (N, S, S, 3), read from disk."""
        return self.store.frames[self.positions]

    def at_most(self, count: int) -> "FrameSubset":
        """Return up to `count` of the frames, evenly spaced."""
        return FrameSubset(self.store, evenly_spaced(self.positions, count))

    @property
    def rows(self) -> DiskArray:
        """Return the frames as an array on disk, without reading them."""
        return DiskArray(self.store.path / "frames.npy", self.positions)

    @property
    def insets(self) -> np.ndarray:
        """Return the masks of the insets, bool (N, S, S)."""
        return self.store.insets[self.positions] > 0

    @property
    def ignore_mask(self) -> DiskArray | None:
        """Return the pixels ignored by loss and metrics as an array on disk, uint8 (N, S, S), nonzero inside an inset; None if
        the store ignores none."""
        masked = self.store.settings.insets == "mask"
        return DiskArray(self.store.path / "insets.npy", self.positions) if masked else None

    @property
    def names(self) -> list[str]:
        """Return the names of the frames, `class/file`."""
        return [self.store.names[i] for i in self.positions]

    def digest(self) -> str:
        """Return a SHA-256 of the pixels."""
        return rows_sha256(self.store.path / "frames.npy", self.positions)


CALIBRATION_SHARE = 0.5
"""Fraction of the healthy validation frames set aside to calibrate anomaly scores."""


@dataclass(frozen=True)
class Splits:
    """Disjoint subsets of one store; near-duplicates of one kind are always in the same subset."""

    train: FrameSubset
    validation: FrameSubset
    """Drives the schedule, and selects the checkpoint and the anomaly score."""
    calibration: FrameSubset
    """Healthy frames that calibrate anomaly scores and choose nothing; empty if the validation part has only one cluster."""
    test: dict[str, FrameSubset]
    """By kind, `normal` and `abnormal`, if the store has it; all frames of a kind that is not trained on."""

    @property
    def store(self) -> FrameStore:
        """Return the store of all subsets."""
        return self.train.store

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the data that a resumed run needs unchanged."""
        return {"train": self.train.digest(), "validation": self.validation.digest()}

    def split_digests(self) -> dict[str, str]:
        """Return the SHA-256 per subset, by the keys of run.json."""
        test = hashlib.sha256("".join(part.digest() for _, part in sorted(self.test.items())).encode()).hexdigest()
        return {
            "sha256": self.train.digest(),
            "sha256_validation": self.validation.digest(),
            "sha256_calibration": self.calibration.digest(),
            "sha256_test": test,
        }

    def describe(self, config: EndoVAEConfig) -> dict[str, Any]:
        """Return the entry of run.json about the data."""
        held_out = {"validation": len(self.validation), "calibration": len(self.calibration)}
        sizes = {"train": len(self.train), **held_out, "test": sum(map(len, self.test.values()))}
        kind = "frames of both kinds" if config.split.train_on == "both" else f"{config.split.train_on} frames"
        size = self.store.frames.shape[1]
        return {
            "frames": {
                "spec": config.frames,
                "title": f"{', '.join(self.store.classes)}; {size} x {size}; trained on {kind}",
                "count": sum(sizes.values()),
                **sizes,
                **self.split_digests(),
                "notes": list(self.store.notes),
            }
        }


def load_splits(config: EndoVAEConfig, progress: ProgressCallback | None = None) -> Splits:
    """Open the configured store, or prepare the configured folder, and split its frames.

    Args:
        config: `frames` names the store or folder.
        progress: called with the number of prepared frames and of all frames.

    Raises:
        InputError: there are no frames of the kind to train on, or too few to split.
    """
    if not config.frames:
        raise InputError("No frames are given; name a frame store or a folder of frames with --frames.")
    return split_store(open_or_prepare(Path(config.frames), config.prepare, progress), config)


def load_run_splits(folder: RunFolder, config: EndoVAEConfig, record: Mapping[str, Any], frames: str | None = None) -> Splits:
    """Open the frames of a run, split as in its training.

    Args:
        folder: the run folder.
        config: of the run.
        record: content of run.json.
        frames: new path of the frames, if they have moved: the store, or the folder that it was prepared from.

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
    names = {"sha256": "training", **{f"sha256_{part}": part for part in ("validation", "calibration", "test")}}
    # That of the training frames may not be missing: a run of somebody else's could name any frames without it.
    changed = [
        names[key] for key, digest in splits.split_digests().items() if recorded.get(key, key != "sha256" and digest) != digest
    ]
    if changed:
        raise InputError(
            f"The {changed[0]} frames in {splits.store.path} differ from those of the run {folder.path} (by SHA-256); the "
            "run may have been trained on some of them; restore them, or train again."
        )
    return splits


def load_other_frames(config: EndoVAEConfig, frames: str) -> FrameStore:
    """Open a store of other frames than a run's own, or prepare a folder of them as the run's were.

    Args:
        config: of the run.
        frames: the store or folder; it may have frames of one kind only.

    Raises:
        InputError: the frames cannot be used, or a store was prepared otherwise.
    """
    store = open_or_prepare(Path(frames), config.prepare)
    for name in ("size", "method", "insets"):
        own, other = getattr(config.prepare, name), getattr(store.settings, name)
        if own != other:
            raise InputError(
                f"The frames in {frames} were prepared with {name} {other}, and those of the run with {own}; prepare them "
                f"again with --{name} {own}."
            )
    own, other = config.prepare.range, store.settings.range
    if own is not None and other is not None and own != other:
        raise InputError(
            f"In the frames in {frames}, values of {range_text(other)} became 0 to 255, and in those of the run values of "
            f"{range_text(own)}; prepare them again with --range {own[0]:g} {own[1]:g}."
        )
    return store


def with_store_settings(config: EndoVAEConfig, splits: Splits) -> EndoVAEConfig:
    """Return the configuration with the path and the preparation settings of the store."""
    return config.model_copy(update={"prepare": splits.store.settings, "frames": str(splits.store.path)})


def split_store(store: FrameStore, config: EndoVAEConfig) -> Splits:
    """Split a store by cluster of near-duplicates; the same store and settings always give the same split.

    Raises:
        InputError: there are no frames of the kind to train on, or too few to split.
    """
    split, kinds = config.split, frame_kinds(store)
    trained = np.ones(len(kinds), bool) if split.train_on == "both" else kinds == split.train_on
    positions = trained.nonzero()[0]
    if not len(positions):
        present = " and ".join(sorted(set(store.kinds)))
        raise InputError(f"{store.path} has no {split.train_on} frames, only {present}; change --split.train-on.")
    groups = store.clusters(positions, split.duplicate_distance)
    fractions = (split.validation_fraction, split.test_fraction)
    train, validation, rest = split_by_cluster(groups, store.labels[positions], fractions, split.seed)
    test = np.zeros(len(kinds), bool)
    test[positions[rest]] = True
    held_out = np.sort(positions[validation])
    calibration = _calibration_half(store, held_out, split)
    return Splits(
        FrameSubset(store, np.sort(positions[train])),
        FrameSubset(store, np.setdiff1d(held_out, calibration)),
        FrameSubset(store, calibration),
        subsets_by_kind(store, test | ~trained),
    )


def _calibration_half(store: FrameStore, validation: np.ndarray, split: SplitConfig) -> np.ndarray:
    """Return the validation frames set aside to calibrate: whole clusters of healthy ones, int64, ascending.

    There are none where the healthy ones are one cluster, which cannot be parted.
    """
    healthy = validation[~store.abnormal[validation]]
    groups = store.clusters(healthy, split.duplicate_distance)
    if len(np.unique(groups)) < 2:
        return np.empty(0, np.int64)
    _, calibrating, _ = split_by_cluster(groups, store.labels[healthy], (CALIBRATION_SHARE, 0.0), split.seed)
    return np.sort(healthy[calibrating])


def frame_kinds(store: FrameStore) -> np.ndarray:
    """Return the kind per frame of a store, `normal` or `abnormal`."""
    return np.array(store.kinds)[store.labels]


def subsets_by_kind(store: FrameStore, chosen: np.ndarray) -> dict[str, FrameSubset]:
    """Return the chosen frames of a store, bool (N,), by kind; a kind without any is left out."""
    kinds = frame_kinds(store)
    found = {kind: FrameSubset(store, np.flatnonzero((kinds == kind) & chosen)) for kind in ("normal", "abnormal")}
    return {kind: part for kind, part in found.items() if len(part)}


@dataclass(frozen=True)
class FrameBatch:
    """Frames of one training step."""

    images: Tensor
    """(n, 3, S, S) in [0, 1]."""
    valid_mask: Tensor | None = None
    """(n, 1, S, S), 0 where loss and metrics ignore a pixel; None where all pixels are valid."""


class AugmentedBatches(StepBatches[FrameBatch]):
    """Shuffled batches of frames and their augmented copies (step 3 of the reference study)."""

    def __init__(
        self, frames: Pixels, ignore_mask: Pixels | None, config: AugmentationConfig, seed: int, device: torch.device
    ) -> None:
        """Copy the frames to the device, or read them batch by batch if they do not fit.

        Args:
            frames: uint8 (N, S, S, 3).
            ignore_mask: (N, S, S), nonzero where loss and metrics ignore a pixel.
            config: of the augmentation.
            seed: of order and augmentation.
            device: where batches are made.
        """
        self.config, self.seed, self.device = config, seed, device
        self.frames = DeviceImages(frames, device)
        self.ignore_mask = None if ignore_mask is None else DeviceImages(ignore_mask, device)
        self.epoch = config.images_per_epoch(len(frames))
        self._order = ShuffledOrder(self.epoch, seed, "frames")
        self._fixed = draw_transforms(self.epoch, config, generator("cpu", seed, "augmentation"))

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return the tensors that `make` needs for the batch at `context`."""
        whole = self._order.take(context.images, context.batch_size)
        mine = context.shard(torch.arange(len(whole)))
        return self._read(whole[mine], self._transforms(whole, context)[mine])

    def make(self, read: Mapping[str, Tensor]) -> FrameBatch:
        """Make the batch from the tensors of `read`."""
        transforms = Transforms(**under("transforms", read))
        images = augment(to_unit(self.frames.take(under("frames", read)).permute(0, 3, 1, 2)), transforms)
        return FrameBatch(images, self._valid_mask(read, transforms))

    def sets(self) -> dict[str, DeviceImages]:
        """Return the frames, and the masks of their insets if there are any."""
        return {"frames": self.frames} | ({} if self.ignore_mask is None else {"insets": self.ignore_mask})

    def version(self, copy: int, count: int) -> Tensor:
        """Return the first `count` frames (copy 0) or one of their copies, (n, 3, S, S) in [0, 1]."""
        items = torch.arange(min(count, len(self.frames))) + copy * len(self.frames)
        read = self._read(items, self._fixed[items])
        return self.make({name: tensor.to(self.device) for name, tensor in read.items()}).images

    def _read(self, items: Tensor, transforms: Transforms) -> dict[str, Tensor]:
        """Return the tensors for the frames `items`; originals are numbered first, then all first copies, and so on."""
        frames, original = items % len(self.frames), items < len(self.frames)
        insets = {} if self.ignore_mask is None else self.ignore_mask.read(frames)
        return {
            **with_prefix("frames", self.frames.read(frames)),
            **with_prefix("insets", insets),
            # Originals get the identity, because selecting the copies would give another size in each step.
            **with_prefix("transforms", vars(transforms.identity_where(original))),
        }

    def _transforms(self, items: Tensor, context: StepContext) -> Transforms:
        if not self.config.resample_every_epoch:
            return self._fixed[items]
        return draw_transforms(len(items), self.config, context.shared_generator("augmentation"))

    def _valid_mask(self, read: Mapping[str, Tensor], transforms: Transforms) -> Tensor | None:
        if self.ignore_mask is None:
            return None
        ignored = (self.ignore_mask.take(under("insets", read)).unsqueeze(1) > 0).float()
        return 1 - (augment_masks(ignored, transforms) > 0).float()


def as_channels_first(frames: np.ndarray | Tensor) -> Tensor:
    """Return uint8 frames (N, S, S, 3) as a tensor (N, 3, S, S) in channels_last memory."""
    given = frames if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames))
    return given.permute(0, 3, 1, 2)


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], of the same shape and layout."""
    return images.float().mul_(1 / 255)


def to_images(frames: np.ndarray | Tensor) -> Tensor:
    """Return uint8 frames (N, S, S, 3) as float32 images (N, 3, S, S) in [0, 1], in channels_last memory."""
    return to_unit(as_channels_first(frames))


def from_unit(images: Tensor) -> Tensor:
    """Return float images in [0, 1] as uint8, of the same shape."""
    return images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def to_frames(images: Tensor) -> np.ndarray:
    """Return float images (N, 3, S, S) in [0, 1] as uint8 frames (N, S, S, 3)."""
    return from_unit(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
