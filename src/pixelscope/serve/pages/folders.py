"""The page Folders, and the jobs that score the frames of a folder. For research only.

A folder is the one given with --data, or below it.
"""

import csv
import os
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

import pixelscope
from pixelscope.errors import InputError, Interrupted
from pixelscope.serve.rendering import find_system, png, render, rgb

MAX_DEPTH = 3
"""Levels of folders that are listed."""
MAX_FOLDERS = 500
"""Folders that are listed."""
VIEW = "centre"
"""View of each frame that a run scores; a detector has its own view."""
MAX_JOBS = 8
"""Jobs whose results are kept; the oldest is dropped for a new one."""
SYSTEM = "endovae"
FRAMES_PER_PAGE = 12
ORIGINAL, RECONSTRUCTION, HEATMAP = "original", "reconstruction", "heatmap"
"""Images of a frame."""
MOST_PIXELS = 89_478_485
"""Largest image that is shown: Pillow's limit, which scoring has, too."""

router = APIRouter()


class ImageFolders:
    """A folder and those below it, by name; a folder is found by its listed name only."""

    def __init__(self, root: Path) -> None:
        """List `root` and below; raises InputError if it is not a folder."""
        if not root.is_dir():
            raise InputError(f"--data {root} is not a folder; give a folder of frames, or of folders of them.")
        self.root = root.resolve()

    def names(self) -> list[str]:
        """Return the folders, as POSIX paths below the root, sorted; `.` is the root. Hidden ones and links are left out."""
        found = ["."]
        for here, folders, _ in os.walk(self.root):
            inner = Path(here).relative_to(self.root)
            folders[:] = sorted(name for name in folders if _is_listed(Path(here) / name))
            found += [(inner / name).as_posix() for name in folders]
            if len(inner.parts) + 1 >= MAX_DEPTH or len(found) > MAX_FOLDERS:
                folders.clear()
        return sorted(found[:MAX_FOLDERS])

    def find(self, name: str) -> Path:
        """Return the folder of a listed name; raises InputError for any other, whatever path it spells."""
        if name not in self.names():
            raise InputError(f"There is no folder {name[:80]!r} (any more); choose one from the list.")
        return self.root / name


@dataclass
class ScoringJob:
    """One folder, scored by one run or detector in a thread."""

    key: str
    model: Any
    """What scores: a run, as `pixelscope.find_runs` lists it, or a detector, as `pixelscope.endovae.find_detectors` does."""
    folder: str
    """Listed name of the folder."""
    path: Path
    out: Path
    """The table."""
    done: int = 0
    total: int = 0
    """Frames; 0 until they are counted."""
    state: str = "running"
    """running, finished, stopped or failed."""
    lines: tuple[str, ...] = ()
    """The summary, or the error."""
    rows: list[dict[str, str]] = field(default_factory=list)
    """Rows of the table, the highest score first, then those with an error."""
    images: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    """Images last shown, by position in `rows`; used by the worker's thread only."""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def detector(self) -> bool:
        """Return whether a detector scores."""
        return isinstance(self.model, pixelscope.endovae.DetectorInfo)

    def work(self) -> None:
        """Score the folder; the result, or the error, is kept in this object."""
        try:
            view = None if self.detector else VIEW
            result = pixelscope.endovae.score(self.model.path, [self.path], self.out, view=view, progress=self._progress)
            self.rows = _worst_first(self.out)
            self.lines, self.state = _summary(result), "finished"
        except Interrupted:
            self.lines, self.state = ("Stopped before the end; nothing was kept.",), "stopped"
        except InputError as error:
            self.lines, self.state = (str(error),), "failed"
        except Exception:
            self.lines, self.state = ("Scoring has failed; the terminal of the app shows the error.",), "failed"
            raise

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.stop.is_set():
            raise KeyboardInterrupt


class ScoringJobs:
    """Jobs by key, one running at a time; their tables are in a temporary folder, which is removed with the app."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._jobs: OrderedDict[str, ScoringJob] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, model: Any, name: str, path: Path) -> ScoringJob:
        """Start scoring the folder `path`, listed as `name`, with `model`; raises InputError while another job runs."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise InputError("A folder is being scored; wait for it, or stop it.")
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="pixelscope-serve-"))
            key = secrets.token_urlsafe(9)
            out = self._folder / key / "scores.csv"
            out.parent.mkdir()
            job = self._jobs[key] = ScoringJob(key, model, name, path, out)
            while len(self._jobs) > MAX_JOBS:
                shutil.rmtree(self._jobs.popitem(last=False)[1].out.parent, ignore_errors=True)
            self._thread = threading.Thread(target=job.work, name="pixelscope-score", daemon=True)
            self._thread.start()
            return job

    def find(self, key: str) -> ScoringJob:
        """Return a job; raises InputError if there is none of this key."""
        job = self._jobs.get(key)
        if job is None:
            raise InputError("These results are gone; score the folder again.")
        return job

    def newest_first(self) -> list[ScoringJob]:
        """Return the jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def close(self) -> None:
        """Stop the running job and remove all tables."""
        with self._lock:
            for job in self._jobs.values():
                job.stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _summary(result: Any) -> tuple[str, ...]:
    """Return the lines of `Scores.to_text` without the first, which names a temporary file, and the note that each page has."""
    _, *lines = result.to_text().splitlines()
    note = result.to_dict()["note"]
    return tuple(line[:1].upper() + line[1:] for line in lines if line != note)


def _is_listed(folder: Path) -> bool:
    """Return whether a folder is neither hidden nor a link, and its name can be shown."""
    return not folder.name.startswith(".") and not folder.is_symlink() and folder.name.isprintable()


def _worst_first(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return sorted(rows, key=lambda row: -float(row["score"]) if row["score"] else float("inf"))


@router.get("/folders")
def page(request: Request) -> Response:
    """List the folders, the runs and detectors that can score them, and earlier results."""
    state = request.app.state
    models = {
        "Runs": [one.name for one in state.models.runs_of(SYSTEM) if one.state == "finished"],
        "Detectors": [one.name for one in state.models.detectors()],
    }
    jobs = [_progress_values(job) for job in state.jobs.newest_first()]
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
    return render(request, "job.html.j2", **_page_values(request.app.state.jobs.find(key), start))


@router.get("/folders/{key}/live")
def live(request: Request, key: str) -> Response:
    """Return the part of a job's page that changes while it runs."""
    return render(request, "job_live.html.j2", **_page_values(request.app.state.jobs.find(key), 0))


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
    if kind not in _image_titles(job) or not 0 <= number < len(job.rows):
        raise InputError("There is no such image; use the links of the page.")
    compute = partial(_image, request.app.state.models, job, number, kind)
    return Response(await request.app.state.worker.submit(compute), media_type="image/png")


def _image(models: Any, job: ScoringJob, number: int, kind: str) -> bytes:
    if number not in job.images:
        job.images[number] = _analyze(models.analyzer(job.model.name), Path(job.rows[number]["name"]))
        while len(job.images) > FRAMES_PER_PAGE:
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


def _image_titles(job: ScoringJob) -> dict[str, str]:
    """Return the images shown of each frame, with their titles."""
    return {ORIGINAL: "Original", **({HEATMAP: "Heat map"} if job.detector else {RECONSTRUCTION: "Reconstruction"})}


def _require_finished(job: ScoringJob) -> ScoringJob:
    if job.state != "finished":
        raise InputError("These results are not complete; wait for the end, or score the folder again.")
    return job


def _progress_values(job: ScoringJob) -> dict[str, Any]:
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


def _page_values(job: ScoringJob, start: int) -> dict[str, Any]:
    first = max(0, min(start, len(job.rows) - 1)) // FRAMES_PER_PAGE * FRAMES_PER_PAGE
    rows = job.rows[first : first + FRAMES_PER_PAGE]
    below = f"{job.path.as_posix()}/"
    frames = [{"number": first + i, "file": row["name"].removeprefix(below), **row} for i, row in enumerate(rows)]
    return {
        "job": _progress_values(job),
        "frames": frames,
        "kinds": _image_titles(job),
        "count": f"{len(job.rows):,}",
        "first": first,
        "before": first - FRAMES_PER_PAGE if first else None,
        "after": first + FRAMES_PER_PAGE if first + FRAMES_PER_PAGE < len(job.rows) else None,
    }
