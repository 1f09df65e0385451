"""Rows of frames: what there is, how it is altered, what comes back, and what is drawn anew."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from pixelscope.report.plotting import GREY, WIDTH, Canvas, fitted, styled, text_width

LINE = 14.0
"""Height of a line of text."""
GAP = 6.0
LARGEST = 96.0
"""Largest side of a tile."""
APART = 26.0
"""Room between two groups of tiles."""
MARGIN, WIDEST = 76.0, 170.0
"""Room at the left for the names of the rows: at least, at most."""
WORDS = 11.0
"""Size of the letters beside the tiles."""
MOMENTS = 8
"""Most moments of a training shown."""
SMALL = 64
"""Side of a tile where there are very many."""


class Reconstructions(NamedTuple):
    """Frames of one set and what became of them: uint8 (K, H, W, 3), and their quality, (K,)."""

    title: str
    originals: np.ndarray
    reconstructions: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray


class HeatMaps(NamedTuple):
    """Frames of one kind, uint8 (K, H, W, 3), their heat maps of the same shape, lesions, bool (K, H, W), p-values, (K,)."""

    title: str
    frames: np.ndarray
    overlays: np.ndarray
    lesions: np.ndarray
    p: np.ndarray


@styled
def classes_gallery(frames: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw frames, uint8 (K, H, W, 3), a row a class; labels: int (K,), into `classes`."""
    shown = [label for label in range(len(classes)) if (labels == label).any()]
    rows = [(classes[label], frames[labels == label]) for label in shown]
    return _rows(rows)


@styled
def versions_gallery(versions: np.ndarray) -> Figure:
    """Draw frames above their altered copies; versions: uint8 (K, 1 + copies, H, W, 3), the original first."""
    names = ["original", *(f"copy {number}" for number in range(1, versions.shape[1]))]
    return _rows([(name, versions[:, row]) for row, name in enumerate(names)])


@styled
def progress_gallery(images: np.ndarray, originals: np.ndarray, reconstructions: np.ndarray, generated: np.ndarray) -> Figure:
    """Draw the same frames reconstructed, and the same z decoded, at moments of the training, one row a moment.

    images: int (M,), images seen; originals: uint8 (K, H, W, 3); reconstructions: uint8 (M, K, H, W, 3); generated:
    uint8 (M, Z, H, W, 3). Of more than 8 moments 8 are drawn, evenly spread, the first and the last among them.
    """
    chosen = chosen_moments(len(images))
    frames, draws = len(originals), generated.shape[1]
    names = [f"{int(images[moment]):,}\nimages" for moment in chosen]
    margin = max(MARGIN, *(text_width(name.split("\n")[0], WORDS) + 20 for name in names))
    side = min(SMALL, (WIDTH - margin - APART) / (frames + draws) - GAP)
    right = margin + frames * (side + GAP) + APART
    top = LINE + 10
    canvas = Canvas.of(right + draws * (side + GAP), top + (len(chosen) + 1) * (side + GAP) + GAP)
    canvas.text(margin, LINE, "validation frames, reconstructed", ha="left", fontweight="bold")
    canvas.text(right, LINE, "random z, decoded", ha="left", fontweight="bold")
    _row(canvas, "original", shrunk(originals), top, side, margin)
    for row, (moment, name) in enumerate(zip(chosen, names, strict=True), 1):
        y = top + row * (side + GAP) + GAP
        _row(canvas, name, shrunk(reconstructions[moment]), y, side, margin)
        canvas.tiles(shrunk(generated[moment]), right, y, side, GAP)
    return canvas.figure


@styled
def reconstruction_gallery(groups: Sequence[Reconstructions]) -> Figure:
    """Draw originals above their reconstructions, PSNR and SSIM below, one or two groups beside each other."""
    side = _side(sum(len(group.originals) for group in groups), APART * (len(groups) - 1))
    width = MARGIN + sum(len(group.originals) * (side + GAP) for group in groups) + APART * (len(groups) - 1)
    top = LINE + 10
    canvas = Canvas.of(width, top + 2 * (side + GAP) + 2 * LINE + 6)
    left, below = MARGIN, top + 2 * (side + GAP)
    for y, name in ((0.0, "original"), (side + GAP, "EndoVAE")):
        canvas.text(MARGIN - 10, top + y + side / 2, name, ha="right", va="center")
    for y, name in ((1, "PSNR, dB"), (2, "SSIM")):
        canvas.text(MARGIN - 10, below + y * LINE, name, ha="right")
    for group in groups:
        _reconstructed(canvas, group, left, top, side)
        left += len(group.originals) * (side + GAP) + APART
    return canvas.figure


@styled
def heat_gallery(groups: Sequence[HeatMaps]) -> Figure:
    """Draw frames, lesions outlined, above their heat maps, p-values below; a group a pair of rows."""
    margin = min(WIDEST, max(MARGIN, *(text_width(group.title, WORDS) + 20 for group in groups)))
    side = min(LARGEST, (WIDTH - margin) / max(len(group.frames) for group in groups) - GAP)
    height = 2 * (side + GAP) + LINE + APART
    canvas = Canvas.of(
        margin + max(len(group.frames) for group in groups) * (side + GAP), len(groups) * height - APART + GAP + 4
    )
    for number, group in enumerate(groups):
        top = GAP + number * height
        _row(canvas, group.title, outlined(group.frames, group.lesions), top, side, margin)
        _row(canvas, "heat map", group.overlays, top + side + GAP, side, margin)
        canvas.text(margin - 10, top + 2 * (side + GAP) + LINE - 3, "p", ha="right")
        for column, p in enumerate(group.p):
            canvas.text(margin + column * (side + GAP) + side / 2, top + 2 * (side + GAP) + LINE - 3, f"{p:.3f}")
    return canvas.figure


def outlined(frames: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Return uint8 frames (K, H, W, 3) with a white line inside the edge of what is True in `lesions` (K, H, W)."""
    inner = np.stack([np.asarray(ndimage.binary_erosion(lesion, border_value=1), bool) for lesion in lesions])
    drawn = frames.copy()
    drawn[lesions & ~inner] = 255
    return drawn


@styled
def generated_gallery(generated: np.ndarray) -> Figure:
    """Draw new frames, uint8 (K, H, W, 3), in rows."""
    columns = min(len(generated), int((WIDTH - GAP) // (LARGEST + GAP)))
    canvas = Canvas.of(columns * (LARGEST + GAP) + GAP, -(-len(generated) // columns) * (LARGEST + GAP) + GAP)
    for row, first in enumerate(range(0, len(generated), columns)):
        canvas.tiles(generated[first : first + columns], GAP, GAP + row * (LARGEST + GAP), LARGEST, GAP)
    return canvas.figure


@styled
def interpolation_gallery(ends: np.ndarray, ways: np.ndarray) -> Figure:
    """Draw ways between two frames, one a row, the frames themselves at both ends.

    ends: uint8 (W, 2, H, W, 3); ways: uint8 (W, STEPS, H, W, 3).
    """
    steps = ways.shape[1]
    side = min(LARGEST, (WIDTH - 2 * APART) / (steps + 2) - GAP)
    left, top = GAP + side + APART, LINE + 10
    right = left + steps * (side + GAP) + APART - GAP
    canvas = Canvas.of(right + side + GAP, top + len(ways) * (side + GAP))
    for x, words in ((GAP, "frame"), (left, "decoded from its code, and step by step to that of the other"), (right, "frame")):
        canvas.text(x, LINE, words, ha="left", fontweight="bold")
    for row, (both, way) in enumerate(zip(ends, ways, strict=True)):
        y = top + row * (side + GAP)
        canvas.tiles(both[:1], GAP, y, side, GAP)
        canvas.tiles(way, left, y, side, GAP)
        canvas.tiles(both[1:], right, y, side, GAP)
    for x in (left - GAP / 2, right + GAP / 2):
        canvas.axes.axvline(x - APART / 2, color=GREY, linewidth=1)
    return canvas.figure


@styled
def traversal_gallery(walks: np.ndarray, values: np.ndarray, dimensions: np.ndarray, kl: np.ndarray) -> Figure:
    """Draw what the decoder makes of one latent dimension moved while the others are 0, a row a dimension.

    walks: uint8 (D, K, H, W, 3); values: (K,), where along the dimension; dimensions: int (D,); kl: (D,), in nats.
    """
    side = _side(len(values))
    canvas = Canvas.of(MARGIN + len(values) * (side + GAP), LINE + 10 + len(walks) * (side + GAP))
    for column, value in enumerate(values):
        words = f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-6 else "0"
        canvas.text(MARGIN + column * (side + GAP) + side / 2, LINE, words)
    for row, (walk, dimension, divergence) in enumerate(zip(walks, dimensions, kl, strict=True)):
        _row(canvas, f"z {int(dimension) + 1}\nKL {divergence:.2f}", walk, LINE + 10 + row * (side + GAP), side)
    return canvas.figure


def chosen_moments(count: int) -> list[int]:
    """Return the positions of at most 8 of `count` moments, evenly spread, the first and the last among them."""
    return sorted({round(float(p)) for p in np.linspace(0, count - 1, min(count, MOMENTS))})


def shrunk(images: np.ndarray) -> np.ndarray:
    """Return uint8 images (K, H, W, 3) with sides of at most 64 pixels, so that very many do not swell the page."""
    if max(images.shape[1:3]) <= SMALL:
        return images
    height, width = (max(1, round(length * SMALL / max(images.shape[1:3]))) for length in images.shape[1:3])
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)) for image in images])


def _side(columns: int, apart: float = 0.0) -> float:
    """Return the side of a tile where so many stand in a row beside the names of the rows."""
    return min(LARGEST, (WIDTH - MARGIN - apart) / columns - GAP)


def _rows(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    margin = min(WIDEST, max(MARGIN, *(text_width(name, WORDS) + 20 for name, _ in rows)))
    columns = max(len(images) for _, images in rows)
    side = min(LARGEST, (WIDTH - margin) / columns - GAP)
    canvas = Canvas.of(margin + columns * (side + GAP), GAP + len(rows) * (side + GAP))
    for row, (name, images) in enumerate(rows):
        _row(canvas, fitted(name, margin - 14, WORDS), images, GAP + row * (side + GAP), side, margin)
    return canvas.figure


def _row(canvas: Canvas, name: str, images: np.ndarray, top: float, side: float, margin: float = MARGIN) -> None:
    canvas.text(margin - 10, top + side / 2, name, ha="right", va="center", fontsize=WORDS)
    canvas.tiles(images, margin, top, side, GAP)


def _reconstructed(canvas: Canvas, group: Reconstructions, left: float, top: float, side: float) -> None:
    width = len(group.originals) * (side + GAP)
    canvas.text(left, LINE, fitted(group.title, width, WORDS), ha="left", fontweight="bold", fontsize=WORDS)
    canvas.tiles(group.originals, left, top, side, GAP)
    canvas.tiles(group.reconstructions, left, top + side + GAP, side, GAP)
    for column, (psnr, ssim) in enumerate(zip(group.psnr, group.ssim, strict=True)):
        x = left + column * (side + GAP) + side / 2
        canvas.text(x, top + 2 * (side + GAP) + LINE, f"{psnr:.1f}")
        canvas.text(x, top + 2 * (side + GAP) + 2 * LINE, f"{ssim:.3f}")
