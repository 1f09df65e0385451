"""Generates frames from random latent vectors, in a part of a frame, between two frames, or along one latent dimension.

Importing this imports no torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.formats.decode import reject_decompression_bombs
from pixelscope.data.frames.preprocess import prepare_file
from pixelscope.endovae.inference.images import ImagesWritten, grid, is_grid, require_other_file, save_png
from pixelscope.endovae.latent_prior.config import Kind, UsePrior
from pixelscope.errors import InputError
from pixelscope.files import atomic_folder, csv_text, require_absent, write_text
from pixelscope.inference.files import COLUMNS, MANIFEST

if TYPE_CHECKING:
    from pixelscope.endovae.checkpoints import Checkpoint

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

REACH = 3.0
"""Range of a traversal to either side, in standard deviations of the prior."""
AT_ONCE = 256
"""Frames decoded at a time, before they are written."""
MAX_FRAMES, MAX_TILES = 1_000_000, 10_000
"""Maximum number of frames, and of those in one grid, which is held in memory: 276 MB of 96 x 96 pixels each."""


@dataclass(frozen=True)
class _Wanted:
    """What to generate; see `generate`."""

    count: int
    seed: int
    prior: UsePrior
    kind: Kind | None
    guidance: float | None
    between: tuple[Path, Path] | None
    dimension: int | None
    inpaint: Path | None
    mask: Path | None

    def check(self, grid: bool) -> None:
        """Raise InputError for options that do not fit each other; `grid`: whether all frames go into one file."""
        named = {"--between": self.between, "--dimension": self.dimension, "--inpaint": self.inpaint}
        given = [name for name, value in named.items() if value is not None]
        if not 1 <= self.count <= MAX_FRAMES:
            raise InputError(f"--count must be from 1 to {MAX_FRAMES:,}, got {self.count:,}.")
        if grid and self.count > MAX_TILES:
            raise InputError(
                f"One grid has at most {MAX_TILES:,} frames, got --count {self.count:,}; give a folder with --out."
            )
        if self.count == 1 and (self.between is not None or self.dimension is not None):
            raise InputError(f"{given[0]} needs both of its ends, got --count 1; give --count 2 or more.")
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} cannot be combined; give only one of them.")
        if (self.inpaint is None) is not (self.mask is None):
            one, other = ("--inpaint", "--mask") if self.mask is None else ("--mask", "--inpaint")
            raise InputError(f"{one} needs {other}: give a frame with --inpaint, and where to redraw it with --mask.")
        unused = self._of_random_frames()
        if given not in ([], ["--inpaint"]) and unused:
            names = f"{' and '.join(unused)} {'has' if len(unused) == 1 else 'have'}"
            raise InputError(
                f"{names} no effect with {given[0]}, which draws nothing at random; drop {' and '.join(unused)}, or {given[0]}."
            )

    def _of_random_frames(self) -> list[str]:
        """Return the options that are given and matter to random frames only."""
        values = {
            "--seed": self.seed != 0,
            "--prior": self.prior != "auto",
            "--class": self.kind is not None,
            "--guidance": self.guidance is not None,
        }
        return [name for name, given in values.items() if given]

    def files(self) -> Iterator[Path]:
        """Yield the files to read."""
        yield from self.between or ()
        yield from (file for file in (self.inpaint, self.mask) if file is not None)

    def about(self) -> dict[str, object]:
        """Return what a file says about its frame."""
        found: dict[str, object] = {"seed": self.seed, "dimension": self.dimension}
        if self.between is not None:
            found["between"] = [str(path) for path in self.between]
        return found if self.inpaint is None else found | {"inpaint": str(self.inpaint), "mask": str(self.mask)}


def generate(
    run: Path,
    out: Path,
    *,
    count: int = 9,
    seed: int = 0,
    prior: UsePrior = "auto",
    kind: Kind | None = None,
    guidance: float | None = None,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    inpaint: Path | None = None,
    mask: Path | None = None,
    checkpoint: str = "auto",
) -> ImagesWritten:
    """Generate frames: random ones, versions of a part of a frame, between two frames, or along one latent dimension.

    Random frames are drawn from the prior in the run folder, if `pixelscope.endovae.prior` has fitted one. Else a global code
    is z ~ N(0, I), and a spatial code is of a Gaussian along the principal components of the training frames' codes. These are
    also the latent dimensions of a spatial code.

    Args:
        run: a run folder of EndoVAE.
        out: a file ending in .png for one grid; else a new folder for one PNG per frame, and manifest.csv with one row per
            frame.
        count: number of frames, at most 1,000,000, and in one grid 10,000; with `between` or `dimension` at least 2.
        seed: of the random z; not with `between` or `dimension`.
        prior: `auto` uses the fitted prior in the run folder where there is one; `none` never. Not with `between` or
            `dimension`.
        kind: kind of random frames, `normal` or `abnormal`, of a fitted prior that knows both; None draws both. With `inpaint`,
            by default `abnormal` where the prior knows it.
        guidance: weight of the kind, of a spatial code: 1 by default, more exaggerates the kind.
        between: two image files, between whose posterior means to interpolate.
        dimension: latent dimension, from 0, to vary from -3 to 3 while the others are 0; of a spatial code, a principal
            component.
        inpaint: image file of which to redraw a part with the fitted prior of a spatial code; the rest stays as it is.
        mask: image file of the size of `inpaint`, black where the frame stays and white where it is redrawn.
        checkpoint: which weights; see `evaluate_endovae`.

    Raises:
        InputError: options do not fit each other, the run has no such dimension, kind or checkpoint, its prior is of other
            weights, the mask is empty or does not fit the frame, the file is one of those given, or the folder exists.

    Example:
        >>> pixelscope.endovae.generate(Path("runs/healthy"), Path("new.png"), count=9)
    """
    from pixelscope.endovae.checkpoints import load_checkpoint

    wanted = _Wanted(count, seed, prior, kind, guidance, between, dimension, inpaint, mask)
    grid_wanted = is_grid(out)
    wanted.check(grid_wanted)
    if grid_wanted:
        require_other_file(out, wanted.files())
    else:
        require_absent(out)
    loaded = load_checkpoint(run, checkpoint, finished=False)
    frames, drawn = _frames(loaded, wanted)
    about = {"run": str(run), "checkpoint": loaded.name, "images": loaded.images} | wanted.about() | drawn
    names = [f"{number:05d}.png" for number in range(count)]
    if grid_wanted:
        one_row = between is not None or dimension is not None
        columns = count if one_row else int(np.ceil(np.sqrt(count)))
        save_png(out, grid(_rows(np.concatenate(list(frames)), columns)), about)
    else:
        _write_files(out, names, frames, about)
    found = drawn.get("prior")
    return ImagesWritten(
        str(out), count, loaded.name, seed, [{"name": name} for name in names], None if found is None else found["method"]
    )


def _frames(checkpoint: "Checkpoint", wanted: _Wanted) -> tuple[Iterator[Bytes], dict[str, Any]]:
    """Return an iterator over batches of frames, uint8 (n, S, S, 3), and what files say about their distribution."""
    from pixelscope.endovae.latent_prior.sample import FrameInpainter, FrameSampler

    if wanted.between is not None or wanted.dimension is not None:
        return _on_a_line(checkpoint, wanted), {}
    sampler = FrameSampler.open(checkpoint, wanted.prior, wanted.kind, wanted.guidance)
    if wanted.inpaint is None or wanted.mask is None:
        return sampler.frames(wanted.count, wanted.seed), sampler.about
    inpainter = FrameInpainter(sampler)
    with reject_decompression_bombs():
        found = prepare_file(wanted.inpaint, checkpoint.config.prepare, wanted.mask)
    inside = found.lesion > 0
    if not inside.any() or inside.all():
        raise InputError(
            f"The mask {wanted.mask} marks {'all' if inside.any() else 'nothing'} of the square of {wanted.inpaint} that the "
            "model sees; give a mask that is white in a part of it."
        )
    return inpainter(found.frame, inside, wanted.count, wanted.seed), inpainter.about


def _on_a_line(checkpoint: "Checkpoint", wanted: _Wanted) -> Iterator[Bytes]:
    """Return an iterator over frames between two, or along one axis, uint8 (n, S, S, 3)."""
    from pixelscope.endovae.inference.torch_model import TorchVAE

    vae = TorchVAE(checkpoint.encoder, checkpoint.decoder)
    if wanted.between is not None:
        with reject_decompression_bombs():
            ends = np.stack([prepare_file(path, checkpoint.config.prepare).frame for path in wanted.between])
        z = interpolate(vae.encode(ends), wanted.count)
    else:
        z = _along_axis(checkpoint, wanted.count, wanted.dimension or 0)
    return (vae.decode(z[start : start + AT_ONCE]) for start in range(0, wanted.count, AT_ONCE))


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
    rows = [("", name, "", number) for number, name in enumerate(names)]
    with atomic_folder(out) as work:
        for name, frame in zip(names, chain.from_iterable(frames), strict=True):
            save_png(work / name, frame, about)
        write_text(work / MANIFEST, csv_text([COLUMNS, *rows]))


def _rows(frames: np.ndarray, columns: int) -> np.ndarray:
    """Return frames (N, S, S, 3) in rows of `columns`; the last row is padded with white frames."""
    missing = -len(frames) % columns
    filled = np.concatenate([frames, np.full((missing, *frames.shape[1:]), 255, np.uint8)])
    return filled.reshape(-1, columns, *frames.shape[1:])
