"""Evaluation of a refinement, the only part of it that reads target labels.

The moving average at the end of the schedule, the T before and the mean of both are measured. The average is compared with
checkpoints selected by criteria without target labels, and with the oracle, which is selected by target labels.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pixelscope.data.disk_array import sampled
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.errors import InputError
from pixelscope.files import keep_heap
from pixelscope.pixelda.checkpoints import REFINED_CHECKPOINT, load_checkpoint, require_same_start
from pixelscope.pixelda.evaluation import grouped_notes, leak_notes, own_sets, unfinished_notes, unmeasured_notes
from pixelscope.pixelda.metrics import MeasuredSet, accuracies, measure, measure_all, set_result
from pixelscope.pixelda.networks import MeanClassifier
from pixelscope.pixelda.refinement.config import SYSTEM, RefineConfig, StoredRefinement, read_refinement
from pixelscope.pixelda.refinement.data import (
    GROUPS_HELD_OUT,
    RefinementInputs,
    build_classifier,
    class_frequencies,
    generated_validation,
    load_inputs,
)
from pixelscope.pixelda.refinement.guard import guard
from pixelscope.pixelda.refinement.results import SELECTORS, Guard, RefinementResult, Selection, Snapshot
from pixelscope.pixelda.results import ORACLE
from pixelscope.pixelda.verdict import MAX_IMAGES, answers_of, cluster_agreement, mutual_information
from pixelscope.runs.folder import RunFolder


def evaluate_refinement(run: Path, *, data_root: Path | None = None, take_over: bool = False) -> RefinementResult:
    """Measure a refinement on the test splits of both domains, and write evaluation.json.

    It measures the averages in the newest checkpoint (`sets`), the T that the refinement started from (`before`), and if the
    averages are of a new network, the mean of both (`mean`); `guard.kept` says which of them is exported and used. Nothing is
    written while another process holds the run's lock, for example to train it.

    Args:
        run: its run folder.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Raises:
        InputError: `run` is not a refinement with a checkpoint, or its images cannot be used.

    Example:
        >>> pixelscope.evaluate(Path("runs/refined")).sets["target_test"].accuracy
    """
    keep_heap()
    stored = read_refinement(RunFolder.open(run))
    with stored.folder.locked_if_free("evaluated", take_over) as may_write:
        result = _measure(stored, data_root)
        if may_write:
            result.save(stored.folder.evaluation)
    return result


def _measure(stored: StoredRefinement, data_root: Path | None) -> RefinementResult:
    folder, config, refined = stored.folder, stored.config, load_checkpoint(stored, REFINED_CHECKPOINT)
    inputs = load_inputs(config, data_root, training=False, run=refined.run)
    require_same_start(stored, inputs.opened)
    last, snapshots = refined.images, stored_snapshots(folder, config, inputs)
    networks = {images: network for images, network in snapshots.items() if images < last}
    sets, classes = own_sets(inputs.domains), list(inputs.opened.classes)
    counts, before = (measure_all(network, sets) for network in (refined.classifier, inputs.start))
    judged = _guard(config, inputs, refined.classifier, refined.record.get("state") == "finished")
    mean = MeanClassifier(inputs.start, refined.classifier, judged.start_weight) if config.network.is_new else None
    tests = {name: images for name, images in sets.items() if name == "target_test"}
    curve = [_point(images, network, inputs, accuracies(measure_all(network, tests))) for images, network in networks.items()]
    curve.append(_point(last, refined.classifier, inputs, accuracies({name: counts[name] for name in tests})))
    return RefinementResult(
        system=SYSTEM,
        run=config.run,
        images=last,
        classes=classes,
        checkpoint=REFINED_CHECKPOINT,
        sets={name: set_result(name, found, classes) for name, found in counts.items()},
        before=accuracies(before),
        start_sha256=weights_sha256(inputs.start),
        mean={} if mean is None else accuracies(measure_all(mean, sets)),
        selections=_selections(curve, last),
        curve=curve,
        parameters=sum(p.numel() for p in refined.classifier.parameters()),
        guard=judged,
        notes=(
            *unfinished_notes(refined),
            *grouped_notes(sets),
            *unmeasured_notes(inputs.domains),
            *leak_notes(inputs.domains),
            *_group_notes(stored, inputs),
        ),
    )


def _group_notes(stored: StoredRefinement, inputs: RefinementInputs) -> tuple[str, ...]:
    """Return a note on a refinement of before, which did not hold out whole groups."""
    if not inputs.has_groups or stored.record.get(GROUPS_HELD_OUT):
        return ()
    return ("Its criteria are too high, because it was trained on other images of the groups that it held out; refine again.",)


def stored_snapshots(folder: RunFolder, config: RefineConfig, inputs: RefinementInputs) -> dict[int, nn.Module]:
    """Return the averaged classifiers stored in training, by images seen, in evaluation mode, without the initial one."""
    found: dict[int, nn.Module] = {}
    for path in sorted(folder.classifiers.glob("*.safetensors")):
        network = build_classifier(config, inputs)
        try:
            tensors = load_file(path)
            own = {name.removeprefix("ema."): tensor for name, tensor in tensors.items() if name.startswith("ema.")}
            network.load_state_dict(own)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise InputError(
                f"{path} is damaged ({' '.join(str(error).split())[:120]}); delete it to evaluate without it."
            ) from None
        if int(path.stem) > 0:
            found[int(path.stem)] = network.eval().requires_grad_(False)
    return found


def _guard(config: RefineConfig, inputs: RefinementInputs, refined: nn.Module, finished: bool) -> Guard:
    redrawn = generated_validation(inputs, config.seed) if config.generated.enabled else None
    source, threshold = inputs.source.validation, config.self_training.threshold
    frequencies = class_frequencies(inputs.source.train).tolist()
    return guard(
        inputs.start,
        refined,
        inputs.holdout,
        source,
        redrawn,
        threshold,
        frequencies=frequencies,
        independent=config.network.is_new,
        finished=finished,
    )


def _point(images: int, network: nn.Module, inputs: RefinementInputs, reached: dict[str, float]) -> Snapshot:
    """Return the accuracy on the target's test split, and the value of each criterion on held-out images."""
    logits, features = answers_of(network, sampled(inputs.holdout.images, MAX_IMAGES))
    known = measure(network, MeasuredSet("source, held out", [inputs.source.validation], source=True))
    return Snapshot(
        images=images,
        cluster_agreement=cluster_agreement(logits, features),
        information=mutual_information(logits),
        source_validation=accuracies({"": known})[""],
        **reached,
    )


def select_checkpoints(values: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """Return the images seen at the checkpoint that each criterion selects; the later one of equals.

    values: by images seen, then by criterion.
    """
    newest_first = sorted(values, reverse=True)
    return {name: max(newest_first, key=lambda images: values[images][name]) for name in SELECTORS}


def _selections(curve: list[Snapshot], last: int) -> list[Selection]:
    reached = {point.images: point.target_test for point in curve}
    picks = {REFINED_CHECKPOINT: last, **select_checkpoints({point.images: point.criteria() for point in curve})}
    known = {images: value for images, value in reached.items() if value is not None}
    if known:
        picks[ORACLE] = max(sorted(known, reverse=True), key=lambda images: known[images])
    best = max(known.values(), default=None)
    gaps = {images: None if best is None else best - known[images] for images in reached}
    return [
        Selection(criterion=name, images=images, target_test=known.get(images), gap=gaps[images])
        for name, images in picks.items()
    ]
