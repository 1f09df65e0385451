"""What a refinement starts from, and its batches: source, generated and target images, the target without labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.data.disk_array import evenly_spaced, sampled
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import DeviceImages, ShuffledStream, StepBatches, to_float, under, with_prefix
from pixelscope.data.split import Split, own_test_mask
from pixelscope.engine.runtime import to_device
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import REFINED_CHECKPOINT, START, Checkpoint, load_checkpoint, read_run
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import Domains, StoredRun, load_own, require_same_images
from pixelscope.pixelda.forward import draw_noise, redraw
from pixelscope.pixelda.networks import Generator, StrongClassifier, TaskNetwork, make_classifier
from pixelscope.pixelda.refinement.config import GeneratedConfig, RefineConfig
from pixelscope.pixelda.verdict import MAX_IMAGES, answers_of
from pixelscope.rng import ShuffledOrder, StepContext, generator
from pixelscope.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GENERATE_BATCH = 250
"""Images that G generates in one pass."""
GROUPS_HELD_OUT = "groups_held_out"
"""Entry of run.json: whole groups of --data.group-by were held out."""
FREQUENCY_IMAGES = 10_000
"""Maximum number of target images whose classes are predicted to estimate class frequencies."""


@dataclass(frozen=True)
class RefineBatch:
    """One step's images, each (n, 3, S, S) in [-1, 1]; labels int64 (n,)."""

    source: Tensor
    labels: Tensor
    generated: Tensor | None
    """Images generated from other source images, with `generated_labels`; None if stage 1 is off."""
    generated_labels: Tensor | None
    target: Tensor


class GeneratedPool:
    """Images that G generates from source images, refreshed regularly; a function of seed and step alone."""

    def __init__(
        self,
        network: Generator,
        config: PixelDAConfig,
        source: ImageSet,
        seed: int,
        generated: GeneratedConfig,
        fabric: "Fabric",
    ) -> None:
        self.network, self.config, self.fabric = to_device(network, fabric.device, config.runtime.memory_format), config, fabric
        self.source, self.seed, self.refresh = source, seed, generated.refresh_every
        self.pool = min(generated.pool_size, len(source))
        self._order = ShuffledOrder(len(source), seed, "generated pool")
        self._within = ShuffledOrder(self.pool, seed, "within the pool")
        self._drawn = -1
        size = source.images.shape[-1]
        self.images = DeviceImages(np.empty((self.pool, 3, size, size), np.uint8), fabric.device)
        self._labels = torch.empty(self.pool, dtype=torch.int64, device=fabric.device)

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what `take` needs at `context`, on the CPU; the pool is generated first where it is due."""
        number = context.images // self.refresh
        if number != self._drawn:
            self._draw(number)
        return self.images.read(context.shard(self._within.take(context.images, context.batch_size)))

    def take(self, read: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images (n, 3, S, S) in [-1, 1] and labels (n,) of what `read` returned, moved to the device."""
        return to_float(self.images.take(read)), self._labels[read["positions"]]

    def _draw(self, number: int) -> None:
        positions = self._order.take(number * self.pool, self.pool).numpy()
        z = draw_noise(self.config, self.pool, generator("cpu", self.seed, "generated pool", number)).to(self.fabric.device)
        with self.fabric.autocast():
            parts = [
                redraw(
                    self.network,
                    self.source.images[positions[start : start + GENERATE_BATCH]],
                    z[start : start + GENERATE_BATCH],
                )
                for start in range(0, self.pool, GENERATE_BATCH)
            ]
        assert self.source.labels is not None
        self.images.overwrite(np.concatenate(parts))
        # In place, because a captured step reads from this address.
        self._labels.copy_(torch.from_numpy(self.source.labels[positions]))
        self._drawn = number


class RefineBatches(StepBatches[RefineBatch]):
    """Shuffled batches of everything that a refinement trains on."""

    def __init__(self, source: ImageSet, target: ImageSet, pool: GeneratedPool | None, seed: int, device: torch.device) -> None:
        """Create the streams.

        Args:
            source: labelled source images.
            target: target images without labels.
            pool: generated images; None if stage 1 is off.
            seed: seed of the order of images.
            device: where batches are put.

        Raises:
            InputError: the target has labels, which a refinement must never hold.
        """
        if target.labels is not None:
            raise InputError(f"{target.provenance.source} has labels, which a refinement must not use; remove them.")
        self.device = device
        self.source = ShuffledStream(source, seed, "source", device)
        self.target = ShuffledStream(target, seed, "target", device)
        self.pool = pool

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what the batch at `context` is made of."""
        pool = {} if self.pool is None else self.pool.read(context)
        read = {"source": self.source.read(context), "target": self.target.read(context), "pool": pool}
        return {name: tensor for prefix, tensors in read.items() for name, tensor in with_prefix(prefix, tensors).items()}

    def make(self, read: Mapping[str, Tensor]) -> RefineBatch:
        """Return the batch."""
        source, labels = self.source.take(under("source", read))
        assert labels is not None
        generated, generated_labels = (None, None) if self.pool is None else self.pool.take(under("pool", read))
        return RefineBatch(source, labels, generated, generated_labels, self.target.take(under("target", read))[0])

    def sets(self) -> dict[str, DeviceImages]:
        """Return both domains, and the pool where there is one."""
        pool = {} if self.pool is None else {"generated pool": self.pool.images}
        return {"source": self.source.images, "target": self.target.images, **pool}


@dataclass(frozen=True)
class RefinementInputs:
    """The networks and images of the run that a refinement starts from, with some images held out."""

    opened: Checkpoint
    start: TaskNetwork
    """The T that the refinement starts from and is compared with."""
    domains: Domains
    source: Split
    """The source's split, with some training images held out for validation."""
    target: ImageSet
    """Target images to train on, without labels."""
    holdout: ImageSet
    """Target images held out of training, without labels, for the criteria that select a checkpoint."""
    teacher: nn.Module | None
    """The classifier that labels target images; None for the moving average of the classifier in training."""

    @property
    def has_groups(self) -> bool:
        """Return whether images of a domain are in groups of --data.group-by."""
        target = self.domains.target
        return self.domains.source.train.groups is not None or (target is not None and target.train.groups is not None)


def load_inputs(
    config: RefineConfig, data_root: Path | None = None, training: bool = True, run: StoredRun | None = None
) -> RefinementInputs:
    """Open the run that a refinement starts from, and hold images out.

    Args:
        config: the settings.
        data_root: folder in which a source given as a KIND alone is looked up.
        training: whether the teacher is opened, which only training needs.
        run: the run that the configuration names, if its folder was read already.

    Raises:
        InputError: a run or its images cannot be used, or there are fewer images than a batch.
    """
    if not config.run:
        raise InputError("No run is given; give a finished run of `pixelscope pixelda train`.")
    stored = read_run(RunFolder.open(Path(config.run))) if run is None else run
    if not isinstance(stored.config, PixelDAConfig):
        raise InputError(
            f"{config.run} is a baseline, which has no generator; give a finished run of `pixelscope pixelda train`."
        )
    opened = load_checkpoint(stored, config.checkpoint)
    domains = load_own(opened.run, data_root)
    assert domains.target is not None
    held = config.selection_holdout
    target, holdout = _hold_out(domains.training_target(), domains.target.train, held.target, held.seed)
    train, validation = _hold_out(domains.source.train, domains.source.train, held.source, held.seed)
    source = Split(train, validation, domains.source.test, domains.source.training_positions)
    smallest = min(len(target), len(train))
    if smallest < config.training.batch_size:
        raise InputError(
            f"There are {smallest} training images, fewer than a batch of {config.training.batch_size}; lower "
            "--training.batch-size, or give more images."
        )
    teacher = _teacher(config, opened, domains) if training else None
    return RefinementInputs(opened, starting_classifier(config.choose, opened), domains, source, target, holdout, teacher)


def starting_classifier(choice: str, opened: Checkpoint) -> TaskNetwork:
    """Return the T of a run that a refinement starts from.

    Raises:
        InputError: `choice` is `source-only`, and the run has no T of the source alone.
    """
    if choice != "source-only":
        assert isinstance(opened.classifier, TaskNetwork)
        return opened.classifier
    if opened.judge is None:
        raise InputError(
            f"{opened.folder.path} has no T of the source alone; train with --judge, or drop --choose source-only."
        )
    return opened.judge


def generated_validation(inputs: RefinementInputs, seed: int) -> ImageSet:
    """Return up to `MAX_IMAGES` held-out source images, evenly spaced and translated by the run's G, with their labels."""
    opened, holdout = inputs.opened, inputs.source.validation
    assert isinstance(opened.config, PixelDAConfig) and opened.generator is not None
    some = holdout.select(evenly_spaced(np.arange(len(holdout)), MAX_IMAGES))
    z = draw_noise(opened.config, len(some), generator("cpu", seed, "redrawn for the guard"))
    parts = [
        redraw(opened.generator, some.images[start : start + GENERATE_BATCH], z[start : start + GENERATE_BATCH])
        for start in range(0, len(some), GENERATE_BATCH)
    ]
    return replace(some, images=np.concatenate(parts))


def build_classifier(config: RefineConfig, inputs: RefinementInputs) -> nn.Module:
    """Return the classifier at the start of training: a new one, or the T that it starts from."""
    opened = inputs.opened
    if config.network.kind == "paper":
        own, t = inputs.start, opened.config.classifier
        size, private = opened.size, own.conv1_source is not None
        network = make_classifier(t.kind, len(opened.classes), size, t.width, private)
        network.load_state_dict(own.state_dict())
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        return StrongClassifier(len(opened.classes), config.network.width, config.network.dropout)


def class_frequencies(images: ImageSet) -> torch.Tensor:
    """Return the fraction of labelled images per class, float (classes,)."""
    counts = torch.tensor(images.class_counts(), dtype=torch.float32)
    return counts / counts.sum()


def assumed_frequencies(config: RefineConfig, inputs: RefinementInputs) -> torch.Tensor:
    """Return the class frequencies that the target is assumed to have, float (classes,), sum 1.

    Predicted ones count up to `FREQUENCY_IMAGES` training images by the T to start from, and one more image per class, so that
    no class is excluded. Without pseudo-labels nothing is predicted.
    """
    taught = config.self_training
    if not taught.enabled or taught.distribution_alignment != "predicted":
        return class_frequencies(inputs.source.train)
    logits, _ = answers_of(inputs.start, sampled(inputs.target.images, FREQUENCY_IMAGES))
    counts = torch.bincount(logits.argmax(1), minlength=logits.shape[1]).float() + 1
    return counts / counts.sum()


def _teacher(config: RefineConfig, opened: Checkpoint, domains: Domains) -> nn.Module | None:
    """Open the teacher; it must have the same splits, as it could pass on labels of test images that it was trained on."""
    path = config.self_training.teacher
    if not path:
        return None
    if not config.self_training.enabled:
        raise InputError(
            "A teacher labels target images, but --self-training.enabled is off; drop --self-training.teacher, or turn it on."
        )
    teacher = load_checkpoint(Path(path), config.checkpoint)
    if teacher.name == START:
        raise InputError(
            f"The refinement {path} likely harms, so the T that it started from would label the images; give another "
            f"teacher, or use its refined classifier with --checkpoint {REFINED_CHECKPOINT}."
        )
    if teacher.classes != opened.classes:
        raise InputError(
            f"The teacher {path} has the classes {', '.join(teacher.classes)}, and the run has {', '.join(opened.classes)}; "
            "give a teacher with the same classes."
        )
    if teacher.config.data != opened.config.data:
        raise InputError(f"{path} was trained on another split or image size than {config.run}; give a teacher with the same.")
    _require_same_splits(teacher, opened, domains)
    return teacher.classifier


def _require_same_splits(teacher: Checkpoint, opened: Checkpoint, domains: Domains) -> None:
    try:
        require_same_images(replace(opened.run, folder=teacher.folder, record=teacher.record), domains)
    except InputError:
        raise InputError(
            f"The teacher {teacher.folder.path} was trained on other images or other splits than {opened.folder.path} (the "
            "SHA-256 in their run.json differ), so it may have seen test images with their labels; give a teacher of the same "
            "data."
        ) from None


def _hold_out(images: ImageSet, grouped: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Return images to train on, and a random `share` of them held out; copies and groups are never separated.

    Without groups, a class of which every image would be held out is trained on.

    Args:
        images: training images of one domain.
        grouped: the same images with their groups, if they have any.
        share: fraction to hold out.
        seed: seed of the split.

    Raises:
        InputError: no image can be held out, or with groups all images of a class are.
    """
    mask = own_test_mask(replace(grouped, test=None), share, seed)
    if images.labels is not None:
        lost = _entirely_in(mask, images.labels)
        if lost and grouped.groups is not None:
            raise InputError(
                f"No training image of the class {images.classes[lost[0]]} of the source is left, because its group of "
                "--data.group-by is held out to choose a checkpoint; choose another --selection-holdout.seed, or start from "
                "a run with smaller groups."
            )
        mask &= ~np.isin(images.labels, lost)
    if not mask.any():
        raise InputError(
            f"No training image of {images.provenance.source} can be held out to choose a checkpoint, because all are copies "
            "of one image or in one group of --data.group-by; start from a run with more images or smaller groups."
        )
    return images.select(~mask), images.select(mask)


def _entirely_in(mask: NDArray[np.bool_], labels: NDArray[np.int64]) -> list[int]:
    """Return the labels of which `mask` has every image."""
    return [int(label) for label in np.unique(labels) if mask[labels == label].all()]
