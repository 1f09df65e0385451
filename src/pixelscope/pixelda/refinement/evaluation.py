"""Evaluation of a refinement; the only place of it where target labels are read.

The headline is the moving average at the end of the fixed schedule. Rules that choose a checkpoint without target labels stand
beside it, and the best by target labels, called the oracle, with the gap that each leaves.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pixelscope.data.disk_array import spread
from pixelscope.engine.memory import keep_freed_memory
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import REFINED_RULE, load_checkpoint
from pixelscope.pixelda.evaluation import own_sets, unfinished_notes, unmeasured_notes
from pixelscope.pixelda.metrics import MeasuredSet, accuracies, measure, measure_all, set_result
from pixelscope.pixelda.refinement.config import SYSTEM, RefineConfig, read_refinement
from pixelscope.pixelda.refinement.guard import guard
from pixelscope.pixelda.refinement.results import Guard, RefinementResult, Selection, Snapshot
from pixelscope.pixelda.refinement.selection import chosen, selector_values
from pixelscope.pixelda.refinement.training import Material, build_classifier, load_material, redrawn_validation
from pixelscope.pixelda.results import ORACLE
from pixelscope.pixelda.verdict import IMAGES, answers_of
from pixelscope.runs.folder import RunFolder


def evaluate_refinement(run: Path, *, data_root: Path | None = None) -> RefinementResult:
    """Measure a refinement on both domains' test splits and store evaluation.json; raises InputError where there is none.

    What is measured are the weights that are exported and used: the averages in the newest checkpoint.
    """
    keep_freed_memory()
    stored = read_refinement(RunFolder.open(run))
    folder, config, refined = stored.folder, stored.config, load_checkpoint(stored, REFINED_RULE)
    material = load_material(config, data_root, training=False, run=refined.run)
    last, snapshots = refined.images, stored_snapshots(folder, config, material)
    networks = {images: network for images, network in snapshots.items() if images < last}
    sets, classes = own_sets(material.domains), list(material.opened.classes)
    counts, before = (measure_all(network, sets) for network in (refined.classifier, material.start))
    tests = {name: images for name, images in sets.items() if name == "target_test"}
    curve = [_point(images, network, material, accuracies(measure_all(network, tests))) for images, network in networks.items()]
    curve.append(_point(last, refined.classifier, material, accuracies({name: counts[name] for name in tests})))
    result = RefinementResult(
        system=SYSTEM,
        run=config.run,
        images=last,
        classes=classes,
        rule=REFINED_RULE,
        sets={name: set_result(name, found, classes) for name, found in counts.items()},
        before=accuracies(before),
        rules=_rules(curve, last),
        curve=curve,
        parameters=sum(p.numel() for p in refined.classifier.parameters()),
        guard=_guard(config, material, refined.classifier),
        notes=(*unfinished_notes(refined), *unmeasured_notes(material.domains)),
    )
    result.save(folder.evaluation)
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


def _point(images: int, network: nn.Module, material: Material, reached: dict[str, float]) -> Snapshot:
    """Return a point of the curve: what is reached on the target's test split, and what the rules say of images held out."""
    logits, features = answers_of(network, spread(material.held_out.images, IMAGES))
    known = measure(network, MeasuredSet("source, held out", [material.source.validation], source=True))
    rules = selector_values(logits, features, accuracies({"": known})[""])
    return Snapshot.model_validate({"images": images, **reached, **rules})


def _rules(curve: list[Snapshot], last: int) -> list[Selection]:
    reached = {point.images: point.target_test for point in curve}
    picks = {REFINED_RULE: last, **chosen({point.images: point.rules() for point in curve})}
    known = {images: value for images, value in reached.items() if value is not None}
    if known:
        picks[ORACLE] = max(sorted(known, reverse=True), key=lambda images: known[images])
    best = max(known.values(), default=None)
    gaps = {images: None if best is None else best - known[images] for images in reached}
    return [
        Selection(rule=rule, images=images, target_test=known.get(images), gap=gaps[images]) for rule, images in picks.items()
    ]
