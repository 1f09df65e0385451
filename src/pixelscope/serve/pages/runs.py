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

CURVES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "pixelda": [
        ("Loss", {"loss/generator": "G", "loss/discriminator": "D", "loss/classifier": "T"}),
        ("What D says", {"probability/real": "of real images", "probability/generated": "of generated ones"}),
        ("Accuracy on the source", {"accuracy/source_test": "test", "accuracy/source_test_ema": "test, average"}),
    ],
    "baseline": [
        ("Loss", {"loss/classifier": "T"}),
        ("Accuracy on the source", {"accuracy/source_test": "test", "accuracy/source_test_ema": "test, average"}),
    ],
    "refined": [
        ("Loss", {"loss/source": "source", "loss/generated": "generated", "loss/target": "target"}),
        ("Target images", {"trusted": "trusted", "agreement": "agreement"}),
    ],
    "endovae": [
        ("Reconstruction, nats an image", {"loss/reconstruction": "training", "loss/validation_reconstruction": "validation"}),
        ("Divergence, nats an image", {"loss/kl": "training", "loss/validation_kl": "validation"}),
    ],
}
SAMPLES = {
    "source": "source",
    "originals": "frames",
    "reconstructions": "reconstructed",
    "generated": "generated",
}
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
    return render(request, "run.html.j2", run=_row(run), live=_live(run), settings=_settings(run), samples=_samples(run))


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
        return pixelscope.build_report(path, out=Path(folder) / "report.html").read_text(encoding="utf-8")


@router.get("/compare")
def compared(request: Request, run: list[str] | None = None) -> Response:
    """Show two runs side by side."""
    names = request.query_params.getlist("run")
    if len(names) != 2:
        raise InputError("Choose two runs to compare.")
    runs = [request.app.state.workspace.run(name) for name in names]
    both = [{"run": _row(one), "live": _live(one), "samples": _samples(one)} for one in runs]
    return render(request, "compare.html.j2", both=both, settings=_differences(*(_settings(one) for one in runs)))


def _row(run: Any) -> dict[str, Any]:
    share = None if not run.goal else min(1.0, run.images / run.goal)
    return {
        "name": run.name,
        "system": {"pixelda": "PixelDA", "endovae": "EndoVAE", "baseline": "baseline", "refined": "refinement"}.get(
            run.system, run.system
        ),
        "kind": run.system,
        "state": run.state,
        "images": f"{run.images:,}",
        "share": None if share is None else round(100 * share),
        "when": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
    }


def _live(run: Any) -> dict[str, Any]:
    lines = pixelscope.run_statistics(run.path)
    charts = [(title, curve(lines, names)) for title, names in CURVES.get(run.system, [])]
    warnings = list(dict.fromkeys(str(line.get("text", "")) for line in lines if line.get("kind") == "warning"))[-3:]
    return {"charts": [(title, chart) for title, chart in charts if chart is not None], "warnings": warnings}


def _settings(run: Any) -> dict[str, str]:
    try:
        text = (run.path / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(_leaves(text))


def _leaves(text: str) -> list[tuple[str, str]]:
    """Return the dotted name and value of every line of a configuration that has one."""
    found, groups = [], list[str]()
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, colon, value = line.strip().partition(":")
        if not colon or name.startswith("-"):
            continue
        groups = [*groups[:depth], name]
        if value.strip():
            found.append((".".join(groups), value.strip()))
    return found


def _differences(one: dict[str, str], other: dict[str, str]) -> list[tuple[str, str, str]]:
    names = [*one, *(name for name in other if name not in one)]
    return [(name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name)]


def _samples(run: Any) -> list[tuple[str, list[str]]]:
    found = pixelscope.newest_samples(run.path)
    return [(title, [data_uri(image) for image in found[name][:10]]) for name, title in SAMPLES.items() if name in found]
