"""New frames of a run: from random latent vectors, between two frames, or along one latent dimension."""

from pathlib import Path

import numpy as np
import torch

from pixelscope.data.decode import bombs_refused
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.data import as_channels_first, to_unit
from pixelscope.endovae.forward import decode, interpolate, random_latents, traverse
from pixelscope.endovae.inference.images import ImagesWritten, grid, read_prepared, save_png
from pixelscope.endovae.posterior import Posterior
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.inference.files import COLUMNS, MANIFEST
from pixelscope.inference.table import csv_text
from pixelscope.rng import generator

REACH = 3.0
"""How far a latent dimension is walked along either way, in standard deviations of the prior."""
AT_ONCE = 256
"""Frames drawn before they are written."""


def generate(
    run: Path,
    out: Path,
    *,
    count: int = 9,
    seed: int = 0,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    rule: str = "auto",
) -> ImagesWritten:
    """Draw new frames: of random z ~ N(0, I), on the way between two frames, or along one latent dimension.

    Args:
        run: a run folder of EndoVAE.
        out: a file ending in .png for one grid; else a folder for a PNG a frame, and manifest.csv with a row of each.
        count: how many.
        seed: of the random z.
        between: two image files, whose posterior means are the ends of the way.
        dimension: latent dimension, from 0, that goes from -3 to 3 while the others are 0.
        rule: which weights; see `evaluate_endovae`.

    Raises:
        InputError: settings exclude each other, or the run has no such dimension or checkpoint.
    """
    checkpoint = load_checkpoint(run, rule, finished=False)
    latent = checkpoint.config.model.latent
    if count < 1 or (between is not None and dimension is not None):
        raise InputError("Give a --count of at least 1, and one of --between and --dimension at most.")
    if dimension is not None and not 0 <= dimension < latent:
        raise InputError(f"{run} has the latent dimensions 0 to {latent - 1}, not {dimension}; name one of them.")
    z = _latents(checkpoint, count, seed, between, dimension)
    about = {"run": str(run), "rule": checkpoint.rule, "images": checkpoint.images, "seed": seed, "dimension": dimension}
    if between is not None:
        about["between"] = [str(path) for path in between]
    names = [f"{number:05d}.png" for number in range(count)]
    if out.suffix.lower() == ".png":
        columns = count if between is not None or dimension is not None else int(np.ceil(np.sqrt(count)))
        save_png(out, grid(_rows(decode(checkpoint.decoder, z).numpy(), columns)), about)
    else:
        for start in range(0, count, AT_ONCE):
            some = decode(checkpoint.decoder, z[start : start + AT_ONCE]).numpy()
            for frame, drawn in zip(names[start : start + AT_ONCE], some, strict=True):
                save_png(out / frame, drawn, about)
        rows = [("", frame, "", number) for number, frame in enumerate(names)]
        write_text(out / MANIFEST, csv_text([COLUMNS, *rows]))
    return ImagesWritten(str(out), count, checkpoint.rule, seed, [{"name": frame} for frame in names])


@torch.no_grad()
def _latents(
    checkpoint: Checkpoint,
    count: int,
    seed: int,
    between: tuple[Path, Path] | None,
    dimension: int | None,
) -> torch.Tensor:
    if between is not None:
        with bombs_refused():
            ends = np.stack([read_prepared(path, checkpoint.config.prepare) for path in between])
        modes = Posterior.from_parameters(checkpoint.encoder(to_unit(as_channels_first(ends)))).mode
        return interpolate(modes[0], modes[1], count)
    latent = checkpoint.config.model.latent
    if dimension is not None:
        return traverse(torch.zeros(latent), dimension, torch.linspace(-REACH, REACH, count))
    return random_latents(count, latent, generator("cpu", seed, "generated"))


def _rows(frames: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (N, S, S, 3) in rows of `columns`, the last one filled up with white."""
    missing = -len(frames) % columns
    filled = np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)])
    return filled.reshape(-1, columns, *frames.shape[1:])
