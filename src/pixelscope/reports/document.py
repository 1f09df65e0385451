"""Parts of a report: sections with paragraphs, figures, tables and details, and the section "Record" of every run.

Systems return these; `builder` lays them out. All text is plain and is escaped there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixelscope.runs.folder import RunFolder
from pixelscope.runs.record import DataRecord, RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure with its caption."""

    name: str
    """Short and unique among the figures of a run: letters, digits and hyphens."""
    figure: "Figure"
    caption: str
    alt: str = ""
    """Alternative text, for readers who cannot see the figure; by default the caption."""


@dataclass(frozen=True)
class Row:
    """One row of a table; its first cell is the row's heading."""

    cells: tuple[str, ...]
    separate: bool = False
    """Draw a line above the row: it is not comparable to the rows before it."""


@dataclass(frozen=True)
class Table:
    """Rows under a header; an empty header makes a list of names and values."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: bool = True
    """Align all columns but the first to the right."""


@dataclass(frozen=True)
class Details:
    """A long text, collapsed until it is opened (HTML `details`)."""

    title: str
    text: str


Part = CaptionedFigure | Table | Details


def present(*parts: Part | None) -> tuple[Part, ...]:
    """Return the parts that there are."""
    return tuple(part for part in parts if part is not None)


@dataclass(frozen=True)
class Section:
    """A section of the report on a run.

    The first section of a run is its summary: `title` names the run, and `headline` is the first line of the page.
    """

    title: str
    anchor: str
    """Unique among the sections of a run: small letters, digits and hyphens."""
    prose: tuple[str, ...] = ()
    """Paragraphs of a sentence or two."""
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    """Warnings, shown highlighted."""
    headline: str = ""


def record_section(folder: RunFolder, record: RunRecord, warnings: int | None) -> Section:
    """Return the section with everything needed to repeat the run.

    warnings: number of warnings in the training; None if the folder is not a training.
    """
    configuration = folder.config.read_text(encoding="utf-8", errors="replace")
    parts = [
        Table("The run", (), _fact_rows(_facts(record, warnings)), numeric=False),
        *(Table(_role_title(role), (), _fact_rows(_origin(data)), numeric=False) for role, data in record.data.items()),
        Details("Configuration (config.yaml)", configuration),
    ]
    return Section(
        "Record",
        "record",
        prose=("Everything needed to repeat this run: command, configuration, data, versions and machine.",),
        parts=tuple(parts),
    )


def _facts(record: RunRecord, warnings: int | None) -> dict[str, str]:
    return {
        "Command": record.command,
        "State": record.state + (f", in {record.sessions} sessions" if (record.sessions or 1) > 1 else ""),
        "Done": "" if warnings is None else f"{record.images:,} images in {record.steps:,} steps",
        "Time": "" if record.seconds is None else duration(record.seconds),
        "Images per second": "" if record.images_per_second is None else f"{record.images_per_second:,.1f}",
        "Seed": "" if record.seed is None else str(record.seed),
        "Warnings raised": "" if warnings is None else f"{warnings:,}",
        "Parameters": ", ".join(f"{name} {count:,}" for name, count in record.parameters.items()),
        "Hardware": _hardware(record.hardware),
        "Runtime": _runtime(record.runtime),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Revision": record.git or "",
    }


def _role_title(role: str) -> str:
    return "Frames" if role == "frames" else f"{role.capitalize()} images"


def _origin(data: DataRecord) -> dict[str, str]:
    held_out = {"validation": data.validation, "calibration": data.calibration, "test": data.test}
    sizes = {"training": data.train, **held_out}
    split = ", ".join(f"{count:,} {name}" for name, count in sizes.items() if count)
    return {
        "What": data.title,
        "Given as": data.spec,
        "Images": ("" if data.count is None else f"{data.count:,}") + (f": {split}" if split else ""),
        "Licence": data.licence,
        "Citation": data.citation,
        "Notes": " ".join(data.notes),
        "SHA-256 of the training images": data.sha256,
    }


def _fact_rows(facts: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(Row((name, value)) for name, value in facts.items() if value)


def _runtime(values: Mapping[str, Any]) -> str:
    """Return the runtime as text, without switches that are off and without reasons."""
    shown = {name: value for name, value in values.items() if value is not False and not name.endswith("_reason")}
    return ", ".join(name if value is True else f"{name} {value}" for name, value in shown.items()).replace("_", " ")


def _hardware(values: Mapping[str, Any]) -> str:
    named = {"cores": "{} cores", "accelerator": "accelerator: {}"}
    return ", ".join(named.get(name, "{}").format(value) for name, value in values.items())


def duration(seconds: float) -> str:
    """Return a time as text: 42 s, 3 min 7 s, 5 h 12 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
