"""Gaussian noise and dropout in one layer, used after each convolution of PixelDA's discriminator."""

import math

import numpy as np
import torch
from torch import Generator as RandomGenerator
from torch import Tensor, nn

_LEVELS = 2**16
"""Values of an int16."""


def random_bits(shape: torch.Size, device: torch.device, generator: RandomGenerator | None) -> Tensor:
    """Return independent uniform int16 values of `shape`, four per 64-bit draw.

    On a CPU, torch draws on one thread in twice the time of NumPy's generator, which is used there, seeded from `generator`.
    """
    count = (math.prod(shape) + 3) // 4
    if device.type == "cpu":
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        draws = torch.from_numpy(np.random.SFC64(seed).random_raw(count).view(np.int64))
    else:
        draws = torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[: math.prod(shape)].view(shape)


class NoisyDropout(nn.Module):
    """Adds N(0, std^2) to every activation, then sets some to zero with a probability and scales the others to keep the mean.

    In training only. A single uniform 16-bit value per activation drives both effects: the lowest `probability` of the range
    is dropped, and the rest is mapped through the inverse normal CDF (a lookup table) to Gaussian noise. The noise of a dropped
    activation is never seen. Noise is limited to 4.4 standard deviations, its spacing near zero is finer than bfloat16's, and
    the probability is rounded to a multiple of 1/65,536.
    """

    quantiles: Tensor

    def __init__(self, std: float, probability: float) -> None:
        super().__init__()
        self.std, self.probability = std, probability
        self.dropped = round(probability * _LEVELS)
        kept = _LEVELS - self.dropped
        middles = (torch.arange(kept, dtype=torch.float64) + 0.5) / kept
        noise = torch.special.ndtri(middles) * std / (1 - probability)
        self.register_buffer("quantiles", torch.cat([torch.zeros(self.dropped), noise.float()]), persistent=False)

    @property
    def active(self) -> bool:
        """Return whether it changes anything: in training, unless it is turned off."""
        return self.training and not (self.std == 0 and self.dropped == 0)

    def forward(self, activations: Tensor, generator: RandomGenerator | None = None, bits: Tensor | None = None) -> Tensor:
        """Return `activations` with noise and dropout, of the same shape and dtype.

        bits: what `random_bits` returned for the shape of `activations`, if it is drawn beforehand.
        """
        if not self.active:
            return activations
        if bits is None:
            bits = random_bits(activations.shape, activations.device, generator)
        levels = bits.view(torch.uint16).int()
        table = self.quantiles.to(activations.dtype)
        noise = _match_memory_format(table.index_select(0, levels.flatten()).view_as(levels), activations)
        if self.dropped == 0:
            return activations + noise
        # 0 for the levels that drop and 1 for the others, without a comparison: bool to bfloat16 is slow on a CPU.
        kept = levels.clamp_(self.dropped - 1, self.dropped).sub_(self.dropped - 1).to(activations.dtype)
        return torch.addcmul(noise, activations, _match_memory_format(kept, activations), value=1 / (1 - self.probability))

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"std={self.std}, probability={self.probability}"


def _match_memory_format(values: Tensor, activations: Tensor) -> Tensor:
    # The draws are independent, so giving them the activations' memory order (channels last) changes no distribution
    # and saves a transposition of the whole tensor.
    if activations.ndim == 4 and activations.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = activations.shape
        return values.view(n, h, w, c).permute(0, 3, 1, 2)
    return values
