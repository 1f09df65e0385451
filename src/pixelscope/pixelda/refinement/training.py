"""Starts and resumes a refinement: from a trained run to a new run folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pixelscope.data.sources.relocate import written
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.errors import InputError
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.networks import TaskNetwork
from pixelscope.pixelda.refinement.config import (
    SYSTEM,
    UNRECORDED,
    RefineConfig,
    SelfTrainingConfig,
    places_of,
    read_refinement,
    require_known_views,
)
from pixelscope.pixelda.refinement.data import (
    GROUPS_HELD_OUT,
    GeneratedPool,
    RefineBatches,
    RefinementInputs,
    assumed_frequencies,
    build_classifier,
    load_inputs,
)
from pixelscope.pixelda.refinement.task import RefineTask
from pixelscope.pixelda.samples import save_classifiers
from pixelscope.pixelda.verdict import compare

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
            config,
            classifier,
            assumed_frequencies(config, inputs),
            fabric,
            validation=source.validation,
            teacher=inputs.teacher,
            start=_start(config, inputs),
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
    _require_effect(config.self_training)
    config = resolve_start(config, load_inputs(config, data_root))
    return RefineJob(SYSTEM, config, Place(runs, run), config, data_root).run()


def _require_effect(config: SelfTrainingConfig) -> None:
    """Raise InputError if a setting of pseudo-labels is given that has no effect without them.

    Values that were in use before a setting existed, which presets and older runs have, ask for nothing.
    """
    for name in () if config.enabled else ("weak_views", "start_weight", "weight", "distribution_alignment", "teacher"):
        value = getattr(config, name)
        if value not in (SelfTrainingConfig.model_fields[name].default, UNRECORDED["self_training"].get(name)):
            raise InputError(
                f"self_training.{name} {value} has no effect without self_training.enabled; leave it out, or turn that on."
            )


def resume_refinement(
    run: Path,
    *,
    devices: int | None = None,
    threads: int | None = None,
    origin: Path | None = None,
    teacher: Path | None = None,
    data_root: Path | None = None,
    take_over: bool = False,
) -> Path:
    """Resume a stopped refinement from its newest checkpoint.

    Args:
        run: its run folder.
        devices: number of devices, if it changes.
        threads: CPU threads per process, if it changes; 0 takes the free cores.
        origin: current place of the run that it started from, if it has moved.
        teacher: current place of its teacher, if it has moved.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the lock from another machine that has been silent for ten minutes.

    Returns:
        The run folder.

    Raises:
        InputError: one of these runs cannot be used, or another process trains the refinement; it is left unchanged.
    """
    require_known_views(run)
    moved = {name: None if path is None else str(path) for name, path in (("run", origin), ("teacher", teacher))}
    runtime = {"devices": devices, "threads": threads}
    changes = {"run": moved["run"], "self_training": {"teacher": moved["teacher"]}, "runtime": runtime}
    folder, config, place = check_resume(run, lambda folder: read_refinement(folder).config, changes, take_over)
    located = replace(read_refinement(folder), config=config).located()
    return RefineJob(SYSTEM, config, place, located, data_root).run()


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
    domains = inputs.domains
    verdict = compare(judge, inputs.opened.classifier, domains.training_target(), domains.held_out_source())
    return verdict.better == "source only"


def _held_out(inputs: RefinementInputs) -> dict[str, str]:
    """Return the SHA-256 of the target images held out in groups, so that a refinement that held out others is not resumed."""
    return {"held_out": inputs.holdout.digest()} if inputs.has_groups else {}


def _pool(config: RefineConfig, inputs: RefinementInputs, fabric: "Fabric") -> GeneratedPool:
    opened = inputs.opened
    assert isinstance(opened.config, PixelDAConfig) and opened.generator is not None
    network = opened.generator
    return GeneratedPool(network, opened.config, inputs.source.train, config.seed, config.generated, fabric)


def _start(config: RefineConfig, inputs: RefinementInputs) -> nn.Module | None:
    """Return the T whose predictions are mixed with those of the moving average; None if they have no weight."""
    taught = config.self_training
    return inputs.start if taught.enabled and taught.start_weight and inputs.teacher is None else None


def _notes(config: RefineConfig) -> list[str]:
    if config.choose != "source-only":
        return []
    redrawn = "" if config.generated.enabled else ", without generated images"
    return [f"Starts from T of the source alone{redrawn} (--choose source-only, or auto where adaptation likely harms)."]


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
