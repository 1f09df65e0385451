"""Generates frames from random latent vectors, between two frames, or along one latent dimension.

Importing this imports no torch.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelscope.data.decode import reject_decompression_bombs
from pixelscope.endovae.inference.images import ImagesWritten, grid, read_prepared, save_png
from pixelscope.endovae.inference.metadata import Bytes, Floats
from pixelscope.errors import InputError
from pixelscope.files import csv_text, write_text
from pixelscope.inference.files import COLUMNS, MANIFEST

if TYPE_CHECKING:
    from pixelscope.endovae.checkpoints import Checkpoint

REACH = 3.0
"""Range of a traversal to either side, in standard deviations of the prior."""
AT_ONCE = 256
"""Frames decoded at a time, before they are written."""


def generate(
    run: Path,
    out: Path,
    *,
    count: int = 9,
    seed: int = 0,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    checkpoint: str = "auto",
) -> ImagesWritten:
    """Generate frames: random ones, by interpolation between two frames, or along one latent dimension.

    Random frames are decoded from z ~ N(0, I). A spatial code has no prior that knows frames: its random frames are of a
    Gaussian along the principal components of the training frames' codes, and so is its latent dimension.

    Args:
        run: a run folder of EndoVAE.
        out: a file ending in .png for one grid; else a folder for one PNG per frame, and manifest.csv with one row per frame.
        count: number of frames.
        seed: of the random z.
        between: two image files, between whose posterior means to interpolate.
        dimension: latent dimension, from 0, to vary from -3 to 3 while the others are 0; of a spatial code, a principal
            component.
        checkpoint: which weights; see `evaluate_endovae`.

    Raises:
        InputError: `between` and `dimension` are both given, or the run has no such dimension or checkpoint.

    Example:
        >>> pixelscope.endovae.generate(Path("runs/healthy"), Path("new.png"), count=9)
    """
    from pixelscope.endovae.checkpoints import load_checkpoint

    loaded = load_checkpoint(run, checkpoint, finished=False)
    if count < 1 or (between is not None and dimension is not None):
        raise InputError("Give a --count of at least 1, and only one of --between and --dimension.")
    about: dict[str, object] = {"run": str(run), "checkpoint": loaded.name, "images": loaded.images}
    about |= {"seed": seed, "dimension": dimension}
    if between is not None:
        about["between"] = [str(path) for path in between]
    names = [f"{number:05d}.png" for number in range(count)]
    frames = _frames(loaded, count, seed, between, dimension)
    if out.suffix.lower() == ".png":
        one_row = between is not None or dimension is not None
        columns = count if one_row else int(np.ceil(np.sqrt(count)))
        save_png(out, grid(_rows(np.concatenate(list(frames)), columns)), about)
    else:
        _write_files(out, names, frames, about)
    return ImagesWritten(str(out), count, loaded.name, seed, [{"name": name} for name in names])


def _frames(
    checkpoint: "Checkpoint", count: int, seed: int, between: tuple[Path, Path] | None, dimension: int | None
) -> Iterator[Bytes]:
    """Return an iterator over batches of frames, uint8 (n, S, S, 3)."""
    from pixelscope.endovae.inference.torch_model import TorchVAE
    from pixelscope.endovae.latent_prior.sample import iterate_frames

    vae = TorchVAE(checkpoint.encoder, checkpoint.decoder)
    if between is not None:
        with reject_decompression_bombs():
            ends = np.stack([read_prepared(path, checkpoint.config.prepare) for path in between])
        z = interpolate(vae.encode(ends), count)
    elif dimension is not None:
        z = _along_axis(checkpoint, count, dimension)
    else:
        return iterate_frames(checkpoint, count, seed)
    return (vae.decode(z[start : start + AT_ONCE]) for start in range(0, count, AT_ONCE))


def _along_axis(checkpoint: "Checkpoint", count: int, dimension: int) -> Floats:
    """Return latent vectors (count, latent) along one axis."""
    from pixelscope.endovae.forward import read_axes

    axes = read_axes(checkpoint)
    if not 0 <= dimension < len(axes):
        raise InputError(f"{checkpoint.folder.path} has no latent dimension {dimension}; give one from 0 to {len(axes) - 1}.")
    return axes.vectors(traverse(len(axes), dimension, count))


def interpolate(ends: Floats, steps: int) -> Floats:
    """Return latent vectors (steps, latent) on the straight line between `ends`, (2, latent), both included."""
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - share) * ends[0] + share * ends[1]


def traverse(axes: int, dimension: int, steps: int) -> Floats:
    """Return coordinates (steps, axes) with one of them from -`REACH` to `REACH` and the others 0."""
    z = np.zeros((steps, axes), np.float32)
    z[:, dimension] = np.linspace(-REACH, REACH, steps)
    return z


def _write_files(out: Path, names: list[str], frames: Iterable[Bytes], about: dict[str, object]) -> None:
    for name, frame in zip(names, chain.from_iterable(frames), strict=True):
        save_png(out / name, frame, about)
    rows = [("", name, "", number) for number, name in enumerate(names)]
    write_text(out / MANIFEST, csv_text([COLUMNS, *rows]))


def _rows(frames: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (N, S, S, 3) in rows of `columns`; the last row is padded with white frames."""
    missing = -len(frames) % columns
    filled = np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)])
    return filled.reshape(-1, columns, *frames.shape[1:])
