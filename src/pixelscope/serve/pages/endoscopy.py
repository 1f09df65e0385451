"""Endoscopy: a latent space to steer, and a frame to look at. For research only."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.pictures import data_uri, histogram
from pixelscope.serve.rendering import render

router = APIRouter()

REACH = 3.0
"""How far a slider goes either way, in standard deviations of the prior."""


@router.get("/endoscopy")
async def page(request: Request, run: str = "") -> Response:
    """Show the page, of the run named or the newest one."""
    workspace = request.app.state.workspace
    runs = [one.name for one in workspace.for_page("/endoscopy")]
    if not runs:
        return render(request, "endoscopy.html.j2", runs=[], chosen="", steer=None, uncalibrated="")
    chosen = run or runs[0]

    def work() -> tuple[dict[str, Any], str]:
        studio = workspace.frames(chosen)
        return _steer(studio, chosen, np.zeros(studio.latent, np.float32)), studio.uncalibrated

    steer, uncalibrated = await request.app.state.desk.do(work)
    return render(request, "endoscopy.html.j2", runs=runs, chosen=chosen, steer=steer, uncalibrated=uncalibrated)


@router.get("/endoscopy/{name}/draw")
async def drawn(request: Request, name: str) -> Response:
    """Return the frame of the sliders' latent vector."""
    workspace, values = request.app.state.workspace, dict(request.query_params)

    def work() -> str:
        studio = workspace.frames(name)
        return data_uri(studio.draw(_vector(studio, values)))

    return render(request, "drawn.html.j2", image=await request.app.state.desk.do(work), about="The frame of these numbers")


@router.get("/endoscopy/{name}/random")
async def random(request: Request, name: str, seed: int = 0) -> Response:
    """Return sliders at a random place."""
    workspace = request.app.state.workspace

    def work() -> dict[str, Any]:
        studio = workspace.frames(name)
        return _steer(studio, name, studio.random(abs(seed) % 2**31))

    return render(request, "steer.html.j2", steer=await request.app.state.desk.do(work))


@router.get("/endoscopy/{name}/nearest")
async def nearest(request: Request, name: str) -> Response:
    """Return sliders at the training frame nearest to them, and the frame itself."""
    workspace, values = request.app.state.workspace, dict(request.query_params)

    def work() -> dict[str, Any]:
        studio = workspace.frames(name)
        frame, label, z = studio.nearest(_vector(studio, values))
        return {**_steer(studio, name, z), "nearest": data_uri(frame), "label": label}

    return render(request, "steer.html.j2", steer=await request.app.state.desk.do(work))


@router.post("/endoscopy/{name}/look")
async def looked(request: Request, name: str) -> Response:
    """Return what the run makes of a frame."""
    async with request.form(max_files=1, max_fields=2) as form:
        upload = form.get("frame")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
    if not content:
        raise InputError("There is no frame yet; choose a file, or drop one.")
    work = partial(_look, request.app.state.workspace, name, content)
    return render(request, "look.html.j2", **await request.app.state.desk.do(work))


def _look(workspace: Any, name: str, content: bytes) -> dict[str, Any]:
    studio = workspace.frames(name)
    image = pixelscope.decode_bytes(content, value_range=studio.config.prepare.range)
    found = studio.analyze(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    pictures = [
        ("Content area", found.frame),
        ("Where it differs", found.heat),
        ("What the network saw", found.prepared),
        ("Its reconstruction", found.reconstruction),
    ]
    return {
        "pictures": [(title, data_uri(picture)) for title, picture in pictures],
        "score": f"{found.score:.4g}",
        "p": f"{found.p:.3f}",
        "name": found.name,
        "count": len(found.calibration),
        "histogram": histogram(found.calibration, found.score),
    }


def _vector(studio: Any, values: dict[str, str]) -> np.ndarray:
    """Return the latent vector of the sliders, those that are not shown at 0."""
    z = np.zeros(studio.latent, np.float32)
    for dimension in range(studio.latent):
        try:
            z[dimension] = np.clip(float(values.get(f"z{dimension}", 0)), -REACH, REACH)
        except ValueError:
            raise InputError("A slider has no number; move it again.") from None
    return np.nan_to_num(z)


def _steer(studio: Any, name: str, z: np.ndarray) -> dict[str, Any]:
    shown = set(studio.dimensions)
    return {
        "run": name,
        "sliders": [(dimension, f"{float(z[dimension]):.2f}") for dimension in studio.dimensions],
        "hidden": [(d, f"{float(z[d]):.4f}") for d in range(studio.latent) if d not in shown],
        "image": data_uri(studio.draw(z)),
        "reach": REACH,
        "nearest": None,
        "label": "",
    }
