"""The report on a run of PixelDA or its baseline: its sections, the headline and what a reader must not overlook."""

from pathlib import Path

from pixelscope.pixelda.report.data import ReportData, percent, points
from pixelscope.pixelda.report.generated import domains_section, generated_section
from pixelscope.pixelda.report.result import classes_section, result_section, verdict_section
from pixelscope.pixelda.report.training import baseline_section, stability_section, training_section
from pixelscope.pixelda.results import UNFINISHED, SetResult, chosen_by_labels
from pixelscope.reports.document import Section, duration, record_section

FILTERED = "images of classes that the source lacks (--data.classes source)"
"""What labels of the target are used for in training, if for anything."""

STATES = {"running": "It is still running, or was killed", "stopped": "It was stopped"}


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on a run folder; the summary is the first, the record the last.

    Sections without content are left out.

    Raises:
        InputError: `run` is not a run folder, or a file in it is damaged.
    """
    data = ReportData.read(run)
    found = [result_section(data), verdict_section(data), domains_section(data)]
    if data.adapted:
        found += [baseline_section(data.before)] if data.before else []
        found += [training_section(data), generated_section(data), classes_section(data), stability_section(data)]
    else:
        found += [baseline_section(data), classes_section(data)]
    record = record_section(data.folder, data.record, len(data.warnings))
    return [_summary(data), *(section for section in found if section.parts), record]


def headline(data: ReportData) -> str:
    """Return the result of a run in one sentence."""
    sentence = _adapted(data) if data.adapted else _trained_on_source(data)
    if data.record.state == "finished":
        return sentence
    done = data.numbers.steps if data.numbers else data.steps
    planned = f" of {data.planned_steps:,}" if data.planned_steps else ""
    return f"Unfinished, at step {done:,}{planned}: {sentence[0].lower()}{sentence[1:]}"


def _summary(data: ReportData) -> Section:
    source, target = data.names
    title = f"{source} → {target}" if "target" in data.record.data else source
    checks = (_unfinished_note, _outdated_note, _harm_note, _label_note, _other_images_note, _baseline_note)
    notes = tuple(note for check in checks if (note := check(data)))
    measured = () if data.numbers is None else data.numbers.notes
    others = tuple(note for note in measured if not note.startswith(UNFINISHED))  # of which the page has a sentence
    return Section(title, "summary", prose=_what_was_done(data), notes=(*notes, *others), headline=headline(data))


def _what_was_done(data: ReportData) -> tuple[str, ...]:
    source, target = data.names
    use = f"Labels of {target} " + (f"only left out {FILTERED}" if _filtered(data) else "are never used in training")
    if data.adapted:
        text = (
            f"PixelDA translates labelled images of {source} into the style of {target} and trains a classifier T on them. "
            f"{use}."
        )
    else:
        text = f"The baseline trains a classifier T on {source} alone, to measure the accuracy it loses on {target}."
    time = f" in {duration(data.record.seconds)}" if data.record.seconds is not None else ""
    origins = [f"{role.capitalize()}: {domain.title}." for role, domain in data.record.data.items() if domain.title]
    return (f"{text} Trained on {data.images:,} images, {data.steps:,} steps{time}.", *([" ".join(origins)] if origins else []))


def _adapted(data: ReportData) -> str:
    source, target = data.names
    after, before = data.results("target_test"), data.results_before("target_test")
    if after is None:
        return _without_target(data)
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


def _trained_on_source(data: ReportData) -> str:
    source, target = data.names
    own, other = data.results("source_test"), data.results("target_test")
    if own is None or other is None:
        return _without_target(data)
    gap = own.accuracy - other.accuracy
    here, there = percent(own.accuracy, own.count), percent(other.accuracy, other.count)
    end = f"a gap of {points(gap, other.count).lstrip('+')} points" if gap > 0 else "no gap between the domains"
    return f"Trained on {source} alone, T reaches {here} on its test split and {there} on the test split of {target}: {end}."


def _without_target(data: ReportData) -> str:
    source, target = data.names
    own = data.results("source_test")
    if own is None:
        return "Not evaluated yet, so no accuracy is known."
    there = f"; {target} has no labels of these classes to measure by" if "target" in data.record.data else ""
    return f"Accuracy on the test split of {source} is {percent(own.accuracy, own.count)}{there}."


def _unfinished_note(data: ReportData) -> str:
    state = data.record.state
    if state == "finished":
        return ""
    planned = f" of {data.planned_steps:,}" if data.planned_steps else ""
    why = f" {STATES[state]}; --resume continues it." if state in STATES else ""
    return f"This run is unfinished: {data.steps:,}{planned} steps are done.{why}"


def _outdated_note(data: ReportData) -> str:
    measured = data.images if data.numbers is None else data.numbers.measured_images
    if measured >= data.images:
        return ""
    return f"The run continued to {data.images:,} images after it was evaluated at {measured:,}; evaluate it again."


def _harm_note(data: ReportData) -> str:
    verdict = data.numbers.verdict if data.numbers else None
    return verdict.headline() if verdict is not None and verdict.better in ("source only", "unknown") else ""


def _label_note(data: ReportData) -> str:
    if data.results("target_test") is None:
        return ""
    if _filtered(data):
        return f"Target labels were used in evaluation, and to leave out {FILTERED}: no checkpoint was chosen by them."
    return "Target labels were used in evaluation only: neither training nor the choice of a checkpoint used them."


def _baseline_note(data: ReportData) -> str:
    """Say where the accuracy before is not that of a trained baseline."""
    before = data.before
    if before is None or before.record.state == "finished":
        return ""
    planned = f" of {before.planned_steps:,}" if before.planned_steps else ""
    return f"The baseline is unfinished: {before.steps:,}{planned} steps were done, so the accuracy before may be too low."


def _filtered(data: ReportData) -> bool:
    """Return whether labels of the target left images out of training."""
    target = data.record.data.get("target")
    return target is not None and chosen_by_labels(target.notes)


def _other_images_note(data: ReportData) -> str:
    was, after = data.results_before("target_test"), data.results("target_test")
    if was is None or after is None or was.count == after.count:
        return ""
    return f"Before and after were measured on different images: {was.count:,} before, {after.count:,} after."
