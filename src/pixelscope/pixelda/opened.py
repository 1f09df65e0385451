"""A finished run with a classifier, whichever way it was trained: what using and exporting it need."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.pixelda.baseline import make_classifier
from pixelscope.pixelda.config import AdaptedClassifierConfig, BaselineConfig
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.networks import StrongClassifier
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.pixelda.refinement.settings import SYSTEM, located_runs, read_refine_config
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.trained import TrainedRun
from pixelscope.pixelda.training import read_config
from pixelscope.runs.folder import RunFolder

Choice = Literal["adapted", "auto"]
"""Which classifier of a run: the adapted T, or the one that likely reads the target better."""

AVERAGE = "average.classifier."
START = "start"
"""The rule by which a refinement that likely harms keeps the T it started from."""


@dataclass(frozen=True)
class Opened:
    """A classifier with what is known of it."""

    folder: RunFolder
    system: str
    classes: tuple[str, ...]
    size: int
    rule: str
    images: int
    """Images seen in training."""
    batch_size: int
    seed: int
    classifier: nn.Module
    generator: Generator | None
    config: dict[str, Any]
    data: BaselineConfig
    """The configuration whose source and target it was trained on."""
    origin: RunFolder
    """The run of this configuration: the folder itself, or the run that a refinement started from."""
    judge: nn.Module | None = None
    """T of the source alone, where the run trained one beside."""


def open_run(run: Path, rule: str = "auto", finished: bool = True) -> Opened:
    """Open a run of PixelDA, its baseline, or a refinement.

    finished: refuse a run that is not, unless a rule is named.
    Raises InputError where it is none of these, or damaged.
    """
    folder = RunFolder.open(run)
    system = folder.read_record().get("system")
    return _refined(folder, rule, finished) if system == SYSTEM else _trained(run, rule, finished)


def rebuilt(config: dict[str, Any], classes: int, size: int) -> nn.Module:
    """Return a classifier of a run's configuration, its weights not yet loaded.

    config: as the run or an exported file keeps it; what earlier versions did not write has its default.
    """
    network = config.get("network", {})
    if network.get("kind") == "strong":
        return StrongClassifier(classes, network["width"], network["dropout"])
    own = AdaptedClassifierConfig.parse(config.get("classifier", {}), "classifier")
    return make_classifier(own, classes, size, own.private_first_layer)


def describe_classifier(config: dict[str, Any]) -> str:
    """Return kind and width of the classifier that `rebuilt` returns for a run's configuration."""
    network = config.get("network", {})
    if network.get("kind") == "strong":
        return f"strong of width {network['width']}"
    return AdaptedClassifierConfig.parse(config.get("classifier", {}), "classifier").describe()


def _trained(run: Path, rule: str, finished: bool) -> Opened:
    found = TrainedRun(run, rule, finished)
    config = found.config
    return Opened(
        folder=found.folder,
        system=found.system,
        classes=found.classes,
        size=config.data.size,
        rule=found.rule,
        images=found.weights.images,
        batch_size=config.training.batch_size,
        seed=config.seed,
        classifier=found.weights.classifier,
        generator=found.weights.generator,
        config=config.model_dump(mode="json"),
        data=config,
        origin=found.folder,
        judge=found.weights.judge,
    )


def likely_better(opened: Opened) -> Opened:
    """Return the run as it is, or with T of the source alone in place of the adapted T, as the verdict of its evaluation says.

    Raises InputError where it has no verdict on these weights.
    """
    path, judged = opened.folder.evaluation, opened.judge is not None and opened.rule != START
    found = Evaluation.load(path) if judged and path.is_file() else None
    if found is None or found.verdict is None:
        raise InputError(
            f"{opened.folder.path} has no verdict on whether adaptation helps; train with --judge and evaluate it, or drop "
            "--choose auto."
        )
    if (found.rule, found.images) != (opened.rule, opened.images):
        raise InputError(f"The verdict of {opened.folder.path} is on other weights; evaluate the run again.")
    return source_only(opened) if found.verdict.better == "source only" else opened


def source_only(opened: Opened) -> Opened:
    """Return the run with T of the source alone in place of the adapted T; it must have one."""
    assert opened.judge is not None
    config = {**opened.config, "classifier": {**opened.config["classifier"], "private_first_layer": False}}
    return replace(opened, system="baseline", classifier=opened.judge, generator=None, judge=None, config=config)


def _refined(folder: RunFolder, rule: str, finished: bool) -> Opened:
    config: RefineConfig = read_refine_config(folder)
    if rule == "auto":
        if finished:
            folder.require_finished()
        if _kept(folder) == START:
            return _started_from(folder, config)
    elif rule not in ("last", "ema-last"):
        raise InputError(f"A refinement has no checkpoint by the rule {rule!r}; choose ema-last, its headline.")
    origin = _origin(folder, config)
    data, _ = read_config(origin)
    files = folder.checkpoint_files()
    if not files:
        raise InputError(f"{folder.path} has no checkpoint yet; let the training reach its first one.")
    tensors, header = checkpoint.load(files[-1])
    classes = tuple(folder.read_record().get("classes", ()))
    dump = {**data.model_dump(mode="json"), **config.model_dump(mode="json")}
    classifier = rebuilt(dump, len(classes), data.data.size)
    _load(classifier, tensors, str(files[-1]))
    return Opened(
        folder=folder,
        system=SYSTEM,
        classes=classes,
        size=data.data.size,
        rule="ema-last",
        images=header.progress.images,
        batch_size=config.training.batch_size,
        seed=config.seed,
        classifier=classifier,
        generator=None,
        config=dump,
        data=data,
        origin=origin,
    )


def _kept(folder: RunFolder) -> str | None:
    """Return what the last evaluation of a refinement says is kept of its newest weights."""
    newest = folder.checkpoint_files()[-1:]
    if not newest or not folder.evaluation.is_file():
        return None
    found = RefinementResult.load(folder.evaluation)
    return found.guard.kept if newest[0].stem == f"images-{found.images:012d}" else None


def _started_from(folder: RunFolder, config: RefineConfig) -> Opened:
    """Return the T that a refinement started from, under the refinement's name."""
    opened = _trained(_origin(folder, config).path, config.rule, finished=True)
    if config.choose == "source-only":
        opened = source_only(opened)
    return replace(opened, folder=folder, rule=START)


def _origin(folder: RunFolder, config: RefineConfig) -> RunFolder:
    return RunFolder.open(Path(located_runs(folder, config, teacher=False).run))


def _load(classifier: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    own = {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items() if name.startswith(AVERAGE)}
    try:
        classifier.load_state_dict(own)
    except RuntimeError:
        raise InputError(f"{origin} holds other networks than the run's config.yaml describes; restore that file.") from None
    classifier.eval().requires_grad_(False)
