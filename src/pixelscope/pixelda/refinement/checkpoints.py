"""Trained weights of a refinement: the moving average of its newest checkpoint, or the T that it started from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import (
    START,
    Checkpoint,
    load_checkpoint,
    load_weights,
    newest_file,
    read_run,
    source_only,
)
from pixelscope.pixelda.config import AdaptedClassifierConfig
from pixelscope.pixelda.networks import make_classifier
from pixelscope.pixelda.places import StoredRun
from pixelscope.pixelda.refinement.networks import StrongClassifier
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.pixelda.refinement.settings import SYSTEM, StoredRefinement, read_refinement
from pixelscope.runs.folder import RunFolder

HEADLINE = "ema-last"


def load_refinement(stored: StoredRefinement, rule: str = "auto", finished: bool = True) -> Checkpoint:
    """Return the classifier of a refinement.

    Args:
        stored: the refinement.
        rule: `ema-last`, or `auto`, which is the T that it started from where its evaluation says that it likely harms.
        finished: refuse a refinement that is not, unless a rule is named.

    Raises:
        InputError: its folder or that of the run it started from is damaged, or there is no checkpoint by the rule.
    """
    if rule == "auto":
        if finished:
            stored.folder.require_finished(stored.record)
        if _kept(stored.folder) == START:
            return _started_from(stored)
    elif rule not in ("last", HEADLINE):
        raise InputError(f"A refinement has no checkpoint by the rule {rule!r}; choose ema-last, its headline.")
    return _newest(stored)


def load_teacher(path: Path, rule: str) -> Checkpoint:
    """Return the checkpoint of a run of PixelDA, its baseline, or a refinement, that is to label target images."""
    folder = RunFolder.open(path)
    record = folder.read_record()
    if record.get("system") == SYSTEM:
        return load_refinement(read_refinement(folder, record), rule)
    return load_checkpoint(read_run(folder, record), rule)


def build_classifier(settings: Mapping[str, Any], classes: int, size: int) -> nn.Module:
    """Return the classifier of a run or a refinement, its weights not yet loaded.

    settings: the configuration as an exported file keeps it; what earlier versions did not write has its default.
    """
    network = settings.get("network", {})
    if network.get("kind") == "strong":
        return StrongClassifier(classes, network["width"], network["dropout"])
    own = AdaptedClassifierConfig.parse(settings.get("classifier", {}), "classifier")
    return make_classifier(own.kind, classes, size, own.width, own.private_first_layer)


def describe_classifier(settings: Mapping[str, Any]) -> str:
    """Return kind and width of the classifier that `build_classifier` returns for the same settings."""
    network = settings.get("network", {})
    if network.get("kind") == "strong":
        return f"strong of width {network['width']}"
    return AdaptedClassifierConfig.parse(settings.get("classifier", {}), "classifier").describe()


def _newest(stored: StoredRefinement) -> Checkpoint:
    origin, path = _origin(stored), newest_file(stored.folder)
    tensors, header = checkpoint.load(path)
    classes = tuple(stored.record.get("classes", ()))
    settings = {**origin.config.model_dump(mode="json"), **stored.config.model_dump(mode="json")}
    classifier = build_classifier(settings, len(classes), origin.config.data.size)
    remedy = f"{path} holds other networks than the run's config.yaml describes; restore that file."
    load_weights(classifier, tensors, "average.classifier.", remedy)
    return Checkpoint(
        folder=stored.folder,
        record=stored.record,
        run=origin,
        system=SYSTEM,
        classes=classes,
        rule=HEADLINE,
        images=header.progress.images,
        batch_size=stored.config.training.batch_size,
        seed=stored.config.seed,
        settings=settings,
        classifier=classifier,
        generator=None,
    )


def _kept(folder: RunFolder) -> str | None:
    """Return what the last evaluation of a refinement says is kept of its newest weights."""
    newest = folder.checkpoint_files()[-1:]
    if not newest or not folder.evaluation.is_file():
        return None
    found = RefinementResult.load(folder.evaluation)
    return found.guard.kept if newest[0].stem == f"images-{found.images:012d}" else None


def _started_from(stored: StoredRefinement) -> Checkpoint:
    """Return the T that a refinement started from, under the refinement's name."""
    found = load_checkpoint(_origin(stored), stored.config.rule)
    if stored.config.choose == "source-only":
        found = source_only(found)
    return replace(found, folder=stored.folder, record=stored.record, rule=START)


def _origin(stored: StoredRefinement) -> StoredRun:
    return read_run(RunFolder.open(Path(stored.located(teacher=False).run)))
