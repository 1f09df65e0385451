"""Any number of frames reconstructed into a folder, with a table of how near each comes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from pixelscope.data.decode import decode
from pixelscope.data.frames.preprocess import prepare_frame
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.pictures import pixels
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.quality import psnr, ssim
from pixelscope.endovae.trained import TrainedRun
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.errors import InputError
from pixelscope.files import written_whole
from pixelscope.imaging.config import PrepareConfig
from pixelscope.rng import generator
from pixelscope.stream.manifest import COLUMNS, MANIFEST, label_of, text_of
from pixelscope.stream.run import ERROR, Report, Stages, Written, stream, unwritable
from pixelscope.stream.table import Row, Table
from pixelscope.stream.walk import Item, require_apart, require_paths


def reconstruct_files(
    opened: TrainedRun,
    paths: Sequence[Path],
    out: Path,
    *,
    sampled: bool,
    seed: int,
    devices: int = 1,
    resume: bool = False,
    report: Report | None = None,
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
    networks = nn.ModuleDict({"encoder": opened.weights.encoder, "decoder": opened.weights.decoder})
    identity = {"model": fingerprint(networks), "sampled": str(sampled), "seed": str(seed)}
    replicas = Replicas(networks, devices)
    about = {"rule": opened.rule, "images": opened.weights.images, "sampled": sampled, "seed": seed}
    table = Table(out / MANIFEST, (*COLUMNS, "psnr", "ssim", ERROR), identity, resume)

    def compute(items: Sequence[Item], frames: Sequence[np.ndarray]) -> Sequence[Row]:
        noise = _noise(items, opened.config.model.latent, seed) if sampled else None
        images, reconstructions = _reconstructed(replicas, np.stack(frames), noise)
        quality = zip(psnr(images, reconstructions).tolist(), ssim(images, reconstructions).tolist(), strict=True)
        return [
            {**_written(out, item, drawn, about), "psnr": p, "ssim": s}
            for item, drawn, (p, s) in zip(items, pixels(reconstructions), quality, strict=True)
        ]

    return stream(table, paths, Stages(lambda item: prepared(item.path, opened.config.prepare), compute, devices), report)


def prepared(path: Path, config: PrepareConfig) -> np.ndarray:
    """Return one file as uint8 (S, S, 3), prepared as a run's frames were; on a thread within `bombs_refused`."""
    image = decode(path, value_range=config.range)
    return prepare_frame(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))), None, config).frame


def save_png(path: Path, image: np.ndarray, about: dict[str, object]) -> None:
    """Write a uint8 image (H, W, 3), with what it is in the entry `pixelscope` of the file's text."""
    note = PngInfo()
    note.add_text("pixelscope", json.dumps(about))
    with written_whole(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=note)


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
        posterior = Posterior.of(networks["encoder"](images))
        z = posterior.mode if noise is None else posterior.sample(noise.to(device))
        return images.cpu(), networks["decoder"](z).float().cpu()
