"""Redraws a part of a frame, for example to put a polyp into a healthy one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.endovae.forward import decode, encode
from pixelscope.endovae.latent_prior.sample import AT_ONCE, FrameSampler
from pixelscope.endovae.latent_prior.spatial import FlowPrior
from pixelscope.errors import InputError

BORDER = 3
"""Pixels inside the mask over which the frame fades into what is drawn."""

Bytes = NDArray[np.uint8]


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
        """Return what files say about the distribution that their frames were drawn from."""
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
    """Return the weight of what is drawn, float32 (S, S): 0 outside of a mask, rising to 1 at `BORDER` pixels inside."""
    # Padded, so that the border of the frame counts as no border of the mask.
    padded = np.pad(mask.astype(np.uint8), BORDER + 1, mode="edge")
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[BORDER + 1 : -BORDER - 1, BORDER + 1 : -BORDER - 1]
    return np.minimum(inside / (BORDER + 1), 1).astype(np.float32)


def _touched(mask: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    """Return the positions of a code whose block has a pixel inside the mask."""
    side = len(mask) // stride
    return np.asarray(mask.reshape(side, stride, side, stride).any((1, 3)))
