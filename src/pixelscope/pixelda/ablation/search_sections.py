"""A search as the sections of a page."""

from pathlib import Path

from pixelscope.pixelda.ablation.results import HEADER, SearchResult
from pixelscope.pixelda.ablation.running import samples_section
from pixelscope.pixelda.ablation.search import RESULT
from pixelscope.report.document import Row, Section, Table
from pixelscope.report.record import record_section
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.record import read_record

DRAWN = "Source images, as the G of each trial redraws them with the same z at the end, and target images."


def sections(run: Path) -> list[Section]:
    """Return the sections of the page on a search; raises InputError where a file in it is damaged."""
    folder = RunFolder.open(run)
    path = folder.path / RESULT
    record = record_section(folder, read_record(folder), None)
    if not path.is_file():
        return [Section("Search", "lead", headline="Not finished yet, so nothing is chosen."), record]
    found = SearchResult.load(path)
    samples = samples_section(folder, DRAWN)
    return [_lead(found), _trials(found), *([samples] if samples.parts else []), record]


def _lead(found: SearchResult) -> Section:
    what, _, why = found.why.partition(". ")
    prose = (
        why,
        f"{len(found.trials)} settings of PixelDA, each trained for a short time; each is a run of its own in cells/.",
    )
    prose += () if found.command is None else (f"Go on in full size: {found.command}",)
    failed = tuple(f"{trial.name} failed: {trial.failed}" for trial in found.trials if trial.failed)
    return Section("Search", "lead", prose=prose, notes=failed, headline=f"{what.rstrip('.')}.")


def _trials(found: SearchResult) -> Section:
    rows = tuple(Row(tuple(cell.replace("->", "→") for cell in cells)) for cells in found.rows())
    caption = (
        "T of the source alone → adapted T. Information: the entropy of the mean answer less the mean entropy of answers, in "
        "nats, on target images without labels. Same classes: the share of target images in a class that both mostly call the "
        "same. Accuracies choose nothing."
    )
    tried = Table(
        "What is tried", (), tuple(Row((trial.name, trial.about)) for trial in found.trials if trial.about), numeric=False
    )
    return Section("Trials", "trials", parts=(Table(caption, HEADER, rows), *([tried] if tried.rows else [])))
