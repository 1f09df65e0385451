"""Renders templates, and makes the images and charts that pages show."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import pixelscope

TEMPLATES = Path(__file__).parent / "templates"
CHART_WIDTH = 560.0
"""Width of a chart in its own coordinates; the page scales it."""

Points = Sequence[tuple[float, float]]


def rgb(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 1 or 3) as (H, W, 3); grey is repeated."""
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def png(image: np.ndarray) -> bytes:
    """Return a uint8 image (H, W, 3) as a PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def data_uri(image: np.ndarray) -> str:
    """Return a uint8 image (H, W, 3) as the data: URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def short_number(value: float) -> str:
    """Return a number with four significant digits, or as a whole number if it has more: 0.03247, 16,397."""
    return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:.4g}"


def curve(lines: Sequence[dict[str, Any]], names: Mapping[str, str], height: float = 150) -> dict[str, Any] | None:
    """Return the lines of a chart of numbers over images seen; None if no number is logged yet."""
    found = {title: points for name, title in names.items() if (points := _points(lines, name))}
    if not found:
        return None
    values = [y for points in found.values() for _, y in points]
    low, top, last = min(values), max(values), max(x for points in found.values() for x, _ in points)

    def place(point: tuple[float, float]) -> str:
        return f"{CHART_WIDTH * point[0] / max(last, 1):.1f},{height * (1 - (point[1] - low) / max(top - low, 1e-12)):.1f}"

    drawn = {title: " ".join(map(place, points)) for title, points in found.items()}
    newest = {title: points[-1][1] for title, points in found.items()}
    return {"lines": drawn, "newest": newest, "low": low, "top": top, "last": last, "width": CHART_WIDTH, "height": height}


def _points(lines: Sequence[dict[str, Any]], name: str) -> Points:
    """Return (images, value) of at most about 400 logged lines, including the last."""
    points = [(float(line["images"]), float(line[name])) for line in lines if isinstance(line.get(name), int | float)]
    points = [point for point in points if np.isfinite(point[1])]
    every = -(-len(points) // 400) if points else 1
    return points[::every] + (points[-1:] if points and (len(points) - 1) % every else [])


def histogram(values: np.ndarray, mark: float, height: float = 120, bins: int = 24) -> dict[str, Any]:
    """Return the bars of a histogram and the position of `mark`, which the range includes."""
    low, high = min(float(values.min()), mark), max(float(values.max()), mark)
    span = max(high - low, 1e-9)
    counts, _ = np.histogram(values, bins=bins, range=(low, low + span))
    shares = counts / max(int(counts.max()), 1)
    step = CHART_WIDTH / bins
    bars = [{"x": step * i, "y": height * (1 - s), "height": height * s, "width": step - 1} for i, s in enumerate(shares)]
    place = CHART_WIDTH * (mark - low) / span
    return {"bars": bars, "mark": place, "low": low, "high": high, "width": CHART_WIDTH, "height": height}


def environment(folders: bool = False) -> Environment:
    """Return the templates; all values are escaped.

    folders: whether the navigation has the page Folders.
    """
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
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
