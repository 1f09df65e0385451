"""Draws new frames of a checkpoint, batch by batch, or redraws a part of a frame, for example as a polyp."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.forward import decode, encode, random_latents, read_axes
from pixelscope.endovae.latent_prior.config import Kind, UsePrior
from pixelscope.endovae.latent_prior.flow import FlowPrior
from pixelscope.endovae.latent_prior.stored import StoredPrior, load_prior
from pixelscope.errors import InputError, not_one_of
from pixelscope.rng import generator

AT_ONCE = 256
"""Frames drawn and decoded at a time."""
MAX_GUIDANCE = 100.0
"""Maximum weight of the class."""
FADE = 3
"""Pixels inside a mask over which the frame fades into what is drawn."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FrameSampler:
    """Draws new frames of a checkpoint from its fitted prior or, without one, from N(0, I) or along principal axes."""

    checkpoint: Checkpoint
    stored: StoredPrior | None
    kind: Kind | None
    guidance: float

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, prior: UsePrior = "auto", kind: Kind | None = None, guidance: float | None = None
    ) -> Self:
        """Open the prior of a checkpoint.

        Args:
            checkpoint: encoder and decoder.
            prior: `auto` uses the fitted prior in the run folder where there is one; `none` never.
            kind: kind of frames, of a fitted prior with kinds; None draws both as often as in training.
            guidance: weight of the kind, of a flow with kinds: 1 by default, more exaggerates the kind.

        Raises:
            InputError: a kind is asked of a prior without kinds, or the prior is damaged or of other weights.
        """
        if prior not in get_args(UsePrior):
            raise not_one_of("prior", prior, get_args(UsePrior))
        stored = None if prior == "none" else load_prior(checkpoint)
        if kind is not None or guidance is not None:
            _require_kind(checkpoint, stored, kind, guidance)
        return cls(checkpoint, stored, kind, 1.0 if guidance is None else guidance)

    @property
    def about(self) -> dict[str, Any]:
        """Return the description of the distribution, which files of generated frames store."""
        if self.stored is None:
            return {"prior": None}
        found = self.stored.result
        about = {"method": found.method, "sha256": found.tensors_sha256, "kind": self.kind, "guidance": self.guidance}
        return {"prior": about if found.kinds else {name: about[name] for name in ("method", "sha256")}}

    def require_source(self) -> None:
        """Raise InputError if there is no prior, and no axes of a spatial code either."""
        if self.stored is None:
            read_axes(self.checkpoint)

    def frames(self, count: int, seed: int) -> Iterator[Bytes]:
        """Yield `count` frames, uint8 (n, S, S, 3), up to `AT_ONCE` at a time; the same seed and count give the same frames."""
        for z in self._codes(count, seed):
            yield decode(self.checkpoint.decoder, z).numpy()

    def _codes(self, count: int, seed: int) -> Iterator[Tensor]:
        batches = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
        if self.stored is not None:
            yield from (self.stored.draw(numbers, seed, self.kind, self.guidance) for numbers in batches)
            return
        axes = read_axes(self.checkpoint)
        drawn = random_latents(count, len(axes), generator("cpu", seed, "generated")).numpy()
        yield from (torch.from_numpy(axes.vectors(drawn[numbers.start : numbers.stop])) for numbers in batches)


def _require_kind(checkpoint: Checkpoint, stored: StoredPrior | None, kind: Kind | None, guidance: float | None) -> None:
    run = checkpoint.folder.path
    if kind is not None and kind not in get_args(Kind):
        raise not_one_of("kind", kind, get_args(Kind))
    if stored is None:
        remedy = "drop --prior none" if checkpoint.folder.prior.exists() else _how_to_get_kinds(checkpoint)
        raise InputError(f"--class and --guidance need a fitted prior, but {run} draws frames without one; {remedy}.")
    if not stored.result.kinds:
        raise InputError(f"The prior in {checkpoint.folder.prior} was fitted without classes; {_how_to_get_kinds(checkpoint)}.")
    if guidance is not None and stored.result.method == "mixture":
        raise InputError(
            f"The prior in {checkpoint.folder.prior} is a Gaussian mixture, which has no guidance; drop --guidance."
        )
    if guidance is not None and not 0 <= guidance <= MAX_GUIDANCE:
        raise InputError(f"--guidance must be from 0 to {MAX_GUIDANCE:g}, got {guidance:g}; 1 is the default.")


def _how_to_get_kinds(checkpoint: Checkpoint) -> str:
    train = "" if checkpoint.config.split.train_on == "both" else "train with --split.train-on both and "
    return f"drop --class and --guidance, or {train}run `pixelscope endovae prior {checkpoint.folder.path}`"


class FrameInpainter:
    """Draws what is inside a mask from a prior of spatial codes, given the frame outside."""

    def __init__(self, sampler: FrameSampler) -> None:
        """Use a sampler's prior; of a model that knows both kinds, abnormal frames unless a kind is given.

        Raises:
            InputError: the code is global, or there is no prior.
        """
        checkpoint, run = sampler.checkpoint, sampler.checkpoint.folder.path
        if checkpoint.config.model.kind == "global":
            raise InputError(
                f"{run} cannot inpaint: each number of a global code describes the whole frame; use a run of --preset spatial."
            )
        if sampler.stored is None or not isinstance(sampler.stored.prior, FlowPrior):
            remedy = "drop --prior none" if checkpoint.folder.prior.exists() else f"run `pixelscope endovae prior {run}` first"
            raise InputError(f"Inpainting needs a fitted prior, but {run} uses none; {remedy}.")
        self._prior = sampler.stored.prior
        kind = sampler.kind or ("abnormal" if "abnormal" in self._prior.kinds else None)
        self._sampler = replace(sampler, kind=kind)

    @property
    def about(self) -> dict[str, Any]:
        """Return the description of the distribution, which files of generated frames store."""
        return self._sampler.about

    def __call__(self, frame: Bytes, mask: NDArray[np.bool_], count: int, seed: int) -> Iterator[Bytes]:
        """Yield `count` versions of a frame, uint8 (n, S, S, 3), which are equal to it outside of the mask.

        Positions of the code whose block of pixels the mask does not touch keep their values.

        Args:
            frame: uint8 (S, S, 3).
            mask: bool (S, S).
            count: number of versions.
            seed: of the draws.

        Raises:
            InputError: the mask touches every block, so that no part of the frame says what fits to it.
        """
        checkpoint = self._sampler.checkpoint
        code = encode(checkpoint, frame[None]).mean[0]
        known = torch.from_numpy(~_touched(mask, checkpoint.config.model.stride))
        if not known.any():
            stride = checkpoint.config.model.stride
            raise InputError(f"The mask touches every block of {stride} x {stride} pixels of the frame; give a smaller mask.")
        share = blend_weights(mask)[..., None]
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            codes = self._prior.complete(code, known, numbers, seed, self._sampler.kind, self._sampler.guidance)
            drawn = decode(checkpoint.decoder, codes).numpy()
            yield np.rint(frame + share * (drawn.astype(np.float32) - frame)).astype(np.uint8)


def blend_weights(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the weight of what is drawn, float32 (S, S): 0 outside of a mask, rising to 1 at `FADE` pixels inside."""
    # Padded, so that the border of the frame counts as no border of the mask.
    padded = np.pad(mask.astype(np.uint8), FADE + 1, mode="edge")
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[FADE + 1 : -FADE - 1, FADE + 1 : -FADE - 1]
    return np.minimum(inside / (FADE + 1), 1).astype(np.float32)


def _touched(mask: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """Return the positions of a code whose block has a pixel inside the mask."""
    side = len(mask) // stride
    return np.asarray(mask.reshape(side, stride, side, stride).any((1, 3)))
