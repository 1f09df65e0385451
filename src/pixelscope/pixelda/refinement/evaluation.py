"""Evaluation of a refinement; the only place of it where target labels are read.

The headline is the moving average at the end of the fixed schedule. Rules that choose a checkpoint without target labels stand
beside it, and the best by target labels, called the oracle, with the gap that each leaves.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pixelscope.data.rows import spread
from pixelscope.engine.memory import keep_freed_memory
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.pixelda.evaluation import SetResult, set_result, unmeasured_notes
from pixelscope.pixelda.measured_sets import MeasuredSet, accuracies, measure, measure_all, own_sets
from pixelscope.pixelda.opened import open_run
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.guard import Guard, guard
from pixelscope.pixelda.refinement.selection import SELECTORS, chosen, selector_values
from pixelscope.pixelda.refinement.settings import SYSTEM, located_runs, read_refine_config
from pixelscope.pixelda.refinement.training import Material, build_classifier, load_material, redrawn_validation
from pixelscope.pixelda.verdict import IMAGES, answers_of

HEADLINE = "ema-last"
ORACLE = "oracle: chosen with target labels"


@dataclass(frozen=True)
class Chosen:
    """What a rule chooses, and what that reaches."""

    rule: str
    images: int
    target_test: float | None
    """None where the target has no labels to measure by."""
    gap: float | None
    """By how much the oracle is better."""


@dataclass(frozen=True)
class Refined:
    """What a refinement reaches; the content of evaluation.json."""

    system: str
    run: str
    """The run that it started from."""
    images: int
    classes: list[str]
    rule: str
    sets: dict[str, SetResult]
    """By the headline rule."""
    before: dict[str, float]
    """Accuracy of the T that it started from."""
    rules: list[Chosen]
    curve: list[dict[str, float]]
    """By snapshot: images, accuracies, and what each rule that needs no target label says."""
    parameters: int
    guard: Guard
    """Whether it likely helps, told without target labels, and which classifier is used."""
    notes: tuple[str, ...] = ()
    """What was given and not measured, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return tables for a terminal."""
        lines = [f"{self.system} from {self.run}: {self.images:,} images of each kind, {self.parameters:,} parameters"]
        for name, found in self.sets.items():
            before = f", before {self.before[name]:.2%}" if name in self.before else ""
            lines.append(
                f"{name}: {found.accuracy:.2%} +- {found.standard_error:.2%} ({found.correct:,} of {found.count:,}){before}"
            )
        lines.append("target test by the rule that chose the checkpoint")
        for one in self.rules:
            reached = "not known" if one.target_test is None else f"{one.target_test:.2%}"
            gap = "" if one.gap is None else f", {100 * one.gap:.2f} points under the oracle"
            lines.append(f"  {one.rule:<36} {reached:>9} at {one.images:,} images{gap}")
        return "\n".join([*lines, *self.notes, self.guard.to_text()])


def evaluate_refinement(run: Path, *, data_root: Path | None = None) -> Refined:
    """Measure a refinement on both domains' test splits and store evaluation.json; raises InputError where there is none.

    What is measured are the weights that are exported and used: the averages in the newest checkpoint.
    """
    keep_freed_memory()
    folder = RunFolder.open(run)
    config = read_refine_config(folder)
    material = load_material(located_runs(folder, config, teacher=False), data_root, training=False)
    refined = open_run(run, HEADLINE)
    last, snapshots = refined.images, stored_snapshots(folder, config, material)
    networks = {images: network for images, network in snapshots.items() if images < last}
    sets, classes = own_sets(material.domains), list(material.opened.classes)
    counts, before = (measure_all(network, sets) for network in (refined.classifier, material.start))
    tests = {name: images for name, images in sets.items() if name == "target_test"}
    curve = [_point(images, network, material, accuracies(measure_all(network, tests))) for images, network in networks.items()]
    curve.append(_point(last, refined.classifier, material, accuracies({name: counts[name] for name in tests})))
    result = Refined(
        system=SYSTEM,
        run=config.run,
        images=last,
        classes=classes,
        rule=HEADLINE,
        sets={name: set_result(name, found, classes) for name, found in counts.items()},
        before=accuracies(before),
        rules=_rules(curve, last),
        curve=curve,
        parameters=sum(p.numel() for p in refined.classifier.parameters()),
        guard=_guard(config, material, refined.classifier),
        notes=unmeasured_notes(material.domains),
    )
    write_text(folder.evaluation, json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def stored_snapshots(folder: RunFolder, config: RefineConfig, material: Material) -> dict[int, nn.Module]:
    """Return the averaged classifiers stored along the way, by images seen, in evaluation mode; not the initial one."""
    found: dict[int, nn.Module] = {}
    for path in sorted(folder.classifiers.glob("*.safetensors")):
        network = build_classifier(config, material)
        try:
            tensors = load_file(path)
            own = {name.removeprefix("ema."): tensor for name, tensor in tensors.items() if name.startswith("ema.")}
            network.load_state_dict(own)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(
                f"{path} is damaged ({' '.join(str(error).split())[:120]}); delete it to go on without it."
            ) from None
        if int(path.stem) > 0:
            found[int(path.stem)] = network.eval().requires_grad_(False)
    return found


def _guard(config: RefineConfig, material: Material, refined: nn.Module) -> Guard:
    redrawn = redrawn_validation(material, config.seed) if config.generated.use else None
    source, threshold = material.source.validation, config.self_training.threshold
    return guard(material.start, refined, material.held_out, source, redrawn, threshold)


def _point(images: int, network: nn.Module, material: Material, reached: dict[str, float]) -> dict[str, float]:
    """Return a point of the curve: what is reached on the target's test split, and what the rules say of images held out."""
    logits, features = answers_of(network, spread(material.held_out.images, IMAGES))
    known = measure(network, MeasuredSet("source, held out", [material.source.validation], source=True))
    return {"images": float(images), **reached, **selector_values(logits, features, accuracies({"": known})[""])}


def _rules(curve: list[dict[str, float]], last: int) -> list[Chosen]:
    reached = {int(point["images"]): point.get("target_test") for point in curve}
    values = {int(point["images"]): {rule: point[rule] for rule in SELECTORS} for point in curve}
    picks = {HEADLINE: last, **chosen(values)}
    known = {images: value for images, value in reached.items() if value is not None}
    if known:
        picks[ORACLE] = max(sorted(known, reverse=True), key=lambda images: known[images])
    best = max(known.values(), default=None)
    gaps = {images: None if best is None else best - known[images] for images in reached}
    return [Chosen(rule, images, known.get(images), gaps[images]) for rule, images in picks.items()]
