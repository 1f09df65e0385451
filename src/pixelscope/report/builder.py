"""The one builder of reports: the sections of one run or several, laid out as one page that needs nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import pixelscope
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.report.document import Illustration, Listing, Part, Section, Table
from pixelscope.report.svg import inline_svg

HERE = Path(__file__).parent

SectionsOf = Callable[[Path], list[Section]]


@dataclass(frozen=True)
class Chapter:
    """One run on the page: its lead, and the sections after it."""

    name: str
    anchor: str
    lead: Section
    sections: list[Section]


def build_report(runs: Sequence[Path] | Path, out: Path | None = None, sections_of: SectionsOf | None = None) -> Path:
    """Write the figures and numbers of one run, or of several, into one page, and return its path.

    out: the page's path; report.html in the run folder where it is not given, which several runs do not allow.
    sections_of: what makes the sections of a run; the run's own system by default.
    Raises InputError where a folder is not a run, or a file in it is damaged.
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    if out is None and len(paths) != 1:
        raise InputError(f"A report on {len(paths)} runs belongs to none of their folders; name the page with `out`.")
    page = out or paths[0] / "report.html"
    write_text(page, render_page(_chapters(paths, sections_of or pixelscope.sections)))
    return page


def render_page(chapters: Sequence[Chapter]) -> str:
    """Return the page as HTML: no script, no font, no image from elsewhere, all text escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {"illustration": _is(Illustration), "table": _is(Table), "listing": _is(Listing)}
    return environment.get_template("page.html.j2").render(
        chapters=chapters,
        title=chapters[0].lead.title if len(chapters) == 1 else "Pixelscope report",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        svg=_draw,
        version=pixelscope.__version__,
    )


def _chapters(paths: Sequence[Path], sections_of: SectionsOf) -> list[Chapter]:
    chapters = []
    for number, path in enumerate(paths, 1):
        lead, *sections = sections_of(path)
        chapters.append(Chapter(path.resolve().name, f"run-{number}" if len(paths) > 1 else "run", lead, sections))
    return chapters


def _is(kind: type[Part]) -> Callable[[Any], bool]:
    return lambda part: isinstance(part, kind)


def _draw(figure: Illustration, chapter: Chapter) -> Markup:
    return inline_svg(figure.figure, f"{chapter.anchor}-{figure.name}", figure.alt)
