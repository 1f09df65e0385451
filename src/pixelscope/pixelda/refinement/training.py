"""Refinements from a trained run to a run folder of their own, started or resumed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from pixelscope.data.imageset import ImageSet
from pixelscope.data.sources.relocate import written
from pixelscope.data.split import Split, find_copies, random_test_mask
from pixelscope.engine.checkpoint import fingerprint
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import Checkpoint, load_checkpoint, read_run
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import Domains, StoredRun, load_own, require_same_images
from pixelscope.pixelda.forward import draw_noise, redraw
from pixelscope.pixelda.networks import StrongClassifier, TaskNetwork, make_classifier
from pixelscope.pixelda.refinement.config import SYSTEM, RefineConfig, places_of, read_refinement
from pixelscope.pixelda.refinement.data import AT_ONCE, GeneratedPool, RefineBatches
from pixelscope.pixelda.refinement.task import RefineTask
from pixelscope.pixelda.samples import save_classifiers
from pixelscope.pixelda.verdict import IMAGES, compare
from pixelscope.rng import generator
from pixelscope.runs.folder import RunFolder


@dataclass(frozen=True)
class Material:
    """What a refinement is made from: the networks of a run and its images, some held out."""

    opened: Checkpoint
    start: TaskNetwork
    """T of that run that the refinement starts from and is compared with."""
    domains: Domains
    source: Split
    """The source's own split, some of its training images held out for validation."""
    target: ImageSet
    """Target images to train on, without labels."""
    held_out: ImageSet
    """Others of the target's training images, without labels, for rules that choose a checkpoint."""
    teacher: nn.Module | None
    """What labels target images, where it is not the moving average of the classifier in training."""


@dataclass(frozen=True)
class RefineJob(Job):
    """A refinement; every process opens its material itself."""

    config: RefineConfig
    lying: RefineConfig
    """The settings with their runs where they were found."""
    data_root: Path | None

    def build(self, fabric: Fabric) -> Training:
        """Open the run to start from, and build the classifier and its batches."""
        config, material = self.config, load_material(self.lying, self.data_root)
        source, classifier = material.source, build_classifier(self.config, material)
        pool = _pool(config, material, fabric) if config.generated.use else None
        task = RefineTask(
            config, classifier, _frequencies(source.train), fabric, validation=source.validation, teacher=material.teacher
        )
        return Training(
            f"{SYSTEM}-{material.opened.folder.path.name}-seed{config.seed}",
            task,
            RefineBatches(source.train, material.target, pool, config.seed, fabric.device),
            config.training,
            settings=_decisive(config),
            digests={**material.domains.digests(), "run": _networks(material)},
            describe=lambda run: self.describe(run, material),
            snapshot=lambda folder, images: save_classifiers(folder, task, images),
        )

    def describe(self, run: Path, material: Material) -> dict[str, Any]:
        """Return what run.json says of the images and of the run to start from."""
        config, opened = self.config, material.opened
        return {
            "data": material.domains.describe(opened.config),
            "paths": written(places_of(config), places_of(self.lying), run),
            "classes": list(opened.classes),
            "refined_from": {
                "run": config.run,
                "rule": opened.rule,
                "images": opened.images,
                "choose": config.choose,
            },
            "notes": _notes(config),
        }


def refine(config: RefineConfig, *, runs: Path = Path("runs"), run: Path | None = None, data_root: Path | None = None) -> Path:
    """Train a better classifier from a finished run of PixelDA and unlabelled target images; return the new run folder.

    No target label is used: the target's training images are stripped of theirs before anything sees them.

    Args:
        config: settings; `config.run` names the run.
        runs: where a numbered folder is made.
        run: a folder of the user's own choice, which must not exist.
        data_root: where a source given as a KIND alone is looked for.

    Raises:
        InputError: the run is not a finished one of PixelDA, its images are not there, or the settings exclude each other.
    """
    check_start(config, run)
    if not (config.generated.use or config.self_training.use):
        raise InputError("Neither stage is on, so there is nothing to learn; use --generated.use or --self-training.use.")
    config = settle(config, load_material(config, data_root))
    return RefineJob(SYSTEM, config, Place(runs, run), config, data_root).run()


def resume_refinement(
    run: Path,
    *,
    devices: int | None = None,
    origin: Path | None = None,
    teacher: Path | None = None,
    data_root: Path | None = None,
) -> Path:
    """Go on with a stopped refinement from its newest checkpoint, and return its folder.

    origin, teacher: where the run that it started from, and its teacher, lie now, if they have moved.
    Raises InputError where one of these runs cannot be used; the refinement is then left as it was.
    """
    moved = {name: None if path is None else str(path) for name, path in (("run", origin), ("teacher", teacher))}
    changes = {"run": moved["run"], "self_training": {"teacher": moved["teacher"]}, "runtime": {"devices": devices}}
    folder, config, place = check_resume(run, lambda folder: read_refinement(folder).config, changes)
    located = replace(read_refinement(folder), config=config).located()
    return RefineJob(SYSTEM, config, place, located, data_root).run()


def load_material(
    config: RefineConfig, data_root: Path | None = None, training: bool = True, run: StoredRun | None = None
) -> Material:
    """Open the run that a refinement starts from, and hold images out; the teacher is opened for training alone.

    run: the run that the configuration names, where its folder was read already.
    """
    if not config.run:
        raise InputError("No run is given; name a finished run of `pixelscope pixelda train`.")
    opened = load_checkpoint(read_run(RunFolder.open(Path(config.run))) if run is None else run, config.rule)
    if not isinstance(opened.config, PixelDAConfig):
        raise InputError(f"{config.run} is a run of the {opened.system}, without G; give one of `pixelscope pixelda train`.")
    domains = load_own(opened.run, data_root)
    assert domains.target is not None
    held = config.held_out
    target, held_out = _apart(domains.training_target(), held.target, held.seed)
    train, validation = _apart(domains.source.train, held.source, held.seed)
    source = Split(train, validation, domains.source.test, domains.source.training_positions)
    smallest = min(len(target), len(train))
    if smallest < config.training.batch_size:
        raise InputError(
            f"There are {smallest} training images, fewer than a batch of {config.training.batch_size}; lower "
            "--training.batch-size, or give more images."
        )
    teacher = _teacher(config, opened, domains) if training else None
    return Material(opened, start_of(config.choose, opened), domains, source, target, held_out, teacher)


def start_of(choice: str, opened: Checkpoint) -> TaskNetwork:
    """Return the T of a run that a refinement starts from; raises InputError where the run has none of the source alone."""
    if choice != "source-only":
        assert isinstance(opened.classifier, TaskNetwork)
        return opened.classifier
    if opened.judge is None:
        raise InputError(
            f"{opened.folder.path} has no T of the source alone; train with --judge, or drop --choose source-only."
        )
    return opened.judge


def settle(config: RefineConfig, material: Material) -> RefineConfig:
    """Return the settings with the T to start from decided.

    Raises InputError where that is T of the source alone, and only redrawn images were to be trained on.
    """
    judge = material.opened.judge
    if config.choose != "auto":
        return config
    if judge is None or not _likely_harms(judge, material):
        return config.model_copy(update={"choose": "adapted"})
    if not config.self_training.use:
        raise InputError(
            f"Adaptation likely harms in {config.run}, so its redrawn images teach the wrong thing, and --self-training.use is "
            "off; turn it on, or train on them all the same with --choose adapted."
        )
    generated = config.generated.model_copy(update={"use": False})
    return config.model_copy(update={"choose": "source-only", "generated": generated})


def _likely_harms(judge: TaskNetwork, material: Material) -> bool:
    source = material.domains.source
    held_out = source.validation if len(source.validation) else source.train
    verdict = compare(judge, material.opened.classifier, material.domains.training_target(), held_out)
    return verdict.better == "source only"


def redrawn_validation(material: Material, seed: int) -> ImageSet:
    """Return source images held out as the run's G redraws them, with their labels."""
    opened, held_out = material.opened, material.source.validation
    assert isinstance(opened.config, PixelDAConfig) and opened.generator is not None
    some = held_out.select(np.arange(min(IMAGES, len(held_out))))
    z = draw_noise(opened.config, len(some), generator("cpu", seed, "redrawn for the guard"))
    parts = [
        redraw(opened.generator, some.images[start : start + AT_ONCE], z[start : start + AT_ONCE])
        for start in range(0, len(some), AT_ONCE)
    ]
    return replace(some, images=np.concatenate(parts))


def build_classifier(config: RefineConfig, material: Material) -> nn.Module:
    """Build the classifier as training begins with it: new, or the T that it starts from."""
    opened = material.opened
    if config.network.kind == "paper":
        own, t = material.start, opened.config.classifier
        size, private = opened.size, own.conv1_source is not None
        network = make_classifier(t.kind, len(opened.classes), size, t.width, private)
        network.load_state_dict(own.state_dict())
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        return StrongClassifier(len(opened.classes), config.network.width, config.network.dropout)


def _teacher(config: RefineConfig, opened: Checkpoint, domains: Domains) -> nn.Module | None:
    """Open the run that is to label target images; one that saw other test images in training would hand them on."""
    path = config.self_training.teacher
    if not path:
        return None
    if not config.self_training.use:
        raise InputError("A teacher labels target images, and their stage is off; drop --self-training.teacher, or turn it on.")
    teacher = load_checkpoint(Path(path), config.rule)
    if teacher.classes != opened.classes:
        raise InputError(
            f"{path} knows the classes {', '.join(teacher.classes)}, the run {', '.join(opened.classes)}; give another."
        )
    if teacher.config.data != opened.config.data:
        raise InputError(f"{path} was trained on another split or size of the images than {config.run}; give one of the same.")
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


def _apart(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    mask = random_test_mask(len(images), share, seed, find_copies(images))
    return images.select(~mask), images.select(mask)


def _pool(config: RefineConfig, material: Material, fabric: Fabric) -> GeneratedPool:
    opened = material.opened
    assert isinstance(opened.config, PixelDAConfig) and opened.generator is not None
    network = opened.generator
    return GeneratedPool(network, opened.config, material.source.train, config.seed, config.generated, fabric)


def _notes(config: RefineConfig) -> list[str]:
    if config.choose != "source-only":
        return []
    redrawn = "" if config.generated.use else ", without redrawn images"
    return [f"Starts from T of the source alone{redrawn} (--choose source-only, or auto where adaptation likely harms)."]


def _frequencies(source: ImageSet) -> torch.Tensor:
    counts = torch.tensor(source.class_counts(), dtype=torch.float32)
    return counts / counts.sum()


def _networks(material: Material) -> str:
    assert material.opened.generator is not None
    given = [material.start, material.opened.generator]
    return fingerprint(*given, *([] if material.teacher is None else [material.teacher]))


def _decisive(config: RefineConfig) -> dict[str, Any]:
    """Return the settings that decide the weights; the schedule depends on the length of the training, too.

    The T to start from is told by its weights.
    """
    return config.model_dump(mode="json", exclude={"runtime": True, "run": True, "choose": True, "self_training": {"teacher"}})
