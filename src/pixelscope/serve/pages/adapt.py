"""Adapt: an image drawn, given or picked, in the target's styles, and what classifiers say of each."""

import base64
import binascii
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

import pixelscope
from pixelscope.errors import InputError
from pixelscope.serve.pictures import data_uri
from pixelscope.serve.rendering import render

router = APIRouter()

STYLES = 6
LONGEST = 400_000
"""Characters of a drawing at most."""
SEEDS = 1_000_000


@router.get("/adapt")
async def page(request: Request, run: str = "") -> Response:
    """Show the page, of the run named or the newest one."""
    workspace = request.app.state.workspace
    runs = [one.name for one in workspace.for_page("/adapt")]
    if not runs:
        return render(request, "adapt.html.j2", runs=[], chosen="", examples=[], size=0)
    chosen = run or runs[0]
    studio = await request.app.state.desk.do(partial(workspace.styles, chosen))
    examples = [(label, data_uri(image)) for label, image in studio.examples()]
    return render(request, "adapt.html.j2", runs=runs, chosen=chosen, examples=examples, size=studio.size)


@router.post("/adapt/{name}")
async def adapted(request: Request, name: str) -> Response:
    """Return the redrawn images and the answers to one image."""
    async with request.form(max_files=1, max_fields=8, max_part_size=LONGEST) as form:
        seed, walk = _whole(form.get("seed"), SEEDS), _whole(form.get("walk"), 100) / 100
        upload = form.get("image")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
        drawing, example = str(form.get("drawing") or ""), form.get("example")
    workspace = request.app.state.workspace

    def work() -> dict[str, Any]:
        studio = workspace.styles(name)
        image = _image(studio, content, drawing, example)
        return _result(studio, image, seed, walk)

    return render(request, "adapted.html.j2", **await request.app.state.desk.do(work))


def _image(studio: Any, content: bytes, drawing: str, example: Any) -> np.ndarray:
    """Return the image that was given, uint8 (S, S, 3); raises InputError where there is none."""
    if content:
        return _coloured(pixelscope.decode_bytes(content, studio.size, value_range=studio.value_range), studio.size)
    if drawing:
        return _coloured(pixelscope.decode_bytes(_decoded(drawing), studio.size), studio.size)
    examples = studio.examples()
    if isinstance(example, str) and example.isdigit() and int(example) < len(examples):
        return examples[int(example)][1]
    raise InputError("There is nothing to look at yet; draw something, drop an image, or pick one.")


def _decoded(drawing: str) -> bytes:
    head, comma, content = drawing.partition(",")
    try:
        if head != "data:image/png;base64" or not comma:
            raise ValueError
        return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error):
        raise InputError("The drawing did not arrive whole; draw it again.") from None


def _coloured(image: np.ndarray, size: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(image, (size, size, 3)))


def _result(studio: Any, image: np.ndarray, seed: int, walk: float) -> dict[str, Any]:
    styles = np.stack([studio.style(seed + number) for number in range(STYLES)])
    between = (1 - walk) * styles[0] + walk * styles[1]
    drawn = studio.redraw(image, np.concatenate([styles, between[None]]))
    shown = np.concatenate([image[None], drawn])
    answers = studio.answers(shown)
    cards = [_card(studio, shown, answers, row) for row in range(len(shown))]
    flat = bool((image == image[0, 0]).all())
    return {"given": cards[0], "styles": cards[1:-1], "walk": cards[-1], "classifiers": list(answers), "flat": flat}


def _card(studio: Any, shown: np.ndarray, answers: dict[str, np.ndarray], row: int) -> dict[str, Any]:
    bars = {}
    for name, probabilities in answers.items():
        order = np.argsort(-probabilities[row], kind="stable")[:3]
        bars[name] = [(studio.classes[int(i)], round(100 * float(probabilities[row][i]))) for i in order]
    return {"image": data_uri(shown[row]), "bars": bars}


def _whole(value: Any, most: int) -> int:
    text = str(value or "0")
    return min(int(text), most) if text.isdigit() and len(text) < 9 else 0
