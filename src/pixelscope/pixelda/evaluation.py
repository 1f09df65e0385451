"""Evaluation of a run on both domains; the only place of PixelDA where target labels are read.

Headline numbers come from a checkpoint chosen without target labels. The one that would have been best on the target's
test split is found too, from the classifiers stored along the way, and called the oracle wherever it is shown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelscope.engine.memory import keep_freed_memory
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import Checkpoint, default_rule, list_checkpoints, read_run, stored_classifiers
from pixelscope.pixelda.domains import Domains, load_own
from pixelscope.pixelda.galleries import write_galleries
from pixelscope.pixelda.measured_sets import MeasuredSet, accuracies, measure, measure_all, other_sets, own_sets
from pixelscope.pixelda.places import StoredRun
from pixelscope.pixelda.results import ORACLE, ClassAccuracy, CurvePoint, Evaluation, Oracle, RuleResult, SetResult
from pixelscope.pixelda.verdict import compare
from pixelscope.runs.folder import RunFolder, read_stats


def evaluate_pixelda(
    run: Path,
    *,
    source: str | None = None,
    target: str | None = None,
    rule: str = "auto",
    data_root: Path | None = None,
) -> Evaluation:
    """Measure a run on its own domains, or on others, and return the numbers.

    source, target: images to measure in place of the run's own; the result is then returned and not stored in the run. Images
        that the run trained on, or whose digits it trained on, are left out of every set but `target_test_partly_seen`, which
        then shows the whole test split.
    rule: `last`, `ema-last` or `best-source`. `auto` is ema-last for PixelDA (last where no average was kept), and for
    a baseline best-source where source images were held out for validation, else last.
    Raises InputError where the run has no checkpoint, the rule is not available, the classes differ, no image is left, or the
    run's own images have changed since the training.
    """
    keep_freed_memory()
    stored = read_run(RunFolder.open(run))
    if source is None and target is None:
        return _measure_own(stored, rule, data_root)
    sets, classes = other_sets(stored, source, target, data_root)
    _check_classes(stored, classes)
    found = list_checkpoints(stored)
    return _evaluation(stored, sets, found, default_rule(rule, stored.system, found))


def unfinished_notes(newest: Checkpoint) -> tuple[str, ...]:
    """Return a sentence for a training that has not come to its end, of which the newest checkpoint is measured."""
    if newest.record.get("state") == "finished":
        return ()
    goal = newest.settings["training"]["images"]
    return (f"The training is not finished: its newest checkpoint, after {newest.images:,} of {goal:,} images, is measured.",)


def unmeasured_notes(domains: Domains) -> tuple[str, ...]:
    """Return a sentence for a target that was given and cannot be measured."""
    why = domains.target_unmeasured
    return (f"Accuracy on the target is not known: {why}",) if why else ()


def set_result(title: str, counts: Tensor, classes: list[str]) -> SetResult:
    """Return the result that confusion counts (rows true, columns predicted) stand for."""
    count, correct = int(counts.sum()), int(counts.trace())
    accuracy = correct / count
    rows = zip(classes, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return SetResult(
        title=title,
        count=count,
        correct=correct,
        accuracy=accuracy,
        standard_error=(accuracy * (1 - accuracy) / count) ** 0.5,
        per_class=tuple(ClassAccuracy(name=name, count=n, accuracy=hits / n if n else None) for name, hits, n in rows),
        confusion=counts.tolist(),
    )


def _measure_own(run: StoredRun, rule: str, data_root: Path | None) -> Evaluation:
    """Measure a run on its own domains; stores the numbers and the pictures of the report."""
    domains = load_own(run, data_root)
    _check_classes(run, domains.classes)
    found = list_checkpoints(run)
    headline, sets = default_rule(rule, run.system, found), own_sets(domains)
    result = _evaluation(run, sets, found, headline)
    notes = (*unfinished_notes(found["last"]), *unmeasured_notes(domains))
    result = result.model_copy(update={"notes": notes, **_against_source_only(domains, sets, found[headline])})
    result.save(run.folder.evaluation)
    write_galleries(domains, found[headline])
    return result


def _against_source_only(domains: Domains, sets: Mapping[str, MeasuredSet], chosen: Checkpoint) -> dict[str, Any]:
    """Return what T of the source alone reaches, and whether adaptation likely helps; nothing where the run has none."""
    if chosen.judge is None:
        return {}
    judge = chosen.judge
    held_out = domains.source.validation if len(domains.source.validation) else domains.source.train
    verdict = compare(judge, chosen.classifier, domains.training_target(), held_out)
    return {"source_only": accuracies(measure_all(judge, sets)), "verdict": verdict}


def _evaluation(run: StoredRun, sets: Mapping[str, MeasuredSet], found: Mapping[str, Checkpoint], headline: str) -> Evaluation:
    counts = {rule: measure_all(one.classifier, sets) for rule, one in found.items()}
    curve = _curve(found["last"], sets.get("target_test"))
    chosen = found[headline]
    classes = list(chosen.classes)
    return Evaluation(
        system=run.system,
        images=chosen.images,
        steps=chosen.images // chosen.batch_size,
        classes=classes,
        rule=headline,
        rules={rule: RuleResult(images=one.images, **accuracies(counts[rule])) for rule, one in found.items()},
        sets={name: set_result(sets[name].title, counted, classes) for name, counted in counts[headline].items()},
        oracle=_oracle(curve),
        curve=curve,
    )


def _curve(last: Checkpoint, target: MeasuredSet | None) -> list[CurvePoint]:
    """Return accuracies over the run: the source's as training measured them, the target's from stored classifiers."""
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


def _oracle(curve: list[CurvePoint]) -> Oracle | None:
    candidates = [
        (value, point.images) for point in curve for value in (point.target_test, point.ema_target_test) if value is not None
    ]
    if not candidates:
        return None
    accuracy, images = max(candidates)
    return Oracle(label=ORACLE, images=images, target_test=accuracy)


def _check_classes(run: StoredRun, given: tuple[str, ...]) -> None:
    trained = tuple(run.record.get("classes", ()))
    if trained != given:
        raise InputError(
            f"The run {run.folder.path} knows the classes {_listed(trained)} and the source given has {_listed(given)}; "
            "evaluate on images of the same classes."
        )


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
