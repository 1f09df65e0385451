"""Frames reconstructed: any number of them into a folder, with a table of PSNR and SSIM, or a few into one grid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelscope.data.decode import bombs_refused
from pixelscope.data.sources.listing import image_files
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.data import as_channels_first, to_unit
from pixelscope.endovae.forward import reconstruct_frames
from pixelscope.endovae.inference.images import ImagesWritten, grid, read_prepared, save_png
from pixelscope.endovae.metrics import psnr, ssim
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.samples import pixels
from pixelscope.engine.checkpoint import fingerprint
from pixelscope.errors import InputError
from pixelscope.inference.files import COLUMNS, MANIFEST, Item, label_of, require_apart, require_paths, text_of
from pixelscope.inference.pipeline import ERROR, Stages, Written, stream, unwritable
from pixelscope.inference.replicas import Replicas
from pixelscope.inference.table import Row, Table
from pixelscope.progress import ProgressCallback
from pixelscope.rng import generator


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
    progress: ProgressCallback | None = None,
) -> Written | ImagesWritten:
    """Reconstruct image files, and those in folders, from the posterior's mean, and write what comes out.

    Args:
        run: a run folder of EndoVAE.
        paths: files of frames, and folders of them at any depth; each is prepared as the run's own frames were.
        out: a file ending in .png for one grid, originals over reconstructions, which all are held in memory for; else a folder
            to make for a PNG a frame, any number of them, with a manifest.csv: source, file, label (the class folder), PSNR and
            SSIM.
        sampled: reconstruct from a sample of the posterior, drawn from `seed`, in place of its mean.
        rule: which weights; see `evaluate_endovae`.
        devices, resume, progress: of a folder; see `score`.

    Raises:
        InputError: no frame or no checkpoint is there, a frame of a grid cannot be read, or the folder exists.
    """
    checkpoint = load_checkpoint(run, rule, finished=False)
    if out.suffix.lower() != ".png":
        given = {"sampled": sampled, "seed": seed, "devices": devices, "resume": resume, "progress": progress}
        return reconstruct_files(checkpoint, paths, out, **given)
    files = _files(paths)
    with bombs_refused():
        frames = np.stack([read_prepared(file, checkpoint.config.prepare) for file in files])
    draw = generator("cpu", seed, "sampled reconstruction") if sampled else None
    found = reconstruct_frames(checkpoint, frames, draw)
    about = {"run": str(run), "rule": checkpoint.rule, "images": checkpoint.images, "sampled": sampled, "seed": seed}
    save_png(out, grid(np.stack([frames, pixels(found.reconstructions)])), about)
    quality = zip(psnr(found.images, found.reconstructions), ssim(found.images, found.reconstructions), strict=True)
    rows = [{"name": str(f), "psnr": float(p), "ssim": float(s)} for f, (p, s) in zip(files, quality, strict=True)]
    return ImagesWritten(str(out), len(files), checkpoint.rule, seed, rows)


def reconstruct_files(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    out: Path,
    *,
    sampled: bool,
    seed: int,
    devices: int = 1,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> Written:
    """Write a PNG a frame to `out`, where it lies in its folder, and manifest.csv with PSNR in dB and SSIM of each.

    A frame that cannot be read, or a file that cannot be written, is a row with its error.

    sampled: from a sample of the posterior, drawn from `seed` and the frame's place in its folder, in place of its mode.
    The others, and what is raised: see `pixelscope.score`.
    """
    require_paths(paths)
    require_apart(paths)
    if out.exists() and not resume:
        raise InputError(f"{out} exists already; name another folder, or go on with --resume.")
    networks = nn.ModuleDict({"encoder": checkpoint.encoder, "decoder": checkpoint.decoder})
    identity = {"model": fingerprint(networks), "sampled": str(sampled), "seed": str(seed)}
    replicas = Replicas(networks, devices)
    about = {"rule": checkpoint.rule, "images": checkpoint.images, "sampled": sampled, "seed": seed}
    table = Table(out / MANIFEST, (*COLUMNS, "psnr", "ssim", ERROR), identity, resume)

    def compute(items: Sequence[Item], frames: Sequence[np.ndarray]) -> Sequence[Row]:
        noise = _noise(items, checkpoint.config.model.latent, seed) if sampled else None
        images, reconstructions = _reconstructed(replicas, np.stack(frames), noise)
        quality = zip(psnr(images, reconstructions).tolist(), ssim(images, reconstructions).tolist(), strict=True)
        return [
            {**_written(out, item, drawn, about), "psnr": p, "ssim": s}
            for item, drawn, (p, s) in zip(items, pixels(reconstructions), quality, strict=True)
        ]

    return stream(
        table, paths, Stages(lambda item: read_prepared(item.path, checkpoint.config.prepare), compute, devices), progress
    )


def _written(out: Path, item: Item, drawn: np.ndarray, about: dict[str, object]) -> dict[str, str | None]:
    """Write one reconstruction, and return what its row says of the file."""
    error = unwritable(out / item.png, lambda: save_png(out / item.png, drawn, about))
    return {"file": None if error else text_of(item.png), "label": label_of(item), ERROR: error}


def _noise(items: Sequence[Item], latent: int, seed: int) -> Tensor:
    places = [generator("cpu", seed, "sampled reconstruction", item.inner.as_posix()) for item in items]
    return torch.stack([torch.randn(latent, generator=draw) for draw in places])


@torch.no_grad()
def _reconstructed(replicas: Replicas[nn.ModuleDict], frames: np.ndarray, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    with replicas.lent() as (networks, device):
        images = to_unit(as_channels_first(frames).to(device))
        posterior = Posterior.from_parameters(networks["encoder"](images))
        z = posterior.mode if noise is None else posterior.sample(noise.to(device))
        return images.cpu(), networks["decoder"](z).float().cpu()


def _files(paths: Sequence[Path]) -> list[Path]:
    files = [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise InputError(f"There are no images in {', '.join(map(str, paths))}; give image files or folders of them.")
    return files
