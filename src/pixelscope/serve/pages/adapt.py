"""The page Adapt: translates a drawn, uploaded or picked image into the target's style, and classifies it."""

import base64
import binascii
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.rendering import data_uri, find_system, render, rgb

router = APIRouter()

SYSTEM = "pixelda"

STYLES = 6
MAX_DRAWING = 400_000
"""Maximum length of a drawing in characters."""
MAX_SEED = 1_000_000


@router.get("/adapt")
async def page(request: Request, run: str = "") -> Response:
    """Show the page for a run, by default the newest."""
    models = request.app.state.models
    runs = [one.name for one in models.runs_of(SYSTEM)]
    if not runs:
        return render(request, "adapt.html.j2", system=find_system(SYSTEM).title, runs=[])
    chosen = run or runs[0]
    generator = await request.app.state.worker.submit(partial(models.generator, chosen))
    examples = [(label, data_uri(image)) for label, image in generator.examples()]
    return render(request, "adapt.html.j2", runs=runs, chosen=chosen, examples=examples)


@router.post("/adapt/{name}")
async def adapt(request: Request, name: str) -> Response:
    """Return an image in several styles with the predictions for each."""
    async with request.form(max_files=1, max_fields=8, max_part_size=MAX_DRAWING) as form:
        seed, percent = _whole_number(form.get("seed")) or 0, _whole_number(form.get("interpolation")) or 0
        upload = form.get("image")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
        drawing, example = str(form.get("drawing") or ""), form.get("example")
    models = request.app.state.models

    def compute() -> dict[str, Any]:
        generator = models.generator(name)
        image = _image(generator, content, drawing, _whole_number(example))
        return _result(generator, image, min(seed, MAX_SEED), min(percent, 100) / 100)

    return render(request, "adapted.html.j2", **await request.app.state.worker.submit(compute))


def _image(generator: Any, content: bytes, drawing: str, example: int | None) -> np.ndarray:
    """Return the input image, uint8 (S, S, 3); raises InputError if there is none."""
    if content:
        return rgb(pixelscope.decode_bytes(content, generator.size, value_range=generator.value_range))
    if drawing:
        return rgb(pixelscope.decode_bytes(_decode_drawing(drawing), generator.size))
    examples = generator.examples()
    if example is not None and example < len(examples):
        return examples[example][1]
    raise InputError("There is no image yet; draw, upload or pick one.")


def _decode_drawing(drawing: str) -> bytes:
    head, comma, content = drawing.partition(",")
    try:
        if head != "data:image/png;base64" or not comma:
            raise ValueError
        return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error):
        raise InputError("The drawing is incomplete; draw it again.") from None


def _result(generator: Any, image: np.ndarray, seed: int, interpolation: float) -> dict[str, Any]:
    styles = np.stack([generator.style(seed + number) for number in range(STYLES)])
    between = (1 - interpolation) * styles[0] + interpolation * styles[1]
    adapted = generator.redraw(image, np.concatenate([styles, between[None]]))
    shown = np.concatenate([image[None], adapted])
    answers = generator.answers(shown)
    cards = [_card(generator, shown, answers, row) for row in range(len(shown))]
    flat = bool((image == image[0, 0]).all())
    return {"given": cards[0], "styles": cards[1:-1], "interpolation": cards[-1], "classifiers": list(answers), "flat": flat}


def _card(generator: Any, shown: np.ndarray, answers: dict[str, np.ndarray], row: int) -> dict[str, Any]:
    bars = {}
    for name, probabilities in answers.items():
        order = np.argsort(-probabilities[row], kind="stable")[:3]
        bars[name] = [(generator.classes[int(i)], round(100 * float(probabilities[row][i]))) for i in order]
    return {"image": data_uri(shown[row]), "bars": bars}


def _whole_number(value: Any) -> int | None:
    """Return the number in a field of a form; None if it has none, or one of more than eight digits."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 9 else None
