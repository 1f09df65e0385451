"""What a model keeps of a frame and what it loses: by spatial frequency, and by region (the report's findings)."""

import math

import numpy as np
import torch
from torch import Tensor

from pixelscope.imaging.tissue import BLACK, BRIGHT, LUMA, touching_edge

REGIONS = ("tissue", "lumen", "glints", "inset", "border")
FINE = 0.25
"""Share of the highest frequency, half a cycle a pixel, from which detail counts as fine."""

DARK = 0.30
"""Brightness under which a pixel is dark."""


def brightness(images: Tensor) -> Tensor:
    """Return (N, H, W) in [0, 1] of images (N, 3, H, W) in [0, 1]."""
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA, dtype=images.dtype, device=images.device))


def spectrum(images: Tensor) -> Tensor:
    """Return the energy of brightness at each frequency, (N, F).

    images: (N, 3, S, S). Frequency f, from 0 to S // 2 cycles a frame, gathers the ring |k| in [f - 1/2, f + 1/2) of the
    Fourier transform; the mean brightness is taken off, and a Hann window keeps the frame's edge out of it.
    """
    values = brightness(images)
    side = values.shape[-1]
    window = torch.hann_window(side, periodic=False, dtype=values.dtype)
    windowed = (values - values.mean((1, 2), keepdim=True)) * window[:, None] * window
    energy = torch.fft.fft2(windowed).abs().square().flatten(1)
    along = torch.fft.fftfreq(side) * side
    ring = torch.hypot(along[:, None], along).round().long().flatten()
    sums = torch.zeros(len(values), int(ring.max()) + 1, dtype=energy.dtype).index_add_(1, ring, energy)
    return sums[:, : side // 2 + 1]


def fine_detail_kept(originals: Tensor, reconstructions: Tensor) -> float:
    """Return the share of fine energy that reconstructions have of their originals', from spectra (F,) or (N, F)."""
    first = math.ceil(FINE * (originals.shape[-1] - 1))
    return float(reconstructions[..., first:].sum() / originals[..., first:].sum().clamp(min=1e-12))


def regions(images: Tensor, insets: np.ndarray) -> dict[str, Tensor]:
    """Return what each pixel shows, by `REGIONS`: bool (N, H, W) each, exactly one of them True at a pixel.

    images: (N, 3, H, W) in [0, 1]; insets: bool (N, H, W). border: black that touches the frame's edge; lumen: dark
    elsewhere; glints: bright in all three colours; tissue: the rest.
    """
    light = brightness(images)
    inset = torch.from_numpy(np.ascontiguousarray(insets))
    border = torch.from_numpy(np.stack([touching_edge(black) for black in (light < BLACK).numpy()])) & ~inset
    lumen = (light < DARK) & ~border & ~inset
    glints = (images.amin(1) > BRIGHT) & ~inset
    return {"tissue": ~(lumen | glints | inset | border), "lumen": lumen, "glints": glints, "inset": inset, "border": border}
