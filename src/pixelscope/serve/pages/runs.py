"""The pages of runs: the list, one run with live charts, and two runs side by side."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.rendering import curve, data_uri, find_system, render

router = APIRouter()

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""Content security policy of a report, whose style is inline."""


@router.get("/runs")
def listed(request: Request) -> Response:
    """List all runs and detectors."""
    models = request.app.state.models
    runs, detectors = ([make(one) for one in ones] for make, ones in ((_row, models.runs()), (_detector, models.detectors())))
    return render(request, "runs.html.j2", runs=runs, detectors=detectors)


@router.get("/runs/{name}")
def shown(request: Request, name: str) -> Response:
    """Show one run."""
    run = request.app.state.models.run(name)
    values = {"run": _row(run), "live": _live(run), "settings": pixelscope.run_settings(run.path), "samples": _samples(run)}
    return render(request, "run.html.j2", **values, page=find_system(run.system).page)


@router.get("/runs/{name}/live")
def live(request: Request, name: str) -> Response:
    """Return the part of a run's page that changes while it trains."""
    run = request.app.state.models.run(name)
    return render(request, "live.html.j2", run=_row(run), live=_live(run))


@router.get("/runs/{name}/report")
async def report(request: Request, name: str) -> Response:
    """Return the report in a run folder, or build one without storing it."""
    run = request.app.state.models.run(name)
    stored = run.path / "report.html"
    page = (
        stored.read_text(encoding="utf-8")
        if stored.is_file()
        else await request.app.state.worker.submit(partial(_build_report, run.path))
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})


def _build_report(path: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return pixelscope.report(path, out=Path(folder) / "report.html").read_text(encoding="utf-8")


@router.get("/compare")
def compared(request: Request) -> Response:
    """Show two runs side by side."""
    names = request.query_params.getlist("run")
    if len(names) != 2:
        raise InputError("Choose two runs to compare.")
    runs = [request.app.state.models.run(name) for name in names]
    both = [{"run": _row(one), "live": _live(one), "samples": _samples(one)} for one in runs]
    settings = _differences(*(pixelscope.run_settings(one.path) for one in runs))
    return render(request, "compare.html.j2", both=both, settings=settings)


def _row(run: Any) -> dict[str, Any]:
    share = None if not run.goal else 1.0 if run.state == "finished" else min(1.0, run.images / run.goal)
    return {
        "name": run.name,
        "system": find_system(run.system).title,
        "state": run.state,
        "images": f"{run.images:,}",
        "share": None if share is None else round(100 * share),
        "when": _when(run.changed),
    }


def _detector(detector: Any) -> dict[str, Any]:
    """Return the rows of a detector's cross-validation, or why they cannot be read."""
    shown = {"name": detector.name, "when": _when(detector.changed), "view": "", "scores": [], "problem": ""}
    try:
        found = detector.result()
    except InputError as error:
        return {**shown, "problem": str(error)}
    group = next(iter(found.groups), "")  # a result written by hand may have none
    scores = [
        {"name": name, "selected": name == found.selected, "auroc": one.auroc.get(group, ""), "lead": one.lead.get(group, "")}
        for name, one in found.scores.items()
    ]
    return {**shown, "view": found.view, "scores": scores}


def _when(changed: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(changed))


def _live(run: Any) -> dict[str, Any]:
    lines = pixelscope.run_statistics(run.path)
    charts = [(title, curve(lines, names)) for title, names in find_system(run.system).charts.items()]
    warnings = list(dict.fromkeys(str(line.get("text", "")) for line in lines if line.get("kind") == "warning"))[-3:]
    return {"charts": [(title, chart) for title, chart in charts if chart is not None], "warnings": warnings}


def _differences(one: dict[str, str], other: dict[str, str]) -> list[tuple[str, str, str]]:
    names = [*one, *(name for name in other if name not in one)]
    return [(name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name)]


def _samples(run: Any) -> list[tuple[str, list[str]]]:
    found, titles = pixelscope.newest_samples(run.path), find_system(run.system).samples
    return [(title, [data_uri(image) for image in found[name][:10]]) for name, title in titles.items() if name in found]
