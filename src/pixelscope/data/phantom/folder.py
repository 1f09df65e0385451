"""Folders of drawn frames, laid out as folders of real ones are."""

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from pixelscope.data.phantom.frame import draw_frame
from pixelscope.errors import InputError
from pixelscope.files import write_text

NORMAL, POLYPS, MASKS = "normal-phantom", "polyps", "polyp-masks"
"""The folders of frames without a polyp, of frames with one, and of where it is."""
RECIPE = "phantom.json"
"""Says how the frames beside it were drawn."""
DRAWING = 1
"""Version of the drawing; one more whenever a seed comes to mean another frame."""

_QUALITY = 92


def write_phantom(folder: Path, *, normal: int, polyps: int, seed: int) -> Path:
    """Write drawn frames as `normal-phantom/*.jpg` and `polyps/*.jpg`, and masks of the polyps as `polyp-masks/*.png`.

    Every frame shows another view. The same seed gives the same files with the same versions of NumPy and OpenCV, and
    more frames of it begin with the same ones. The folder appears when all of them are written; one that holds these
    frames already is left as it is.

    Args:
        folder: where to write; it must not exist, or be empty, or hold the frames of the same call.
        normal: frames without a polyp.
        polyps: frames with one.
        seed: 0 or more.

    Returns:
        `folder`.

    Raises:
        InputError: there would be no frames, a number is negative, or the folder holds something else.
    """
    if min(normal, polyps, seed) < 0 or normal + polyps == 0:
        raise InputError(
            f"{normal} normal frames and {polyps} with polyps cannot be drawn from the seed {seed}; give numbers of 0 or more, "
            "and at least one frame."
        )
    recipe = {"drawing": DRAWING, "normal": normal, "polyps": polyps, "seed": seed}
    if not _is_free(folder, recipe):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as outer:
        unfinished = Path(outer) / folder.name
        _write_frames(unfinished, seed, normal, polyps)
        write_text(unfinished / RECIPE, json.dumps(recipe, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    return folder


def _is_free(folder: Path, recipe: dict[str, int]) -> bool:
    """Say whether `folder` can be written; False where it holds what `recipe` asks for."""
    if not folder.exists():
        return True
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    if not _holds(folder, recipe):
        raise InputError(f"{folder} exists and holds something else than these frames; remove it, or choose another folder.")
    return False


def _holds(folder: Path, recipe: dict[str, int]) -> bool:
    try:
        found = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    parts = {NORMAL: recipe["normal"], POLYPS: recipe["polyps"], MASKS: recipe["polyps"]}
    return found == recipe and all(len(list((folder / name).glob("*.*"))) == count for name, count in parts.items())


def _write_frames(folder: Path, seed: int, normal: int, polyps: int) -> None:
    for kind, (name, count) in enumerate(((NORMAL, normal), (POLYPS, polyps))):
        # A class without frames has no folder.
        for number, own_seed in enumerate(np.random.SeedSequence([seed, kind]).generate_state(count, np.uint64)):
            frame = draw_frame(int(own_seed), polyp=name == POLYPS)
            _write_jpeg(folder / name / f"{number:04}.jpg", frame.image)
            if name == POLYPS:
                _write_png(folder / MASKS / f"{number:04}.png", frame.lesion)


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    _write(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _write_png(path: Path, mask: NDArray[np.bool_]) -> None:
    _write(path, 255 * mask.astype(np.uint8), [])


def _write(path: Path, pixels: MatLike, options: list[int]) -> None:
    # By way of memory: OpenCV's own writing to files fails without a word where the disk is full.
    encoded = cv2.imencode(path.suffix, pixels, options)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
