"""Starts and resumes a refinement: from a trained run to a new run folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.imageset import ImageSet
from pixelscope.data.sources.relocate import written
from pixelscope.data.split import Split, own_test_mask
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import REFINED_CHECKPOINT, START, Checkpoint, load_checkpoint, read_run
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import Domains, StoredRun, load_own, require_same_images
from pixelscope.pixelda.forward import draw_noise, redraw
from pixelscope.pixelda.networks import StrongClassifier, TaskNetwork, make_classifier
from pixelscope.pixelda.refinement.config import SYSTEM, RefineConfig, places_of, read_refinement
from pixelscope.pixelda.refinement.data import GENERATE_BATCH, GeneratedPool, RefineBatches
from pixelscope.pixelda.refinement.task import RefineTask
from pixelscope.pixelda.samples import save_classifiers
from pixelscope.pixelda.verdict import MAX_IMAGES, compare
from pixelscope.rng import generator
from pixelscope.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GROUPS_HELD_OUT = "groups_held_out"
"""Entry of run.json: whole groups of --data.group-by were held out."""


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


@dataclass(frozen=True)
class RefineJob(Job):
    """A refinement; every process opens its inputs."""

    config: RefineConfig
    located: RefineConfig
    """The configuration with the current places of the runs that it names."""
    data_root: Path | None

    def build(self, fabric: "Fabric") -> Training:
        """Open the run to start from, and build the classifier and its batches."""
        config, inputs = self.config, load_inputs(self.located, self.data_root)
        source, classifier = inputs.source, build_classifier(self.config, inputs)
        pool = _pool(config, inputs, fabric) if config.generated.enabled else None
        task = RefineTask(
            config, classifier, class_prior(source.train), fabric, validation=source.validation, teacher=inputs.teacher
        )
        return Training(
            f"{SYSTEM}-{inputs.opened.folder.path.name}-seed{config.seed}",
            task,
            RefineBatches(source.train, inputs.target, pool, config.seed, fabric.device),
            config.training,
            settings=_decisive(config),
            digests={**inputs.domains.digests(), "run": _networks(inputs), **_held_out(inputs)},
            describe=lambda run: self.describe(run, inputs),
            snapshot=lambda folder, images: save_classifiers(folder, task, images),
        )

    def describe(self, run: Path, inputs: RefinementInputs) -> dict[str, Any]:
        """Return the entries of run.json about the images and the run to start from."""
        config, opened = self.config, inputs.opened
        return {
            "data": inputs.domains.describe(opened.config),
            "paths": written(places_of(config), places_of(self.located), run),
            "classes": list(opened.classes),
            "refined_from": {
                "run": config.run,
                "checkpoint": opened.name,
                "images": opened.images,
                "choose": config.choose,
            },
            "notes": _notes(config),
            **({GROUPS_HELD_OUT: True} if inputs.has_groups else {}),
        }


def refine(config: RefineConfig, *, runs: Path = Path("runs"), run: Path | None = None, data_root: Path | None = None) -> Path:
    """Train a better classifier from a finished run of PixelDA and unlabelled target images.

    No target label is used: labels are removed from the target's training images before anything reads them.

    Args:
        config: settings; `config.run` names the run.
        runs: parent of the new numbered run folder.
        run: path of the new run folder instead of a numbered one; it must not exist.
        data_root: folder in which a source given as a KIND alone is looked up.

    Returns:
        The new run folder.

    Raises:
        InputError: the run is not a finished one of PixelDA, its images are missing, or settings exclude each other.

    Example:
        >>> config = pixelscope.pixelda.RefineConfig(run="runs/adapted")
        >>> refined = pixelscope.pixelda.refine(config, run=Path("runs/refined"))
    """
    check_start(config, run)
    config = config.with_settings({})  # Refuses settings that have no effect next to the defaults of others.
    if not (config.generated.enabled or config.self_training.enabled):
        raise InputError("Both stages are off; turn on --generated.enabled or --self-training.enabled.")
    config = resolve_start(config, load_inputs(config, data_root))
    return RefineJob(SYSTEM, config, Place(runs, run), config, data_root).run()


def resume_refinement(
    run: Path,
    *,
    devices: int | None = None,
    origin: Path | None = None,
    teacher: Path | None = None,
    data_root: Path | None = None,
    take_over: bool = False,
) -> Path:
    """Resume a stopped refinement from its newest checkpoint.

    Args:
        run: its run folder.
        devices: number of devices, if it changes.
        origin: current place of the run that it started from, if it has moved.
        teacher: current place of its teacher, if it has moved.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the lock from another machine that has been silent for ten minutes.

    Returns:
        The run folder.

    Raises:
        InputError: one of these runs cannot be used, or another process trains the refinement; it is left unchanged.
    """
    moved = {name: None if path is None else str(path) for name, path in (("run", origin), ("teacher", teacher))}
    changes = {"run": moved["run"], "self_training": {"teacher": moved["teacher"]}, "runtime": {"devices": devices}}
    folder, config, place = check_resume(run, lambda folder: read_refinement(folder).config, changes, take_over)
    located = replace(read_refinement(folder), config=config).located()
    return RefineJob(SYSTEM, config, place, located, data_root).run()


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


def resolve_start(config: RefineConfig, inputs: RefinementInputs) -> RefineConfig:
    """Return the settings with the T to start from resolved: `choose` is `adapted` or `source-only`.

    Raises:
        InputError: it is T of the source alone, and only generated images were to be trained on.
    """
    judge = inputs.opened.judge
    if config.choose != "auto":
        return config
    if judge is None or not _likely_harms(judge, inputs):
        return config.model_copy(update={"choose": "adapted"})
    if not config.self_training.enabled:
        raise InputError(
            f"Adaptation likely harms in {config.run}, so its generated images are not used, but --self-training.enabled is "
            "off; turn it on, or use generated images with --choose adapted."
        )
    generated = config.generated.model_copy(update={"enabled": False})
    return config.model_copy(update={"choose": "source-only", "generated": generated})


def _likely_harms(judge: TaskNetwork, inputs: RefinementInputs) -> bool:
    source = inputs.domains.source
    holdout = source.validation if len(source.validation) else source.train
    verdict = compare(judge, inputs.opened.classifier, inputs.domains.training_target(), holdout)
    return verdict.better == "source only"


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
            f"The teacher {path} is a refinement that likely harms, so that the T it started from would label the images; give "
            f"another, or take its refined classifier with --checkpoint {REFINED_CHECKPOINT}."
        )
    if teacher.classes != opened.classes:
        raise InputError(
            f"The teacher {path} has the classes {', '.join(teacher.classes)}, the run has {', '.join(opened.classes)}."
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


def _held_out(inputs: RefinementInputs) -> dict[str, str]:
    """Return the SHA-256 of the target images held out in groups, so that a refinement that held out others is not resumed."""
    return {"held_out": inputs.holdout.digest()} if inputs.has_groups else {}


def _pool(config: RefineConfig, inputs: RefinementInputs, fabric: "Fabric") -> GeneratedPool:
    opened = inputs.opened
    assert isinstance(opened.config, PixelDAConfig) and opened.generator is not None
    network = opened.generator
    return GeneratedPool(network, opened.config, inputs.source.train, config.seed, config.generated, fabric)


def _notes(config: RefineConfig) -> list[str]:
    if config.choose != "source-only":
        return []
    redrawn = "" if config.generated.enabled else ", without generated images"
    return [f"Starts from T of the source alone{redrawn} (--choose source-only, or auto where adaptation likely harms)."]


def class_prior(source: ImageSet) -> torch.Tensor:
    """Return the fraction of the images per class, float (classes,)."""
    counts = torch.tensor(source.class_counts(), dtype=torch.float32)
    return counts / counts.sum()


def _networks(inputs: RefinementInputs) -> str:
    assert inputs.opened.generator is not None
    given = [inputs.start, inputs.opened.generator]
    return weights_sha256(*given, *([] if inputs.teacher is None else [inputs.teacher]))


def _decisive(config: RefineConfig) -> dict[str, Any]:
    """Return the settings that decide the weights, the length of training included; the T to start from has a digest."""
    others: dict[str, Any] = {
        "runtime": True,
        "run": True,
        "choose": True,
        "self_training": {"teacher"},
        "training": {"tensorboard"},
    }
    return config.model_dump(mode="json", exclude=others)
