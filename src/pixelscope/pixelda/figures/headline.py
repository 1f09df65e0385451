"""The sentence that stands for a run, and what must be said beside it; every number in it was measured."""

from pixelscope.pixelda.figures.material import Material
from pixelscope.pixelda.figures.tables import domain_names, percent, points
from pixelscope.pixelda.results import SetResult

STATES = {"running": "It is still running, or was killed", "stopped": "It was stopped"}


def headline(material: Material) -> str:
    """Return the result of a run in one sentence."""
    sentence = _adapted(material) if material.record.system == "pixelda" else _trained_on_source(material)
    if not is_unfinished(material):
        return sentence
    return f"Unfinished, {_steps(material)}: {sentence[0].lower()}{sentence[1:]}"


def is_unfinished(material: Material) -> bool:
    """Return whether the training has not reached its planned end."""
    return material.record.state != "finished"


def notes(material: Material) -> tuple[str, ...]:
    """Return what a reader of the headline must not overlook."""
    found = (
        _unfinished_note(material),
        _outdated_note(material),
        _harm_note(material),
        _label_note(material),
        _other_images_note(material),
    )
    return tuple(note for note in found if note)


def _steps(material: Material) -> str:
    done = material.numbers.steps if material.numbers else material.steps
    planned = material.planned_steps
    return f"at step {done:,}" + (f" of {planned:,}" if planned else "")


def _adapted(material: Material) -> str:
    source, target = domain_names(material)
    after = material.results("target_test")
    if after is None:
        return _without_target(material)
    before = material.before.results("target_test") if material.before else None
    now = percent(after.accuracy, after.count)
    if before is None:
        return f"Accuracy on the test split of {target} is {now} after adaptation from {source}."
    return f"Accuracy on the test split of {target} {_moved(before, after)}."


def _moved(before: SetResult, after: SetResult) -> str:
    was, now = percent(before.accuracy, before.count), percent(after.accuracy, after.count)
    change = after.accuracy - before.accuracy
    if not change:
        return f"stayed at {now}"
    return f"{'rose' if change > 0 else 'fell'} from {was} to {now}: {points(change, after.count)} points"


def _trained_on_source(material: Material) -> str:
    source, target = domain_names(material)
    own, other = material.results("source_test"), material.results("target_test")
    if own is None or other is None:
        return _without_target(material)
    gap = own.accuracy - other.accuracy
    here, there = percent(own.accuracy, own.count), percent(other.accuracy, other.count)
    end = f"a gap of {points(gap, other.count).lstrip('+')} points" if gap > 0 else "no gap between the domains"
    return f"Trained on {source} alone, T is right on {here} of its test split and on {there} of that of {target}: {end}."


def _without_target(material: Material) -> str:
    source, target = domain_names(material)
    own = material.results("source_test")
    if own is None:
        return "Not evaluated yet, so no accuracy is known."
    there = f"; {target} has no labels to measure it by" if "target" in material.record.data else ""
    return f"Accuracy on the test split of {source} is {percent(own.accuracy, own.count)}{there}."


def _unfinished_note(material: Material) -> str:
    state = material.record.state
    if not is_unfinished(material):
        return ""
    planned = f" of {material.planned_steps:,}" if material.planned_steps else ""
    why = f" {STATES[state]}; --resume goes on with it." if state in STATES else ""
    return f"This run is unfinished: {material.steps:,}{planned} steps are done.{why}"


def _outdated_note(material: Material) -> str:
    numbers = material.numbers
    if numbers is None or numbers.rule == "best-source" or numbers.steps >= material.steps:
        return ""
    return f"The run went on to step {material.steps:,} after it was evaluated at step {numbers.steps:,}; evaluate it again."


def _harm_note(material: Material) -> str:
    verdict = material.numbers.verdict if material.numbers else None
    if verdict is None or verdict.better != "source only":
        return ""
    return "Adaptation likely harms: T of the source alone likely reads the target better (told without target labels)."


def _label_note(material: Material) -> str:
    if material.results("target_test") is None:
        return ""
    return "Target labels were used in evaluation only: no training and no choice of a checkpoint has seen them."


def _other_images_note(material: Material) -> str:
    before, after = material.before, material.results("target_test")
    was = before.results("target_test") if before else None
    if was is None or after is None or was.count == after.count:
        return ""
    return f"Before and after were measured on different images: {was.count:,} before, {after.count:,} after."
