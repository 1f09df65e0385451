"""Renders templates."""

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import pixelscope
from pixelscope.serve.charts import short_number

HERE = Path(__file__).parent


def environment(folders: bool = False) -> Environment:
    """Return the templates; all values are escaped.

    folders: whether the navigation has the page Folders.
    """
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = [system.page for system in pixelscope.SYSTEMS.values() if system.page]
    made.globals["navigation"] = [("/runs", "Runs"), *((page.address, page.title) for page in pages)]
    made.globals["navigation"] += [("/folders", "Folders")] if folders else []
    made.filters["short"] = short_number
    return made


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page, or the fragment of one that a script asks for."""
    page = request.app.state.templates.get_template(template)
    return HTMLResponse(page.render(path=request.url.path, root=request.app.state.root, **values), status_code=status)


def find_system(name: str) -> pixelscope.System:
    """Return a system of the table; an unknown one has its name as title, and nothing to show."""
    return pixelscope.SYSTEMS.get(name) or pixelscope.System(name, name)
