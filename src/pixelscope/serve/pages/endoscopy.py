"""The page Endoscopy: explores the latent space of a run, and scores a frame with a run or detector. For research only."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.rendering import data_uri, find_system, histogram, render, rgb

router = APIRouter()

SYSTEM = "endovae"

SLIDER_LIMIT = 3.0
"""Range of a slider in both directions, in standard deviations of the prior."""


@router.get("/endoscopy")
async def page(request: Request, run: str = "") -> Response:
    """Show the page for a run or detector, by default the newest run."""
    models = request.app.state.models
    listed = {title: [one.name for one in found] for title, found in _models(models).items()}
    names = [name for group in listed.values() for name in group]
    values = {"models": listed, "system": find_system(SYSTEM).title}
    if not names:
        return render(request, "endoscopy.html.j2", **values)
    chosen = run or names[0]
    try:
        shown = await request.app.state.worker.submit(partial(_opened, models, chosen))
    except InputError as error:
        if chosen not in names:
            raise
        # Another one can still be chosen.
        shown = {"latent": None, "uncalibrated": "", "problem": str(error)}
    return render(request, "endoscopy.html.j2", **values, chosen=chosen, **shown)


def _models(models: Any) -> dict[str, list[Any]]:
    """Return what the page works with, by title."""
    return {"Runs": models.runs_of(SYSTEM), "Detectors": models.detectors()}


def _opened(models: Any, name: str) -> dict[str, Any]:
    """Open a run or detector, and return what the page shows of it before a frame is scored; a detector has no sliders."""
    model = models.analyzer(name)
    if isinstance(model, pixelscope.endovae.InteractiveDetector):
        return {"latent": None, "uncalibrated": "", "problem": ""}
    latent = _sliders(model, name, np.zeros(model.latent, np.float32))
    return {"latent": latent, "uncalibrated": model.uncalibrated, "problem": ""}


@router.get("/endoscopy/{name}/decode")
async def decode(request: Request, name: str) -> Response:
    """Return the frame decoded from the latent vector of the sliders."""
    models, values = request.app.state.models, dict(request.query_params)

    def compute() -> str:
        vae = models.vae(name)
        return data_uri(vae.draw(_vector(vae, values)))

    return render(request, "image.html.j2", image=await request.app.state.worker.submit(compute), title="The decoded frame")


@router.get("/endoscopy/{name}/random")
async def random(request: Request, name: str, seed: int = 0) -> Response:
    """Return the sliders of a random latent vector."""
    models = request.app.state.models

    def compute() -> dict[str, Any]:
        vae = models.vae(name)
        return _sliders(vae, name, vae.random(abs(seed) % 2**31))

    return render(request, "sliders.html.j2", latent=await request.app.state.worker.submit(compute))


@router.get("/endoscopy/{name}/nearest")
async def nearest(request: Request, name: str) -> Response:
    """Return the sliders of the training frame nearest to the latent vector, and the frame."""
    models, values = request.app.state.models, dict(request.query_params)

    def compute() -> dict[str, Any]:
        vae = models.vae(name)
        frame, label, z = vae.nearest(_vector(vae, values))
        return {**_sliders(vae, name, z), "nearest": data_uri(frame), "label": label}

    return render(request, "sliders.html.j2", latent=await request.app.state.worker.submit(compute))


@router.post("/endoscopy/{name}/score")
async def score(request: Request, name: str) -> Response:
    """Return the anomaly score and heat map of a frame, and its reconstruction by a run."""
    async with request.form(max_files=1, max_fields=2) as form:
        upload = form.get("frame")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
    if not content:
        raise InputError("There is no frame yet; choose a file, or drop one.")
    compute = partial(_score, request.app.state.models, name, content)
    return render(request, "score.html.j2", **await request.app.state.worker.submit(compute))


def _score(models: Any, name: str, content: bytes) -> dict[str, Any]:
    model = models.analyzer(name)
    image = pixelscope.decode_bytes(content, value_range=model.prepare.range)
    found = model.analyze(rgb(image))
    return {
        "images": [(title, data_uri(image)) for title, image in _images(found).items()],
        "score": f"{found.score:.4g}",
        "p": found.p_text,
        "name": found.name,
        "count": len(found.calibration),
        "histogram": histogram(found.calibration, found.score),
    }


def _images(found: Any) -> dict[str, np.ndarray]:
    """Return the images of an analyzed frame by title."""
    if found.reconstruction is None:
        return {
            "Content area, and the square that is scored": found.frame,
            "Heat map": found.heatmap,
            "Input of the detector": found.prepared,
        }
    return {
        "Content area": found.frame,
        "Reconstruction error": found.heatmap,
        "Input of the network": found.prepared,
        "Reconstruction": found.reconstruction,
    }


def _vector(vae: Any, values: dict[str, str]) -> np.ndarray:
    """Return the latent vector of the sliders; missing dimensions are 0."""
    z = np.zeros(vae.latent, np.float32)
    for dimension in range(vae.latent):
        try:
            z[dimension] = np.clip(float(values.get(f"z{dimension}", 0)), -SLIDER_LIMIT, SLIDER_LIMIT)
        except ValueError:
            raise InputError("A slider has an invalid value; move it again.") from None
    return np.nan_to_num(z)


def _sliders(vae: Any, name: str, z: np.ndarray) -> dict[str, Any]:
    shown = set(vae.dimensions)
    return {
        "run": name,
        "sliders": [(dimension, f"{float(z[dimension]):.2f}") for dimension in vae.dimensions],
        "hidden": [(d, f"{float(z[d]):.4f}") for d in range(vae.latent) if d not in shown],
        "image": data_uri(vae.draw(z)),
        "limit": SLIDER_LIMIT,
        "nearest": None,
        "label": "",
    }
