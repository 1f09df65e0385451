"""Evaluates a run on both domains. PixelDA reads target labels here only.

Headline numbers are of a checkpoint chosen without target labels. The oracle is the stored classifier that is best on the
target's test split; it uses target labels and is always called the oracle.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data.imageset import ImageSet, Mask
from pixelscope.data.sources.relocate import MovedError
from pixelscope.data.split import Split, own_test_mask
from pixelscope.errors import InputError
from pixelscope.files import keep_heap
from pixelscope.pixelda.checkpoints import Checkpoint, default_checkpoint, list_checkpoints, read_run, stored_classifiers
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.data import RENAME, Domains, SeenImages, StoredRun, load_domain, load_own, with_classes_of
from pixelscope.pixelda.metrics import MeasuredSet, accuracies, discordant, measure, measure_all, set_result
from pixelscope.pixelda.results import ORACLE, UNFINISHED, CheckpointResult, CurvePoint, Evaluation, Oracle
from pixelscope.pixelda.samples import write_galleries
from pixelscope.pixelda.verdict import compare
from pixelscope.runs.folder import RunFolder, read_stats


def evaluate_pixelda(
    run: Path,
    *,
    source: str | None = None,
    target: str | None = None,
    checkpoint: str = "auto",
    data_root: Path | None = None,
    take_over: bool = False,
) -> Evaluation:
    """Measure a run on its own domains, or on others.

    Results on the run's own domains are written to evaluation.json, unless another process holds the run's lock, for example to
    train it; results on other images are only returned.

    Args:
        run: the run folder.
        source: source images to measure instead of the run's own.
        target: target images to measure instead of the run's own. Images in the run's training splits, and other images of
            the same digits, are left out. The set `target_test_partly_seen` then has the whole test split.
        checkpoint: `last`, `ema-last` or `best-source`. `auto` is ema-last for PixelDA (last if there is no average). For a
            baseline it is best-source if source images were held out for validation, else last.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Returns:
        The results.

    Raises:
        InputError: the run does not have the checkpoint, classes differ, no image is left to measure, or the run's own images
            have changed since the training.

    Example:
        >>> pixelscope.evaluate(Path("runs/adapted")).sets["target_test"].accuracy
    """
    keep_heap()
    stored = read_run(RunFolder.open(run))
    if source is None and target is None:
        with stored.folder.locked_if_free("evaluated", take_over) as may_write:
            return _measure_own(stored, checkpoint, data_root, may_write)
    sets, classes, notes = other_sets(stored, source, target, data_root)
    _check_classes(stored, classes)
    found = list_checkpoints(stored)
    result = _evaluation(stored, sets, found, default_checkpoint(checkpoint, stored.system, found))
    return result.model_copy(update={"notes": (*result.notes, *notes)})


def unfinished_notes(newest: Checkpoint) -> tuple[str, ...]:
    """Return a note if the training is not finished."""
    if newest.record.get("state") == "finished":
        return ()
    goal = newest.settings["training"]["images"]
    return (f"{UNFINISHED}: {newest.images:,} of {goal:,} images are done.",)


def grouped_notes(sets: Mapping[str, MeasuredSet]) -> tuple[str, ...]:
    """Return a note if images of a set are in groups, whose members are alike."""
    groups = [part.groups for one in sets.values() for part in one.parts if part.groups is not None]
    if all(len(np.unique(some)) == len(some) for some in groups):
        return ()
    return ("Images of one group of --data.group-by are not independent, so standard errors are too small.",)


def unmeasured_notes(domains: Domains) -> tuple[str, ...]:
    """Return a note if the given target cannot be measured."""
    why = domains.target_unmeasured
    return (f"The accuracy on the target is not known: {why}",) if why else ()


def leak_notes(domains: Domains, names: Collection[str] = ("source", "target")) -> tuple[str, ...]:
    """Return a note per domain of `names` and kind of test images that are copies of images that the run trained on."""
    parts = {"source": domains.source, "target": domains.target}
    return tuple(
        f"The accuracy on the {role}'s test split may be too high: {leak}"
        for role, split in parts.items()
        if role in names and split is not None and split.test.labels is not None
        for leak in split.leaks
    )


def _measure_own(run: StoredRun, checkpoint: str, data_root: Path | None, may_write: bool) -> Evaluation:
    """Measure a run on its own domains; writes evaluation.json and the galleries of the report where it may."""
    domains = load_own(run, data_root)
    _check_classes(run, domains.classes)
    found = list_checkpoints(run)
    headline, sets = default_checkpoint(checkpoint, run.system, found), own_sets(domains)
    result = _evaluation(run, sets, found, headline)
    notes = (*result.notes, *unmeasured_notes(domains), *leak_notes(domains))
    result = result.model_copy(update={"notes": notes, **_against_source_only(domains, sets, found[headline])})
    if may_write:
        write_galleries(domains, found[headline])
        result.save(run.folder.evaluation)  # last, because an ablation takes a run with it for done
    return result


def _against_source_only(domains: Domains, sets: Mapping[str, MeasuredSet], chosen: Checkpoint) -> dict[str, Any]:
    """Return the accuracies of the judge, and whether adaptation likely helps, with and without target labels.

    Nothing is returned if the run has no judge.
    """
    if chosen.judge is None:
        return {}
    judge = chosen.judge
    verdict = compare(judge, chosen.classifier, domains.training_target(), domains.held_out_source())
    tests = sets.get("target_test")
    differing = None if tests is None else discordant(judge, chosen.classifier, tests)
    return {"source_only": accuracies(measure_all(judge, sets)), "discordant": differing, "verdict": verdict}


def _evaluation(run: StoredRun, sets: Mapping[str, MeasuredSet], found: Mapping[str, Checkpoint], headline: str) -> Evaluation:
    counts = {name: measure_all(one.classifier, sets) for name, one in found.items()}
    curve = _curve(found["last"], sets.get("target_test"))
    chosen = found[headline]
    classes = list(chosen.classes)
    checkpoints = {name: CheckpointResult(images=one.images, **accuracies(counts[name])) for name, one in found.items()}
    return Evaluation(
        system=run.system,
        images=chosen.images,
        steps=chosen.images // chosen.batch_size,
        classes=classes,
        checkpoint=headline,
        checkpoints=checkpoints,
        sets={name: set_result(sets[name].title, counted, classes) for name, counted in counts[headline].items()},
        oracle=_oracle(curve, checkpoints.values()),
        curve=curve,
        notes=(*unfinished_notes(found["last"]), *grouped_notes(sets)),
    )


def _curve(last: Checkpoint, target: MeasuredSet | None) -> list[CurvePoint]:
    """Return accuracies over the run: the source's from the training's log, the target's from stored classifiers."""
    measured = {line["images"]: line for line in read_stats(last.folder.stats) if line["kind"] == "evaluation"}
    points = []
    for images, classifiers in stored_classifiers(last.run, last.images):
        known = measured.get(images, {})
        found = {name: known.get(f"accuracy/{name}") for name in ("source_train", "source_test")}
        if target is not None:
            names = {"last": "target_test", "ema": "ema_target_test"}
            found |= accuracies({names[which]: measure(network, target) for which, network in classifiers.items()})
        points.append(CurvePoint(images=images, step=images // last.batch_size, **found))
    return points


def _oracle(curve: Iterable[CurvePoint], checkpoints: Iterable[CheckpointResult]) -> Oracle | None:
    """Return the best classifier by target labels, of those stored along the way and of the checkpoints.

    A training that was stopped has newer weights in its checkpoints than along the way.
    """
    measured = [(value, point.images) for point in curve for value in (point.target_test, point.ema_target_test)]
    measured += [(one.target_test, one.images) for one in checkpoints]
    known = [(value, images) for value, images in measured if value is not None]
    if not known:
        return None
    accuracy, images = max(known)
    return Oracle(label=ORACLE, images=images, target_test=accuracy)


def _check_classes(run: StoredRun, given: tuple[str, ...]) -> None:
    trained = tuple(run.record.get("classes", ()))
    if trained != given:
        raise InputError(
            f"The run {run.folder.path} has the classes {_listed(trained)}, but the given source has {_listed(given)}; "
            "evaluate on images of the same classes."
        )


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")


def own_sets(domains: Domains) -> dict[str, MeasuredSet]:
    """Return the run's own sets: the source's test split; if the target has labels, its test split and all its images."""
    source, target = domains.source, domains.target
    sets = {"source_test": MeasuredSet(f"{_origin(source.test)}, source test split", [source.test], source=True)}
    if target is None:
        return sets
    if not domains.aligned and source.train.collection is not None and source.train.collection == target.train.collection:
        return _sets_of_one_collection(domains, target)
    if target.test.labels is not None:
        sets["target_test"] = MeasuredSet(f"{_origin(target.test)}, target test split", [target.test], source=False)
        all_of_it = [target.test, target.train]
        sets["target_all"] = MeasuredSet(f"{_origin(target.test)}, all target images", all_of_it, source=False)
    return sets


def _sets_of_one_collection(domains: Domains, target: Split) -> dict[str, MeasuredSet]:
    """Return the own sets of two domains with digits of one collection but separate splits, without digits in training splits.

    Raises:
        InputError: a digit has different labels in source and target, or no digit is left.
    """
    for part in (target.train, target.test):
        _check_labels(domains, part)
    seen, source = SeenImages.of(domains), domains.source.test
    found = _unseen(source, seen.holds(source), "source test split", source=True)
    sets = _not_empty({"source_test": found}, source.provenance.source)
    if target.test.labels is None:
        return sets
    test = _unseen(target.test, seen.holds(target.test), "target test split", source=False)
    sets |= _not_empty({"target_test": test}, target.test.provenance.source)
    sets |= _partly_seen(target.test, len(target.test) - len(test))
    title = f"{_origin(target.test)}, all target images"
    return sets | {"target_all": MeasuredSet(title, [target.test, target.train], source=False)}


def _check_labels(domains: Domains, images: ImageSet) -> None:
    """Raise InputError if an image and its digit in the source have different labels: its file is wrongly numbered."""
    source = domains.source
    if images.items is None or images.labels is None or images.collection != source.train.collection:
        return
    known: dict[int, int] = {}
    for part in (source.train, source.validation, source.test):
        assert part.items is not None and part.labels is not None
        known |= dict(zip(part.items.tolist(), part.labels.tolist(), strict=True))
    for item, label in zip(images.items.tolist(), images.labels.tolist(), strict=True):
        if known.get(item, label) != label:
            raise InputError(
                f"An image of {images.provenance.source} has the label {images.classes[label]}, but its digit, {item} in "
                f"the source, has the label {images.classes[known[item]]}. A file is wrongly numbered; unpack the images again."
            )


def other_sets(
    run: StoredRun, source: str | None, target: str | None, data_root: Path | None = None
) -> tuple[dict[str, MeasuredSet], tuple[str, ...], tuple[str, ...]]:
    """Return the sets to measure a run on if `source` or `target` is given, the classes of the source, and notes.

    The notes are on the domain of the run that is measured as well, or on why it is not. Images in the run's training splits,
    and other images of the same digits, are left out of every set. The set `target_test_partly_seen` then has the whole test
    split of the target.

    Raises:
        InputError: no image is left to measure, the target has no labels of the run's classes, or images cannot be read.
    """
    seen, config = SeenImages.load(run.folder), run.config
    kept = [
        name for name, given, has in (("source", source, True), ("target", target, bool(config.target))) if has and not given
    ]
    own, notes = _own_domains(run, kept, seen, data_root)
    if seen is None:
        assert own is not None
        seen = SeenImages.of(own)
    classes = tuple(run.record.get("classes", ()))
    sets, data = {} if own is None else own_sets(own), config.data
    if source is not None:
        images = load_domain(source, data, data.source_values, data_root)
        sets, classes = _source_sets(source, images, seen, config) | _without(sets, "source"), images.classes
    if target is not None:
        images = load_domain(target, data, data.target_values, data_root)
        if images.labels is None:
            raise InputError(f"The target cannot be measured: {target} has no labels; give labelled images.")
        images, unmeasured = with_classes_of(images, classes, data.classes == "source", RENAME)
        if unmeasured:
            raise InputError(f"The target cannot be measured: {unmeasured}")
        if own is not None:
            _check_labels(own, images)
        sets = _without(sets, "target") | _target_sets(target, images, seen, config)
    return sets, classes, notes


def _own_domains(
    run: StoredRun, kept: Sequence[str], seen: SeenImages | None, data_root: Path | None
) -> tuple[Domains | None, tuple[str, ...]]:
    """Return the run's images if they are needed, and notes on the domains `kept`, which are measured.

    Without `seen` they are needed in any case. With it, they may have moved: then no domain of the run is measured.
    """
    if not kept and seen is not None:
        return None, ()
    try:
        own = load_own(run, data_root, ("source", "target") if seen is None else kept)
    except MovedError as error:
        if seen is None:
            raise
        return None, (f"The run's {kept[0]} is not measured. {error}",)
    return own, (*(unmeasured_notes(own) if "target" in kept else ()), *leak_notes(own, kept))


def _source_sets(spec: str, images: ImageSet, seen: SeenImages, config: BaselineConfig) -> dict[str, MeasuredSet]:
    if images.labels is None:
        raise InputError(f"{spec} has no labels; give labelled images.")
    chosen = own_test_mask(images, config.data.test_fraction, config.data.seed)
    known = _held(images, _as_target(images, config), seen)
    return _not_empty({"source_test": _unseen(images.select(chosen), known[chosen], "source test split", source=True)}, spec)


def _target_sets(spec: str, images: ImageSet, seen: SeenImages, config: BaselineConfig) -> dict[str, MeasuredSet]:
    framed = _as_target(images, config)
    chosen, known = own_test_mask(framed, config.data.test_fraction, config.data.seed), _held(images, framed, seen)
    test = framed.select(chosen)
    found = {
        "target_test": _unseen(test, known[chosen], "target test split", source=False),
        "target_all": _unseen(framed, known, "all target images", source=False),
    }
    return _not_empty(found, spec) | _partly_seen(test, int(known[chosen].sum()))


def _as_target(images: ImageSet, config: BaselineConfig) -> ImageSet:
    """Return images framed as the run's target was, if it was."""
    return images if config.data.framed is None else images.framed(config.data.framed)


def _held(images: ImageSet, framed: ImageSet, seen: SeenImages) -> Mask:
    """Return a mask (N,) of the images that the run trained on: from the source as they are, or framed from the target."""
    held = seen.holds(images)
    return held if framed is images else held | seen.holds(framed)


def _partly_seen(test: ImageSet, known: int) -> dict[str, MeasuredSet]:
    if not known:
        return {}
    seen = f"the run's training splits have {known:,} of these images or their digits"
    title = f"{_origin(test)}, target test split, partly seen: {seen}"
    return {"target_test_partly_seen": MeasuredSet(title, [test], source=False)}


def _not_empty(sets: dict[str, MeasuredSet], spec: str) -> dict[str, MeasuredSet]:
    left = {name: one for name, one in sets.items() if len(one)}
    if not left:
        raise InputError(
            f"The run's training splits have every image of {spec}, or its digit, so no image is left to measure; give other "
            "images."
        )
    return left


def _unseen(images: ImageSet, known: Mask, part: str, source: bool) -> MeasuredSet:
    """Return the images that are not `known` (N,): the run's training splits have those."""
    left_out = int(known.sum())
    note = f", without {left_out:,} images that the run's training splits have, or whose digits they have" if left_out else ""
    return MeasuredSet(f"{_origin(images)}, {part}{note}", [images.select(~known) if left_out else images], source)


def _without(sets: dict[str, MeasuredSet], domain: str) -> dict[str, MeasuredSet]:
    return {name: one for name, one in sets.items() if not name.startswith(domain)}


def _origin(images: ImageSet) -> str:
    return images.provenance.title
