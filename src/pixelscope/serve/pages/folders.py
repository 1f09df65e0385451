"""The page Folders: scores the frames of a folder at or below the one given with --data. For research only."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.charts import png, rgb
from pixelscope.serve.folders import ScoringJob
from pixelscope.serve.rendering import find_system, render

router = APIRouter()

SYSTEM = "endovae"
PAGE = 12
"""Frames per page of results."""
ORIGINAL, RECONSTRUCTION, HEATMAP = "original", "reconstruction", "heatmap"
"""Images of a frame."""
MOST_PIXELS = 89_478_485
"""Largest image that is shown: Pillow's limit, which scoring has, too."""


@router.get("/folders")
def page(request: Request) -> Response:
    """List the folders, the runs and detectors that can score them, and earlier results."""
    state = request.app.state
    models = {
        "Runs": [one.name for one in state.models.runs_of(SYSTEM) if one.state == "finished"],
        "Detectors": [one.name for one in state.models.detectors()],
    }
    jobs = [_progress(job) for job in state.jobs.newest_first()]
    names = state.folders.names()
    return render(request, "folders.html.j2", models=models, folders=names, jobs=jobs, system=find_system(SYSTEM).title)


@router.post("/folders")
async def start(request: Request) -> Response:
    """Start scoring a listed folder with a listed run or detector, and lead to its page."""
    async with request.form(max_files=0, max_fields=2) as form:
        run, folder = str(form.get("run", "")), str(form.get("folder", ""))
    state = request.app.state
    found = state.models.detector(run) or _finished_run(state.models, run)
    job = state.jobs.start(found, folder, state.folders.find(folder))
    return RedirectResponse(f"{state.root}/folders/{job.key}", 303)


def _finished_run(models: Any, name: str) -> Any:
    found = models.run(name)
    if found.system != SYSTEM or found.state != "finished":
        raise InputError(f"{name} is not a finished run of {find_system(SYSTEM).title}; choose one of the list.")
    return found


@router.get("/folders/{key}")
def results(request: Request, key: str, start: int = 0) -> Response:
    """Show a job: its progress, then its frames, the highest score first."""
    return render(request, "job.html.j2", **_shown(request.app.state.jobs.find(key), start))


@router.get("/folders/{key}/live")
def live(request: Request, key: str) -> Response:
    """Return the part of a job's page that changes while it runs."""
    return render(request, "job_live.html.j2", **_shown(request.app.state.jobs.find(key), 0))


@router.post("/folders/{key}/stop")
def stop(request: Request, key: str) -> Response:
    """Stop a job, and lead back to its page."""
    request.app.state.jobs.find(key).stop.set()
    return RedirectResponse(f"{request.app.state.root}/folders/{key}", 303)


@router.get("/folders/{key}/scores.csv")
def table(request: Request, key: str) -> Response:
    """Return the table of a finished job, as a download."""
    job = _require_finished(request.app.state.jobs.find(key))
    return FileResponse(job.out, media_type="text/csv; charset=utf-8", filename="scores.csv")


@router.get("/folders/{key}/{number}/{kind}")
async def image(request: Request, key: str, number: int, kind: str) -> Response:
    """Return a frame of the results, its reconstruction or its heat map, as PNG."""
    job = _require_finished(request.app.state.jobs.find(key))
    if kind not in _kinds(job) or not 0 <= number < len(job.rows):
        raise InputError("There is no such image; use the links of the page.")
    compute = partial(_image, request.app.state.models, job, number, kind)
    return Response(await request.app.state.worker.submit(compute), media_type="image/png")


def _image(models: Any, job: ScoringJob, number: int, kind: str) -> bytes:
    if number not in job.images:
        job.images[number] = _analyze(models.analyzer(job.model.name), Path(job.rows[number]["name"]))
        while len(job.images) > PAGE:
            job.images.popitem(last=False)
    return png(job.images[number][kind])


def _analyze(model: Any, path: Path) -> dict[str, np.ndarray]:
    """Return the images of a frame by kind; raises InputError if it cannot be read (any more)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}; score the folder again.") from None
    pixels = pixelscope.decode_bytes(content, most_pixels=MOST_PIXELS, value_range=model.prepare.range)
    found = model.analyze(rgb(pixels))
    images = {ORIGINAL: found.original, HEATMAP: found.heatmap[found.square.slices]}
    return images if found.reconstruction is None else {**images, RECONSTRUCTION: found.reconstruction}


def _kinds(job: ScoringJob) -> dict[str, str]:
    """Return the images shown of each frame, with their titles."""
    return {ORIGINAL: "Original", **({HEATMAP: "Heat map"} if job.detector else {RECONSTRUCTION: "Reconstruction"})}


def _require_finished(job: ScoringJob) -> ScoringJob:
    if job.state != "finished":
        raise InputError("These results are not complete; wait for the end, or score the folder again.")
    return job


def _progress(job: ScoringJob) -> dict[str, Any]:
    share = 100 if job.state == "finished" else round(100 * job.done / job.total) if job.total else 0
    return {
        "key": job.key,
        "model": job.model.name,
        "folder": "All folders" if job.folder == "." else job.folder,
        "state": job.state,
        "lines": job.lines,
        "share": share,
        "done": f"{job.done:,}",
        "total": f"{job.total:,}",
        "counted": job.total > 0,
    }


def _shown(job: ScoringJob, start: int) -> dict[str, Any]:
    first = max(0, min(start, len(job.rows) - 1)) // PAGE * PAGE
    rows = job.rows[first : first + PAGE]
    below = f"{job.path.as_posix()}/"
    frames = [{"number": first + i, "file": row["name"].removeprefix(below), **row} for i, row in enumerate(rows)]
    return {
        "job": _progress(job),
        "frames": frames,
        "kinds": _kinds(job),
        "count": f"{len(job.rows):,}",
        "first": first,
        "before": first - PAGE if first else None,
        "after": first + PAGE if first + PAGE < len(job.rows) else None,
    }
