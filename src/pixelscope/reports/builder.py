"""Build reports: the sections of one or several runs as a self-contained page."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

import pixelscope
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.reports.document import CaptionedFigure, Details, Part, Section, Table
from pixelscope.reports.plotting import INK, style
from pixelscope.runs.folder import RunFolder

HERE = Path(__file__).parent

SUFFIXES = (".html", ".htm")
"""How the name of a page ends."""

SectionsOf = Callable[[Path], list[Section]]


@dataclass(frozen=True)
class RunReport:
    """One run on the page: its summary and the other sections."""

    name: str
    anchor: str
    summary: Section
    sections: list[Section]


def build_report(runs: Sequence[Path] | Path, out: Path | None = None, sections_of: SectionsOf | None = None) -> Path:
    """Write the report of one or several runs, and return its path.

    Args:
        runs: run folders.
        out: path of the page, ending in .html or .htm; by default report.html in the run folder. Several runs need it.
        sections_of: returns the sections of a run; by default the run's system.

    Raises:
        InputError: `out` has another suffix, a folder is not a run, a file in it is damaged, or the page belongs into a folder
            that another process writes to.

    Example:
        >>> pixelscope.report(Path("runs/adapted"))
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    if out is None and len(paths) != 1:
        raise InputError(f"A report on {len(paths)} runs needs the path of its page; give `out`.")
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out} does not end in .html or .htm, and a report is an HTML page; change the name.")
    if out is not None:
        write_text(out, render_page(_run_reports(paths, sections_of or pixelscope.sections)))
        return out
    folder = RunFolder(paths[0])
    with _page_elsewhere():
        folder.require_free()
    text = render_page(_run_reports(paths, sections_of or pixelscope.sections))
    with _page_elsewhere(), folder.locked("reported on"):
        write_text(folder.report, text)
    return folder.report


@contextmanager
def _page_elsewhere() -> Iterator[None]:
    """Add to the error of a locked folder how to write the page elsewhere."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; or write the page elsewhere with --out PAGE.html.") from None


def render_page(runs: Sequence[RunReport]) -> str:
    """Return the page as HTML, without scripts, fonts or images from elsewhere; all text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {"figure": _is(CaptionedFigure), "table": _is(Table), "details": _is(Details)}
    return environment.get_template("page.html.j2").render(
        runs=runs,
        title=runs[0].summary.title if len(runs) == 1 else "Pixelscope report",
        css=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        svg=_draw,
        version=pixelscope.__version__,
    )


def _run_reports(paths: Sequence[Path], sections_of: SectionsOf) -> list[RunReport]:
    runs = []
    for number, path in enumerate(paths, 1):
        summary, *sections = sections_of(path)
        runs.append(RunReport(path.resolve().name, f"run-{number}" if len(paths) > 1 else "run", summary, sections))
    return runs


def _is(kind: type[Part]) -> Callable[[Any], bool]:
    return lambda part: isinstance(part, kind)


def _draw(figure: CaptionedFigure, run: RunReport) -> Markup:
    return inline_svg(figure.figure, f"{run.anchor}-{figure.name}", figure.alt or figure.caption)


NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}
"""No date and no version, so that the same run gives the same page."""

SMALLEST, LARGEST = 0.8, 1.1
"""Minimum and maximum scale of a figure on the page; below, its text is too small and it scrolls."""


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Return `figure` as an SVG element; the same figure gives the same text.

    Args:
        figure: the figure.
        name: prefix of all ids, unique on the page.
        alt: description for readers who cannot see it.
    """
    with style(), warnings.catch_warnings():
        # The page's fonts draw the text, not matplotlib's own, which lacks many scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        buffer = io.StringIO()
        # Not savefig, which draws a figure with a layout twice.
        FigureCanvasSVG(figure).print_svg(buffer, metadata=NOTHING)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    # A CSS rule for every element, which would affect the whole page.
    body = re.sub(r"<style\b.*?</style>", "", body, flags=re.DOTALL)
    referred = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', " ".join(re.findall(r"<[^>]*>", body))))
    kept = {one or other for one, other in referred}
    body = re.sub(r"<[^>]*>", lambda tag: _own(tag[0], name, kept), body)
    width, height = (round(72 * side) for side in figure.get_size_inches())
    limits = f"min-width: {round(SMALLEST * width)}px; max-width: {round(LARGEST * width)}px"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}" '
        f'style="{limits}" role="img" aria-label="{escape(alt)}">'
    )
    return Markup(head + body[body.index(">") + 1 :])


def _own(tag: str, name: str, referred: set[str]) -> str:
    """Prefix the ids of a tag, and replace the ink colour by the colour of the surrounding text.

    Ids without references are removed: matplotlib gives equal images equal ids.
    """
    tag = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in referred else "", tag)
    tag = re.sub(r'href="#', f'href="#{name}-', tag)
    tag = re.sub(r"url\(#", f"url(#{name}-", tag)
    return tag.replace(INK, "currentColor")
