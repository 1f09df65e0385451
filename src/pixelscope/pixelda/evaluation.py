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
from pixelscope.pixelda.chosen import RULES, Weights, available_weights, stored_classifiers
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.domains import Domains, load_own
from pixelscope.pixelda.galleries import write_galleries
from pixelscope.pixelda.measured_sets import MeasuredSet, accuracies, measure, measure_all, other_sets, own_sets
from pixelscope.pixelda.results import ORACLE, ClassAccuracy, CurvePoint, Evaluation, Oracle, RuleResult, SetResult
from pixelscope.pixelda.training import System, read_config
from pixelscope.pixelda.verdict import compare
from pixelscope.runs.folder import RunFolder, read_stats


def evaluate(
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
    folder = RunFolder.open(run)
    config, system = read_config(folder)
    if source is None and target is None:
        return _measure_own(folder, config, system, rule, data_root)
    sets, classes = other_sets(folder, config, source, target, data_root)
    _check_classes(folder, classes)
    weights = available_weights(folder, config, classes)
    return _evaluation(folder, system, config, classes, sets, weights, headline_rule(rule, system, weights))


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


def _measure_own(folder: RunFolder, config: BaselineConfig, system: System, rule: str, data_root: Path | None) -> Evaluation:
    """Measure a run on its own domains; stores the numbers and the pictures of the report."""
    domains = load_own(folder, config, data_root)
    _check_classes(folder, domains.classes)
    weights = available_weights(folder, config, domains.classes)
    headline = headline_rule(rule, system, weights)
    sets = own_sets(domains)
    result = _evaluation(folder, system, config, domains.classes, sets, weights, headline)
    found = {"notes": unmeasured_notes(domains), **_against_source_only(domains, sets, weights[headline])}
    result = result.model_copy(update=found)
    result.save(folder.evaluation)
    write_galleries(folder, domains, weights[headline], config)
    return result


def _against_source_only(domains: Domains, sets: Mapping[str, MeasuredSet], chosen: Weights) -> dict[str, Any]:
    """Return what T of the source alone reaches, and whether adaptation likely helps; nothing where the run has none."""
    if chosen.judge is None:
        return {}
    judge = chosen.judge
    held_out = domains.source.validation if len(domains.source.validation) else domains.source.train
    verdict = compare(judge, chosen.classifier, domains.training_target(), held_out)
    return {"source_only": accuracies(measure_all(judge, sets)), "verdict": verdict}


def _evaluation(
    folder: RunFolder,
    system: System,
    config: BaselineConfig,
    classes: tuple[str, ...],
    sets: Mapping[str, MeasuredSet],
    weights: Mapping[str, Weights],
    headline: str,
) -> Evaluation:
    counts = {rule: measure_all(chosen.classifier, sets) for rule, chosen in weights.items()}
    curve = _curve(folder, config, classes, sets.get("target_test"))
    return Evaluation(
        system=system,
        images=weights[headline].images,
        steps=weights[headline].images // config.training.batch_size,
        classes=list(classes),
        rule=headline,
        rules={rule: RuleResult(images=weights[rule].images, **accuracies(counts[rule])) for rule in weights},
        sets={name: set_result(sets[name].title, found, list(classes)) for name, found in counts[headline].items()},
        oracle=_oracle(curve),
        curve=curve,
    )


def _curve(folder: RunFolder, config: BaselineConfig, classes: tuple[str, ...], target: MeasuredSet | None) -> list[CurvePoint]:
    """Return accuracies over the run: the source's as training measured them, the target's from stored classifiers."""
    measured = {line["images"]: line for line in read_stats(folder.stats) if line["kind"] == "evaluation"}
    points = []
    for images, classifiers in stored_classifiers(folder, config, classes):
        known = measured.get(images, {})
        found = {name: known.get(f"accuracy/{name}") for name in ("source_train", "source_test")}
        if target is not None:
            names = {"last": "target_test", "ema": "ema_target_test"}
            found |= accuracies({names[which]: measure(network, target) for which, network in classifiers.items()})
        points.append(CurvePoint(images=images, step=images // config.training.batch_size, **found))
    return points


def _oracle(curve: list[CurvePoint]) -> Oracle | None:
    candidates = [
        (value, point.images) for point in curve for value in (point.target_test, point.ema_target_test) if value is not None
    ]
    if not candidates:
        return None
    accuracy, images = max(candidates)
    return Oracle(label=ORACLE, images=images, target_test=accuracy)


def headline_rule(rule: str, system: System, weights: Mapping[str, Weights]) -> str:
    """Return the rule that `rule` stands for, `auto` for the system's own; raises InputError where it is not available."""
    if rule == "auto":
        order = ("ema-last", "last") if system == "pixelda" else ("best-source", "last")
        return next(name for name in order if name in weights)
    if rule not in RULES:
        raise InputError(f"There is no checkpoint rule {rule!r}; choose one of {', '.join(RULES)}.")
    if rule not in weights:
        why = {
            "ema-last": "no average was kept (--training.ema-half-life 0)",
            "best-source": "no source images were held out (--data.validation-fraction 0)",
        }
        raise InputError(f"The rule {rule} is not available: {why[rule]}; choose one of {', '.join(weights)}.")
    return rule


def _check_classes(folder: RunFolder, given: tuple[str, ...]) -> None:
    trained = tuple(folder.read_record().get("classes", ()))
    if trained != given:
        raise InputError(
            f"The run {folder.path} knows the classes {_listed(trained)} and the source given has {_listed(given)}; "
            "evaluate on images of the same classes."
        )


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
