"""What a page about a run is made of: sections of sentences, figures, tables and listings.

A system says what there is to show in these terms; how it is laid out is the report's business. Everything is plain
text, and is escaped where it is laid out.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Illustration:
    """A figure with what a reader should see in it."""

    name: str
    """Short and unique among the figures of a run: letters, digits and hyphens."""
    figure: "Figure"
    alt: str
    """What the figure shows, for a reader who cannot see it."""
    caption: str


@dataclass(frozen=True)
class Row:
    """One row of a table; its first cell is the row's heading."""

    cells: tuple[str, ...]
    apart: bool = False
    """Set apart from the rows above: not to be compared with them as an equal."""


@dataclass(frozen=True)
class Table:
    """Rows under a header; an empty header makes a list of names and values."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: bool = True
    """Whether all columns but the first hold numbers, to be aligned at the right."""


@dataclass(frozen=True)
class Listing:
    """A long text, folded away until a reader opens it."""

    title: str
    text: str


Part = Illustration | Table | Listing


@dataclass(frozen=True)
class Section:
    """A part of the report on a run.

    The first section of a run is its lead: `title` names the run, and `headline` stands at the head of the page.
    """

    title: str
    anchor: str
    """Unique among the sections of a run: small letters, digits and hyphens."""
    prose: tuple[str, ...] = ()
    """Paragraphs of a sentence or two."""
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must not overlook."""
    headline: str = ""
