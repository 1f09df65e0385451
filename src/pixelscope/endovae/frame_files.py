"""Reconstructions and new frames of a run, written as PNG files: one grid, or a file a frame."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelscope.data.decode import bombs_refused
from pixelscope.data.listing import image_files
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.chosen import Weights
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.pictures import pixels
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.quality import psnr, ssim
from pixelscope.endovae.reconstructing import prepared, reconstruct_files, save_png
from pixelscope.endovae.reconstruction import reconstruct_frames
from pixelscope.endovae.sampling import decode, interpolate, random_latents, traverse
from pixelscope.endovae.trained import TrainedRun
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.rng import generator
from pixelscope.stream import run as streamed
from pixelscope.stream.manifest import COLUMNS, MANIFEST
from pixelscope.stream.run import Report
from pixelscope.stream.table import csv_text

REACH = 3.0
"""How far a latent dimension is walked along either way, in standard deviations of the prior."""
AT_ONCE = 256
"""Frames drawn before they are written."""
GAP = 2
"""Pixels between the frames of a grid."""


@dataclass(frozen=True)
class Written:
    """What was written, and how near each reconstruction is to its frame."""

    out: str
    count: int
    rule: str
    seed: int
    frames: list[dict[str, Any]]
    """By frame: name, and psnr in dB and ssim of a reconstruction."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a line a reconstruction, and where the files are."""
        widest = max((len(frame["name"]) for frame in self.frames), default=0)
        lines = [f"{f['name']:<{widest}}  {f['psnr']:6.2f} dB  SSIM {f['ssim']:.3f}" for f in self.frames if "psnr" in f]
        return "\n".join([*lines, f"{self.count:,} frames, checkpoint rule {self.rule}: {self.out}"])


def reconstruct(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    sampled: bool = False,
    seed: int = 0,
    rule: str = "auto",
    devices: int = 1,
    resume: bool = False,
    report: Report | None = None,
) -> Written | streamed.Written:
    """Reconstruct image files, and those in folders, from the posterior's mean, and write what comes out.

    Args:
        run: a run folder of EndoVAE.
        paths: files of frames, and folders of them at any depth; each is prepared as the run's own frames were.
        out: a file ending in .png for one grid, originals over reconstructions, which all are held in memory for; else a folder
            to make for a PNG a frame, any number of them, with a manifest.csv: source, file, label (the class folder), PSNR and
            SSIM.
        sampled: reconstruct from a sample of the posterior, drawn from `seed`, in place of its mean.
        rule: which weights; see `evaluate_endovae`.
        devices, resume, report: of a folder; see `score`.

    Raises:
        InputError: no frame or no checkpoint is there, a frame of a grid cannot be read, or the folder exists.
    """
    opened = TrainedRun(run, rule, finished=False)
    if out.suffix.lower() != ".png":
        given = {"sampled": sampled, "seed": seed, "devices": devices, "resume": resume, "report": report}
        return reconstruct_files(opened, paths, out, **given)
    files = _files(paths)
    with bombs_refused():
        frames = np.stack([prepared(file, opened.config.prepare) for file in files])
    draw = generator("cpu", seed, "sampled reconstruction") if sampled else None
    found = reconstruct_frames(opened.weights, frames, draw)
    about = {"run": str(run), "rule": opened.rule, "images": opened.weights.images, "sampled": sampled, "seed": seed}
    save_png(out, grid(np.stack([frames, pixels(found.reconstructions)])), about)
    quality = zip(psnr(found.images, found.reconstructions), ssim(found.images, found.reconstructions), strict=True)
    rows = [{"name": str(f), "psnr": float(p), "ssim": float(s)} for f, (p, s) in zip(files, quality, strict=True)]
    return Written(str(out), len(files), opened.rule, seed, rows)


def generate(
    run: Path,
    out: Path,
    *,
    count: int = 9,
    seed: int = 0,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    rule: str = "auto",
) -> Written:
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
    opened = TrainedRun(run, rule, finished=False)
    config, name, weights = opened.config, opened.rule, opened.weights
    if count < 1 or (between is not None and dimension is not None):
        raise InputError("Give a --count of at least 1, and one of --between and --dimension at most.")
    if dimension is not None and not 0 <= dimension < config.model.latent:
        raise InputError(f"{run} has the latent dimensions 0 to {config.model.latent - 1}, not {dimension}; name one of them.")
    z = _latents(weights, config, count, seed, between, dimension)
    about = {"run": str(run), "rule": name, "images": weights.images, "seed": seed, "dimension": dimension}
    if between is not None:
        about["between"] = [str(path) for path in between]
    names = [f"{number:05d}.png" for number in range(count)]
    if out.suffix.lower() == ".png":
        columns = count if between is not None or dimension is not None else int(np.ceil(np.sqrt(count)))
        save_png(out, grid(_rows(decode(weights.decoder, z).numpy(), columns)), about)
    else:
        for start in range(0, count, AT_ONCE):
            some = decode(weights.decoder, z[start : start + AT_ONCE]).numpy()
            for frame, drawn in zip(names[start : start + AT_ONCE], some, strict=True):
                save_png(out / frame, drawn, about)
        rows = [("", frame, "", number) for number, frame in enumerate(names)]
        write_text(out / MANIFEST, csv_text([COLUMNS, *rows]))
    return Written(str(out), count, name, seed, [{"name": frame} for frame in names])


def grid(rows: np.ndarray) -> np.ndarray:
    """Return one image of rows of frames: uint8 (R, K, S, S, 3) to (H, W, 3), white between them."""
    count, columns, side = rows.shape[:3]
    step = side + GAP
    page = np.full((count * step + GAP, columns * step + GAP, 3), 255, np.uint8)
    for row in range(count):
        for column in range(columns):
            top, left = GAP + row * step, GAP + column * step
            page[top : top + side, left : left + side] = rows[row, column]
    return page


@torch.no_grad()
def _latents(
    weights: Weights,
    config: EndoVAEConfig,
    count: int,
    seed: int,
    between: tuple[Path, Path] | None,
    dimension: int | None,
) -> torch.Tensor:
    if between is not None:
        with bombs_refused():
            ends = np.stack([prepared(path, config.prepare) for path in between])
        modes = Posterior.of(weights.encoder(to_unit(as_channels_first(ends)))).mode
        return interpolate(modes[0], modes[1], count)
    if dimension is not None:
        return traverse(torch.zeros(config.model.latent), dimension, torch.linspace(-REACH, REACH, count))
    return random_latents(count, config.model.latent, generator("cpu", seed, "generated"))


def _files(paths: Sequence[Path]) -> list[Path]:
    files = [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise InputError(f"There are no images in {', '.join(map(str, paths))}; give image files or folders of them.")
    return files


def _rows(frames: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (N, S, S, 3) in rows of `columns`, the last one filled up with white."""
    missing = -len(frames) % columns
    filled = np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)])
    return filled.reshape(-1, columns, *frames.shape[1:])
