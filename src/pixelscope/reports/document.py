"""Parts of a report: sections with paragraphs, figures, tables and details.

Systems return these; `builder` lays them out. All text is plain and is escaped there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
