"""The runs: a list, one with its curves while it trains, and two side by side."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.pictures import curve, data_uri
from pixelscope.serve.rendering import render

router = APIRouter()

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""What a report may do, which has its style inside."""


@router.get("/runs")
def listed(request: Request) -> Response:
    """List all runs."""
    runs = request.app.state.workspace.runs()
    return render(request, "runs.html.j2", runs=[_row(run) for run in runs])


@router.get("/runs/{name}")
def shown(request: Request, name: str) -> Response:
    """Show one run."""
    run = request.app.state.workspace.run(name)
    settings = pixelscope.run_settings(run.path)
    return render(request, "run.html.j2", run=_row(run), live=_live(run), settings=settings, samples=_samples(run))


@router.get("/runs/{name}/live")
def live(request: Request, name: str) -> Response:
    """Return the part of a run's page that moves while it trains."""
    run = request.app.state.workspace.run(name)
    return render(request, "live.html.j2", run=_row(run), live=_live(run))


@router.get("/runs/{name}/report")
async def report(request: Request, name: str) -> Response:
    """Return the report that lies in a run folder, or one made now, which is not kept."""
    run = request.app.state.workspace.run(name)
    stored = run.path / "report.html"
    page = stored.read_text(encoding="utf-8") if stored.is_file() else await request.app.state.desk.do(partial(_made, run.path))
    return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})


def _made(path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return pixelscope.report(path, out=Path(folder) / "report.html").read_text(encoding="utf-8")


@router.get("/compare")
def compared(request: Request, run: list[str] | None = None) -> Response:
    """Show two runs side by side."""
    names = request.query_params.getlist("run")
    if len(names) != 2:
        raise InputError("Choose two runs to compare.")
    runs = [request.app.state.workspace.run(name) for name in names]
    both = [{"run": _row(one), "live": _live(one), "samples": _samples(one)} for one in runs]
    settings = _differences(*(pixelscope.run_settings(one.path) for one in runs))
    return render(request, "compare.html.j2", both=both, settings=settings)


def _system(run: Any) -> pixelscope.System:
    """Return the system of a run; one that this version does not know has a name and nothing to show."""
    return pixelscope.SYSTEMS.get(run.system) or pixelscope.System(run.system, run.system)


def _row(run: Any) -> dict[str, Any]:
    share = None if not run.goal else 1.0 if run.state == "finished" else min(1.0, run.images / run.goal)
    return {
        "name": run.name,
        "system": _system(run).title,
        "page": _system(run).page,
        "state": run.state,
        "images": f"{run.images:,}",
        "share": None if share is None else round(100 * share),
        "when": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
    }


def _live(run: Any) -> dict[str, Any]:
    lines = pixelscope.run_statistics(run.path)
    charts = [(title, curve(lines, names)) for title, names in _system(run).charts.items()]
    warnings = list(dict.fromkeys(str(line.get("text", "")) for line in lines if line.get("kind") == "warning"))[-3:]
    return {"charts": [(title, chart) for title, chart in charts if chart is not None], "warnings": warnings}


def _differences(one: dict[str, str], other: dict[str, str]) -> list[tuple[str, str, str]]:
    names = [*one, *(name for name in other if name not in one)]
    return [(name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name)]


def _samples(run: Any) -> list[tuple[str, list[str]]]:
    found, titles = pixelscope.newest_samples(run.path), _system(run).samples
    return [(title, [data_uri(image) for image in found[name][:10]]) for name, title in titles.items() if name in found]
