"""The page Endoscopy: explores a latent space and scores a frame. For research only."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.charts import data_uri, histogram
from pixelscope.serve.rendering import find_system, render

router = APIRouter()

SYSTEM = "endovae"

SLIDER_LIMIT = 3.0
"""Range of a slider in both directions, in standard deviations of the prior."""


@router.get("/endoscopy")
async def page(request: Request, run: str = "") -> Response:
    """Show the page for a run, by default the newest."""
    models = request.app.state.models
    runs = [one.name for one in models.runs_of(SYSTEM)]
    if not runs:
        return render(request, "endoscopy.html.j2", system=find_system(SYSTEM).title, runs=[])
    chosen = run or runs[0]

    def compute() -> tuple[dict[str, Any], str]:
        vae = models.vae(chosen)
        return _sliders(vae, chosen, np.zeros(vae.latent, np.float32)), vae.uncalibrated

    latent, uncalibrated = await request.app.state.worker.submit(compute)
    return render(request, "endoscopy.html.j2", runs=runs, chosen=chosen, latent=latent, uncalibrated=uncalibrated)


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
    """Return the reconstruction, heatmap and anomaly score of a frame."""
    async with request.form(max_files=1, max_fields=2) as form:
        upload = form.get("frame")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
    if not content:
        raise InputError("There is no frame yet; choose a file, or drop one.")
    compute = partial(_score, request.app.state.models, name, content)
    return render(request, "score.html.j2", **await request.app.state.worker.submit(compute))


def _score(models: Any, name: str, content: bytes) -> dict[str, Any]:
    vae = models.vae(name)
    image = pixelscope.decode_bytes(content, value_range=vae.config.prepare.range)
    found = vae.analyze(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    images = [
        ("Content area", found.frame),
        ("Reconstruction error", found.heatmap),
        ("Input of the network", found.prepared),
        ("Reconstruction", found.reconstruction),
    ]
    return {
        "images": [(title, data_uri(image)) for title, image in images],
        "score": f"{found.score:.4g}",
        "p": f"{found.p:.3f}",
        "name": found.name,
        "count": len(found.calibration),
        "histogram": histogram(found.calibration, found.score),
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
