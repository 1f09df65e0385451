"""Reconstructs frames: any number into a folder, with a table of PSNR and SSIM, or a few into one grid.

Importing this imports no torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.formats.decode import reject_decompression_bombs
from pixelscope.data.frames.preprocess import prepare_file
from pixelscope.endovae.inference.images import UNMEASURED, ImagesWritten, grid, is_grid, require_other_file, save_png
from pixelscope.errors import InputError, note
from pixelscope.imaging.config import PrepareConfig
from pixelscope.inference.files import (
    COLUMNS,
    MANIFEST,
    InputFile,
    is_frame,
    iterate_files,
    label_of,
    require_distinct_names,
    require_files,
    text_of,
)
from pixelscope.inference.pipeline import ERROR, BatchResult, Steps, run_pipeline, unwritable
from pixelscope.inference.table import ResumableTable, Row
from pixelscope.runs.progress import ProgressCallback

if TYPE_CHECKING:
    from pixelscope.endovae.checkpoints import Checkpoint

Prepared = tuple[np.ndarray, np.ndarray | None]
"""A prepared frame, uint8 (S, S, 3), and where it lies in an inset that the run masks, bool (S, S)."""


def reconstruct(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    sampled: bool = False,
    seed: int = 0,
    checkpoint: str = "auto",
    devices: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> BatchResult | ImagesWritten:
    """Reconstruct image files, and all frames in folders, from the posterior mean.

    Args:
        run: a run folder of EndoVAE.
        paths: image files, and folders that are searched at any depth for frames, without masks; all are prepared like the
            run's.
        out: a file ending in .png for one grid of originals above reconstructions, all in memory at once; else a new folder for
            one PNG per frame and manifest.csv: source, file, label (the class folder), PSNR and SSIM. Insets that the run masks
            are left out of PSNR and SSIM, as by `evaluate_endovae`; a frame that lies wholly in them has neither, and a note.
        sampled: reconstruct from a sample of the posterior, drawn with `seed`, instead of its mean.
        checkpoint: which weights; see `evaluate_endovae`.
        devices: for a folder; see `score`.
        resume: for a folder; see `score`.
        progress: for a folder; see `score`.

    Raises:
        InputError: there is no frame or no checkpoint, a frame of a grid cannot be read, the file is one of the frames, the
            folder exists, or there is a seed without `sampled`.

    Example:
        >>> pixelscope.endovae.reconstruct(Path("runs/healthy"), [Path("my/frames")], Path("reconstructed"))
    """
    from pixelscope.endovae.checkpoints import load_checkpoint

    if seed != 0 and not sampled:
        raise InputError(
            "--seed has no effect without --sampled, because the posterior mean is not drawn; drop it, or add --sampled."
        )
    one_grid = is_grid(out)
    ignored = [name for name, given in (("--resume", resume), ("--devices", devices not in (None, 1))) if given and one_grid]
    if ignored:
        raise InputError(f"{out} is one grid, for which {ignored[0]} has no effect; drop it, or give a folder with --out.")
    loaded = load_checkpoint(run, checkpoint, finished=False)
    about: dict[str, object] = {"checkpoint": loaded.name, "images": loaded.images, "sampled": sampled, "seed": seed}
    if one_grid:
        return _grid(loaded, paths, out, {"run": str(run), **about})
    return _folder(loaded, paths, out, about, devices, resume, progress)


def _grid(checkpoint: "Checkpoint", paths: Sequence[Path], out: Path, about: dict[str, Any]) -> ImagesWritten:
    """Write frames above their reconstructions as one PNG."""
    from pixelscope.endovae.inference.torch_model import TorchVAE, draw_latents

    require_files(paths, is_frame)
    files, seed = [item.path for item in iterate_files(paths, is_frame)], about["seed"]
    require_other_file(out, files)
    with reject_decompression_bombs():
        frames, insets = _stacked([_prepared(file, checkpoint.config.prepare) for file in files])
    latent = checkpoint.config.code_values
    noise = draw_latents(len(files), latent, seed, "sampled reconstruction") if about["sampled"] else None
    drawn, *quality = TorchVAE(checkpoint.encoder, checkpoint.decoder).reconstruct(frames, noise, insets)
    save_png(out, grid(np.stack([frames, drawn])), about)
    rows = [{"name": str(f), **_quality(p, s)} for f, p, s in zip(files, *quality, strict=True)]
    return ImagesWritten(str(out), len(files), checkpoint.name, seed, rows)


def _folder(
    checkpoint: "Checkpoint",
    paths: Sequence[Path],
    out: Path,
    about: dict[str, Any],
    devices: int | None,
    resume: bool,
    progress: ProgressCallback | None,
) -> BatchResult:
    """Write one PNG per frame, in the same subfolder, and manifest.csv with PSNR and SSIM.

    A frame that cannot be read, or a file that cannot be written, gets a row with its error. With `about["sampled"]`, the noise
    of a frame depends on the seed and on its path in the folder.
    """
    from pixelscope.endovae.inference.torch_model import TorchVAE, draw_latents

    require_files(paths, is_frame)
    require_distinct_names(paths, is_frame)
    if out.exists() and not resume:
        raise InputError(f"{out} exists already; choose another --out, or continue with --resume.")
    vae, config = TorchVAE(checkpoint.encoder, checkpoint.decoder, True, devices), checkpoint.config
    identity = {**vae.identity, "sampled": str(about["sampled"]), "seed": str(about["seed"])}
    table = ResumableTable(out / MANIFEST, (*COLUMNS, "psnr", "ssim", ERROR), identity, resume)
    unmeasured: list[str] = []

    def noise(item: InputFile) -> NDArray[np.float32]:
        return draw_latents(1, config.code_values, about["seed"], "sampled reconstruction", item.inner.as_posix())

    def compute(items: Sequence[InputFile], prepared: Sequence[Prepared]) -> Sequence[Row]:
        noises = np.concatenate([noise(item) for item in items]) if about["sampled"] else None
        frames, insets = _stacked(prepared)
        drawn, *quality = vae.reconstruct(frames, noises, insets)
        measured = [_quality(p, s) for p, s in zip(*quality, strict=True)]
        unmeasured.extend(item.name for item, one in zip(items, measured, strict=True) if None in one.values())
        return [{**_written(out, item, frame, about), **one} for item, frame, one in zip(items, drawn, measured, strict=True)]

    steps = Steps(lambda item: _prepared(item.path, config.prepare), compute, vae.devices, is_frame, config.prepare.range)
    found = run_pipeline(table, paths, steps, progress)
    return replace(found, notes=(*found.notes, *note(f"{UNMEASURED}: {{count:frame}} ({{names}}).", sorted(unmeasured))))


def _quality(psnr: float, ssim: float) -> dict[str, float | None]:
    """Return the columns `psnr` and `ssim` of a row; None where all pixels lie in insets."""
    return {name: None if np.isnan(value) else float(value) for name, value in (("psnr", psnr), ("ssim", ssim))}


def _written(out: Path, item: InputFile, drawn: np.ndarray, about: dict[str, object]) -> dict[str, str | None]:
    """Write one reconstruction, and return the columns `file` and `error` of its row."""
    error = unwritable(out / item.png, lambda: save_png(out / item.png, drawn, about))
    return {"file": None if error else text_of(item.png), "label": label_of(item), ERROR: error}


def _prepared(path: Path, config: PrepareConfig) -> Prepared:
    found = prepare_file(path, config)
    return found.frame, found.inset > 0 if config.insets == "mask" else None


def _stacked(prepared: Sequence[Prepared]) -> Prepared:
    insets = [inset for _, inset in prepared if inset is not None]
    return np.stack([frame for frame, _ in prepared]), np.stack(insets) if insets else None
