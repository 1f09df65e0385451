"""Evaluation of a run on both domains; the only place of PixelDA where target labels are read.

Headline numbers come from a checkpoint chosen without target labels. The one that would have been best on the target's
test split is found too, from the classifiers stored along the way, and called the oracle wherever it is shown.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelscope.engine.memory import keep_freed_memory
from pixelscope.engine.run import RunFolder, read_stats
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.pixelda.chosen import RULES, Weights, available_weights, stored_classifiers
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.domains import Domains, load_own
from pixelscope.pixelda.galleries import write_galleries
from pixelscope.pixelda.measured_sets import MeasuredSet, accuracies, measure, measure_all, other_sets, own_sets
from pixelscope.pixelda.training import System, read_config
from pixelscope.pixelda.verdict import Verdict, compare

ORACLE = "oracle: chosen with target labels"


@dataclass(frozen=True)
class SetResult:
    """Accuracy on one set of labelled images."""

    title: str
    count: int
    correct: int
    accuracy: float
    standard_error: float
    """Of the accuracy, binomial."""
    per_class: list[dict[str, Any]]
    confusion: list[list[int]]
    """Counts; rows the true class, columns the predicted one."""


@dataclass(frozen=True)
class Evaluation:
    """What a run reaches, by each rule of choosing a checkpoint; the content of evaluation.json."""

    system: str
    images: int
    steps: int
    classes: list[str]
    rule: str
    """The rule of the headline numbers in `sets`."""
    rules: dict[str, dict[str, float]]
    """Accuracies by each rule that needs no target label."""
    sets: dict[str, SetResult]
    oracle: dict[str, Any] | None
    """The best on the target's test split among the classifiers stored along the way."""
    curve: list[dict[str, float]]
    """Accuracies of the classifiers stored along the way."""
    notes: tuple[str, ...] = ()
    """What was given and not measured, with the reason."""
    source_only: dict[str, float] | None = None
    """Accuracies of T of the source alone on the same sets, where the run trained one beside."""
    verdict: Verdict | None = None
    """Whether adaptation likely helps, told without target labels; only where there is a T of the source alone."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.steps:,} steps; checkpoint rule {self.rule}"
        tables = ["\n".join(_set_lines(name, result, self.classes)) for name, result in self.sets.items()]
        return "\n\n".join([head, *tables, "\n".join(self._rule_lines()), *self.notes, *self._verdict_lines()])

    def _verdict_lines(self) -> list[str]:
        if self.verdict is None:
            return []
        lines = [self.verdict.to_text()]
        if "target_test" in self.sets and self.source_only is not None:
            before, after = self.source_only["target_test"], self.sets["target_test"].accuracy
            lines.append(f"With target labels: source only {before:.2%}, adapted {after:.2%} on the target's test split.")
        return ["\n".join(lines)]

    def _rule_lines(self) -> list[str]:
        lines = ["accuracy by checkpoint rule"]
        for rule, values in self.rules.items():
            accuracies = "  ".join(f"{name} {value:.2%}" for name, value in values.items() if name != "images")
            lines.append(f"  {rule:<12} {accuracies}")
        if self.oracle is not None:
            lines.append(f"  {'oracle':<12} target_test {self.oracle['target_test']:.2%}  (chosen with target labels)")
        return lines


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
        per_class=[{"class": name, "count": n, "accuracy": hits / n if n else None} for name, hits, n in rows],
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
    result = replace(result, notes=unmeasured_notes(domains), **_against_source_only(domains, sets, weights[headline]))
    write_text(folder.evaluation, json.dumps(result.to_dict(), indent=1) + "\n")
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
        rules={rule: {"images": weights[rule].images, **accuracies(counts[rule])} for rule in weights},
        sets={name: set_result(sets[name].title, found, list(classes)) for name, found in counts[headline].items()},
        oracle=_oracle(curve),
        curve=curve,
    )


def _curve(
    folder: RunFolder, config: BaselineConfig, classes: tuple[str, ...], target: MeasuredSet | None
) -> list[dict[str, float]]:
    """Return accuracies over the run: the source's as training measured them, the target's from stored classifiers."""
    measured = {line["images"]: line for line in read_stats(folder.stats) if line["kind"] == "evaluation"}
    points: list[dict[str, float]] = []
    for images, classifiers in stored_classifiers(folder, config, classes):
        known = measured.get(images, {})
        points.append({"images": images, "step": images // config.training.batch_size})
        points[-1] |= {n: known[f"accuracy/{n}"] for n in ("source_train", "source_test") if f"accuracy/{n}" in known}
        if target is not None:
            names = {"last": "target_test", "ema": "ema_target_test"}
            found = {names[which]: measure(network, target) for which, network in classifiers.items()}
            points[-1] |= accuracies(found)
    return points


def _oracle(curve: list[dict[str, float]]) -> dict[str, Any] | None:
    candidates = [
        (point[name], point["images"]) for point in curve for name in ("target_test", "ema_target_test") if name in point
    ]
    if not candidates:
        return None
    accuracy, images = max(candidates)
    return {"label": ORACLE, "images": images, "target_test": accuracy}


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


def _set_lines(name: str, result: SetResult, classes: list[str]) -> list[str]:
    width = max(5, *(len(c) for c in classes), *(len(str(n)) for row in result.confusion for n in row))
    head = (
        f"{name}: {result.accuracy:.2%} +- {result.standard_error:.2%} ({result.correct:,} of {result.count:,}), {result.title}"
    )
    lines = [head, "  " + " ".join(f"{c:>{width}}" for c in ("true", "acc.", *classes))]
    for entry, row in zip(result.per_class, result.confusion, strict=True):
        accuracy = "-" if entry["accuracy"] is None else f"{entry['accuracy']:.1%}"
        lines.append("  " + " ".join(f"{c:>{width}}" for c in (entry["class"], accuracy, *row)))
    return lines
