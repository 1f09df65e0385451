"""Figures as part of a page: SVG inside HTML, in the page's own text colour."""

import io
import re
import warnings

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from pixelscope.report.plotting import INK, style

NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}
"""No date and no version, so that the same run gives the same page."""

SMALLEST, LARGEST = 0.8, 1.1
"""How far a figure shrinks and grows with the page; below that its letters get too small, and it scrolls."""


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Return `figure` as an SVG element, the same for the same figure.

    name: put before every id, so that figures on one page do not mistake each other's parts; alt: its description.
    """
    with style(), warnings.catch_warnings():
        # The page's fonts draw the text, not matplotlib's own, which lacks many scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=NOTHING)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    # A rule for every element, which would reach the whole page; the page's stylesheet has its own.
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
    """Make the ids of a tag the figure's own, and what is drawn in ink the colour of the text around it.

    Ids that nothing refers to go: matplotlib gives two images of the same content the same.
    """
    tag = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in referred else "", tag)
    tag = re.sub(r'href="#', f'href="#{name}-', tag)
    tag = re.sub(r"url\(#", f"url(#{name}-", tag)
    return tag.replace(INK, "currentColor")
