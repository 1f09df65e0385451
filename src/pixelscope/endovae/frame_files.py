"""Reconstructions and new frames of a run, written as PNG files: one grid, or a file a frame."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pixelscope.data.decode import image_files, read_image
from pixelscope.data.frame_preparation import prepare_frame
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.chosen import Weights, choose
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.pictures import pixels
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.quality import psnr, ssim
from pixelscope.endovae.reconstruction import reconstruct_frames
from pixelscope.endovae.sampling import decode, interpolate, random_latents, traverse
from pixelscope.endovae.training import read_config
from pixelscope.engine.randomness import generator
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.files import written_whole

REACH = 3.0
"""How far a latent dimension is walked along either way, in standard deviations of the prior."""
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
    run: Path, paths: Sequence[Path], out: Path, *, sampled: bool = False, seed: int = 0, rule: str = "auto"
) -> Written:
    """Reconstruct image files, and those in folders, from the posterior's mean, and write what comes out.

    Args:
        run: a run folder of EndoVAE.
        paths: files of frames, and folders of them at any depth; each is prepared as the run's own frames were.
        out: a file ending in .png for one grid, originals over reconstructions; else a folder for a PNG a frame.
        sampled: reconstruct from a sample of the posterior, drawn from `seed`, in place of its mean.
        rule: which weights; see `evaluate_endovae`.

    Raises:
        InputError: no frame or no checkpoint is there, a frame cannot be read, or two would have the same name in `out`.
    """
    config, name, weights = _opened(run, rule)
    files = _files(paths)
    frames = np.stack([_prepared(file, config) for file in files])
    draw = generator("cpu", seed, "sampled reconstruction") if sampled else None
    found = reconstruct_frames(weights, frames, draw)
    about = {"run": str(run), "rule": name, "images": weights.images, "sampled": sampled, "seed": seed}
    drawn = pixels(found.reconstructions)
    if out.suffix.lower() == ".png":
        _save(out, grid(np.stack([frames, drawn])), about)
    else:
        _save_each(out, {f"{file.stem}.png": frame for file, frame in zip(files, drawn, strict=True)}, len(files), about)
    quality = zip(psnr(found.images, found.reconstructions), ssim(found.images, found.reconstructions), strict=True)
    rows = [{"name": str(f), "psnr": float(p), "ssim": float(s)} for f, (p, s) in zip(files, quality, strict=True)]
    return Written(str(out), len(files), name, seed, rows)


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
        out: a file ending in .png for one grid; else a folder for a PNG a frame.
        count: how many.
        seed: of the random z.
        between: two image files, whose posterior means are the ends of the way.
        dimension: latent dimension, from 0, that goes from -3 to 3 while the others are 0.
        rule: which weights; see `evaluate_endovae`.

    Raises:
        InputError: settings exclude each other, or the run has no such dimension or checkpoint.
    """
    config, name, weights = _opened(run, rule)
    if count < 1 or (between is not None and dimension is not None):
        raise InputError("Give a --count of at least 1, and one of --between and --dimension at most.")
    if dimension is not None and not 0 <= dimension < config.model.latent:
        raise InputError(f"{run} has the latent dimensions 0 to {config.model.latent - 1}, not {dimension}; name one of them.")
    drawn = decode(weights.decoder, _latents(weights, config, count, seed, between, dimension)).numpy()
    about = {"run": str(run), "rule": name, "images": weights.images, "seed": seed, "dimension": dimension}
    if between is not None:
        about["between"] = [str(path) for path in between]
    names = [f"{number:05d}.png" for number in range(count)]
    if out.suffix.lower() == ".png":
        columns = count if between is not None or dimension is not None else int(np.ceil(np.sqrt(count)))
        _save(out, grid(_rows(drawn, columns)), about)
    else:
        _save_each(out, dict(zip(names, drawn, strict=True)), count, about)
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


def _opened(run: Path, rule: str) -> tuple[EndoVAEConfig, str, Weights]:
    folder = RunFolder.open(run)
    config = read_config(folder)
    return config, *choose(folder, config, rule)


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
        ends = np.stack([_prepared(path, config) for path in between])
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


def _prepared(path: Path, config: EndoVAEConfig) -> np.ndarray:
    """Return one file as uint8 (S, S, 3), prepared as a run's frames were."""
    image = read_image(path)
    return prepare_frame(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))), None, config.prepare).frame


def _rows(frames: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (N, S, S, 3) in rows of `columns`, the last one filled up with white."""
    missing = -len(frames) % columns
    filled = np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)])
    return filled.reshape(-1, columns, *frames.shape[1:])


def _save_each(folder: Path, frames: dict[str, np.ndarray], count: int, about: dict[str, Any]) -> None:
    if len(frames) < count:
        raise InputError(f"Some of the {count} files have the same name; take them folder by folder, or write one .png grid.")
    for name, frame in frames.items():
        _save(folder / name, frame, about)


def _save(path: Path, image: np.ndarray, about: dict[str, Any]) -> None:
    note = PngInfo()
    note.add_text("pixelscope", json.dumps(about))
    with written_whole(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=note)
