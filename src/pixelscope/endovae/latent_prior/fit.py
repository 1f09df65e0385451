"""Fits a prior to the codes of a run's training frames."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.data import FrameSubset, frame_kinds, load_run_splits
from pixelscope.endovae.forward import BATCH, encode
from pixelscope.endovae.latent_prior.config import KINDS, Kind, PriorConfig
from pixelscope.endovae.latent_prior.flow import FlowPrior
from pixelscope.endovae.latent_prior.mixture import MixturePrior
from pixelscope.endovae.latent_prior.results import PriorResult
from pixelscope.endovae.latent_prior.stored import require_replaceable, save_prior
from pixelscope.errors import InputError, plural, require_extra
from pixelscope.files import keep_heap
from pixelscope.runs.folder import RunFolder, git_revision, versions
from pixelscope.runs.progress import ProgressCallback

MIN_FRAMES = 16
"""Minimum number of training frames of each kind; of fewer, new frames would be copies."""
MAX_FRAMES = 10_000
"""Maximum number of training frames, evenly spaced: a spatial code takes 18 KB, and that of its mirror image as much."""
MIXTURE_SETTINGS = frozenset({"components"})
"""Settings of a global code alone."""
SHARED_SETTINGS = frozenset({"kinds", "seed", "threads"})
"""Settings that are taken for both kinds of code; the others are of a spatial code alone."""


def fit_prior(
    run: Path,
    *,
    config: PriorConfig | None = None,
    checkpoint: str = "auto",
    frames: str | None = None,
    take_over: bool = False,
    progress: ProgressCallback | None = None,
) -> PriorResult:
    """Fit a prior to the codes of a run's training frames, and write it to the folder `prior` of the run.

    Of global codes, it is a Gaussian mixture (Ghosh et al. 2020). Of spatial codes, it is a velocity field trained by flow
    matching (Lipman et al. 2023), which takes minutes. Validation and test frames are not used, nor frames of a kind that
    the run was not trained on.

    Args:
        run: a run folder of EndoVAE.
        config: settings of the fit.
        checkpoint: weights whose codes are used: `best-validation`, `ema-last` or `last`; `auto` is the first of these that
            the run has.
        frames: new path of the run's frames, if they have moved.
        take_over: take the run's lock from another machine that has been silent for ten minutes.
        progress: called with the codes seen and all codes, of a spatial code.

    Returns:
        The content of prior/prior.json.

    Raises:
        InputError: a setting has no effect on the run's kind of code, the run has too few training frames, their codes are not
            finite, its frames have changed, RUN/prior is no prior, or another process writes to it.

    Example:
        >>> result = pixelscope.endovae.prior(Path("runs/healthy"))
        >>> print(result.to_text())
    """
    keep_heap()
    settings = config or PriorConfig()
    folder = RunFolder.open(run)
    with folder.locked("fitted with a prior", take_over):
        require_replaceable(folder)
        loaded = load_checkpoint(run, checkpoint, finished=False)
        _require_effect(loaded, settings)
        if loaded.config.model.kind == "global":
            require_extra("train", "A Gaussian mixture of codes")
        part = load_run_splits(loaded.folder, loaded.config, loaded.record, frames).train.at_most(MAX_FRAMES)
        codes = _encode(loaded, part, settings)
        start = time.monotonic()
        prior, found = _fit(loaded, codes, settings, progress)
        about = _about(loaded, codes, settings) | found | {"seconds": time.monotonic() - start}
        return save_prior(folder, prior, about)


def _require_effect(checkpoint: Checkpoint, config: PriorConfig) -> None:
    """Raise InputError if a setting other than its default has no effect on the run's kind of code."""
    code = checkpoint.config.model.kind
    used = SHARED_SETTINGS | (MIXTURE_SETTINGS if code == "global" else PriorConfig.model_fields.keys() - MIXTURE_SETTINGS)
    changed = [name for name, field in PriorConfig.model_fields.items() if getattr(config, name) != field.default]
    unused = [
        f"--{'no-' if getattr(config, name) is False else ''}{name}".replace("_", "-") for name in changed if name not in used
    ]
    if unused:
        one = len(unused) == 1
        raise InputError(
            f"{checkpoint.folder.path} has a {code} code, on which {', '.join(unused)} {'has' if one else 'have'} no effect; "
            f"leave {'it' if one else 'them'} out."
        )


@dataclass(frozen=True)
class _Codes:
    values: Tensor
    """Posterior means, (N, latent)."""
    labels: Tensor
    """Number of each code's kind, from 1, or 0 if kinds are not learned apart; 1 for mirror images; int64 (N, 2)."""
    counts: dict[Kind, int]
    """Frames by kind, without mirror images; empty if kinds are not learned apart."""
    frames: int


def _encode(checkpoint: Checkpoint, part: FrameSubset, config: PriorConfig) -> _Codes:
    names = frame_kinds(part.store)[part.positions]
    present: list[Kind] = [kind for kind in KINDS if (names == kind).any()]
    apart = config.kinds and len(present) > 1
    counts: dict[Kind, int] = {kind: int((names == kind).sum()) for kind in present if apart}
    _require_frames(checkpoint, part, counts)
    numbers = torch.tensor([1 + list(counts).index(name) if apart else 0 for name in names.tolist()])
    # A mixture has no label that keeps mirror images from being drawn.
    views = (False, True) if config.mirrored and checkpoint.config.model.kind == "spatial" else (False,)
    values = torch.cat([_means(checkpoint, part, mirrored=view) for view in views])
    if not values.isfinite().all():
        raise InputError(f"The codes of {checkpoint.folder.path} are not finite; train the model again.")
    labels = torch.cat([torch.stack([numbers, torch.full_like(numbers, view)], 1) for view in views])
    return _Codes(values, labels, counts, len(part))


def _require_frames(checkpoint: Checkpoint, part: FrameSubset, counts: dict[Kind, int]) -> None:
    for kind, count in counts.items() or (("", len(part)),):
        if count < MIN_FRAMES:
            other = "give --no-kinds, or " if kind else ""
            raise InputError(
                f"{checkpoint.folder.path} has {plural(count, f'{kind} training frame'.strip())}, and a prior needs at least "
                f"{MIN_FRAMES}; {other}train on more frames."
            )


def _means(checkpoint: Checkpoint, part: FrameSubset, *, mirrored: bool) -> Tensor:
    """Return the posterior means of frames, or of their mirror images, (N, latent)."""
    found = []
    for start in range(0, len(part), BATCH):
        frames = FrameSubset(part.store, part.positions[start : start + BATCH]).frames
        found.append(encode(checkpoint, np.ascontiguousarray(frames[:, :, ::-1]) if mirrored else frames).mean)
    return torch.cat(found)


def _fit(
    checkpoint: Checkpoint, codes: _Codes, config: PriorConfig, progress: ProgressCallback | None
) -> tuple[MixturePrior | FlowPrior, dict[str, Any]]:
    kinds = tuple(codes.counts)
    if checkpoint.config.model.kind == "spatial":
        shape = checkpoint.config.code_shape
        flow, start_loss, loss = FlowPrior.fit(codes.values, shape, codes.labels, kinds, config, progress)
        size = sum(weight.numel() for weight in flow.field.parameters())
        return flow, {"method": "flow", "parameters": size, "start_loss": start_loss, "loss": loss}
    mixture, loss = MixturePrior.fit(codes.values.numpy(), codes.labels[:, 0].numpy(), kinds, config)
    return mixture, {"method": "mixture", "components": len(mixture.weights), "loss": loss}


def _about(checkpoint: Checkpoint, codes: _Codes, config: PriorConfig) -> dict[str, Any]:
    return {
        "run": str(checkpoint.folder.path),
        "config": config,
        "checkpoint": checkpoint.name,
        "images": checkpoint.images,
        "weights_sha256": checkpoint.sha256,
        "code": checkpoint.config.code_shape,
        "frames": codes.frames,
        "kinds": codes.counts,
        "revision": git_revision(),
        "versions": versions(("pixelscope", "torch", "numpy", "scikit-learn")),
    }
