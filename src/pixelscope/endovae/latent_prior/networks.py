"""The velocity field of flow matching on spatial codes: the field of a Gaussian, plus what a small U-Net adds to it.

Codes are float tensors of shape (N, C, S, S). A point on the path from noise x0 to a code x1 at the time t in [0, 1] is
(1 - t) x0 + t x1, and its velocity x1 - x0 (Lipman et al. 2023, "Flow Matching for Generative Modeling", equations 22 and
23 with sigma_min = 0; Liu et al. 2023, "Flow Straight and Fast", equation 1).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.networks import cosine_transform

GROUPS = 8
"""Maximum number of groups of a group norm."""
FREQUENCIES = 32
"""Cosines, and sines, that a time is described by."""
LEVELS = 3
"""Maximum number of sizes of maps in the U-Net."""
NOISE_OFFSET = 0.05
"""Added to the fraction of noise in a point, by which the point is divided to estimate the noise."""
MIN_VARIANCE = 1e-4
"""Minimum variance of a coefficient."""


class GaussianField(nn.Module):
    """The velocity field between N(0, I) and a Gaussian of codes whose coefficients in a cosine transform are independent.

    It is linear and known in closed form, and draws codes with the mean and the power spectrum of the fitted ones.
    """

    mean: Tensor
    """Of frames, and of their mirror images, (2, C, S, S)."""
    variance: Tensor
    """Variance of each coefficient, (C, S, S)."""
    basis: Tensor
    """The cosine transform (Ahmed et al. 1974), orthonormal, (S, S)."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2, channels, side, side))
        self.register_buffer("variance", torch.ones(channels, side, side))
        self.register_buffer("basis", cosine_transform(side).float(), persistent=False)

    def fit(self, codes: Tensor, mirrored: Tensor) -> None:
        """Take mean and variances from codes (N, C, S, S); `mirrored`: 1 for those of mirror images, else 0, int64 (N,)."""
        for number in mirrored.unique().tolist():
            self.mean[number] = codes[mirrored == number].mean(0)
        self.variance.copy_(self._transform(codes - self.mean[mirrored]).var(0).clamp_min(MIN_VARIANCE))

    def forward(self, points: Tensor, time: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected velocity and the expected code, (N, C, S, S) each, of points at times (N, 1, 1, 1)."""
        mean = self.mean[mirrored]
        away = self._transform(points - time * mean)
        spread = time.square() * self.variance + (1 - time).square()
        velocity = (time * self.variance - (1 - time)) / spread * away
        code = time * self.variance / spread * away
        return mean + self._inverse(velocity), mean + self._inverse(code)

    def _transform(self, maps: Tensor) -> Tensor:
        return self.basis @ maps @ self.basis.T

    def _inverse(self, coefficients: Tensor) -> Tensor:
        return self.basis.T @ coefficients @ self.basis


class VelocityField(nn.Module):
    """Velocity of points at a time, given labels: `GaussianField` plus a U-Net (Ronneberger et al. 2015).

    The U-Net adds a velocity, and weights of the points themselves. So fine detail need not pass through it, only where
    detail is, and where noise alone.

    Mirror images have a label, so that they double the training set without being drawn (Karras et al. 2022, appendix F.2).
    """

    def __init__(self, channels: int, side: int, width: int, blocks: int, kinds: int) -> None:
        """Make a field.

        Args:
            channels: of a code.
            side: of a code, in positions.
            width: channels of the largest maps; smaller maps have 2 and 3 times as many.
            blocks: residual blocks per size of maps, on the way down and on the way up.
            kinds: number of kinds of frames.
        """
        super().__init__()
        self.gaussian = GaussianField(channels, side)
        self.fold = 2 if side % 2 == 0 else 1
        sizes = _sizes(side // self.fold)
        widths = [width * (level + 1) for level in range(len(sizes))]
        described = 4 * width
        folded = channels * self.fold**2
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, described), nn.SiLU(), nn.Linear(described, described))
        self.kind = nn.Embedding(kinds + 1, described)
        self.mirrored = nn.Embedding(2, described)
        self.conv_in = nn.Conv2d(3 * folded, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, width, sizes[0], sizes[0]))
        self.down = nn.ModuleList(_Stage(some, described, blocks, size) for some, size in zip(widths, sizes, strict=True))
        self.downsample = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(_Stage(some, described, blocks, size) for some, size in zip(widths, sizes, strict=True))
        self.upsample = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.conv_out = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, 3 * folded, 3, padding=1))
        # At first, the Gaussian field is the whole field.
        nn.init.zeros_(self.conv_out[-1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.conv_out[-1].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, points: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """Return the velocity (N, C, S, S).

        Args:
            points: (N, C, S, S).
            time: (N,) in [0, 1]; 0 is noise.
            labels: int64 (N, 2): the number of a kind from 1, or 0 for none; 1 for mirror images, else 0.
        """
        at = time[:, None, None, None]
        with torch.autocast(points.device.type, enabled=False):
            velocity, code = self.gaussian(points, at, labels[:, 1])
            scaled = points / (at.square() + (1 - at).square()).sqrt()
            given = torch.cat([scaled, scaled.abs(), code], 1)
        described = F.silu(self.time(_waves(time)) + self.kind(labels[:, 0]) + self.mirrored(labels[:, 1]))
        maps = self.conv_in(F.pixel_unshuffle(given, self.fold)) + self.position
        kept: list[Tensor] = []
        for level, stage in enumerate(self.down):
            maps = stage(maps if level == 0 else self.downsample[level - 1](maps), described)
            kept.append(maps)
        for level in reversed(range(len(self.up))):
            if level < len(self.upsample):
                maps = kept[level] + F.interpolate(self.upsample[level](maps), kept[level].shape[-2:], mode="nearest")
            maps = self.up[level](maps, described)
        added, whole, rest = F.pixel_shuffle(self.conv_out(maps), self.fold).float().chunk(3, 1)
        return velocity + added + (whole * points + rest * (points - at * code)) / (1 - at + NOISE_OFFSET)


class _Stage(nn.Module):
    """Residual blocks at one size, and self-attention where the maps are small."""

    def __init__(self, channels: int, described: int, blocks: int, size: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_ResidualBlock(channels, described) for _ in range(blocks))
        self.attention = _Attention(channels) if size <= MAX_ATTENTION_SIDE else None

    def forward(self, maps: Tensor, described: Tensor) -> Tensor:
        for block in self.blocks:
            maps = block(maps, described)
        return maps if self.attention is None else self.attention(maps)


MAX_ATTENTION_SIDE = 6
"""Maximum side of maps with self-attention."""
HEADS = 4


class _ResidualBlock(nn.Module):
    """Group norm, SiLU and conv3x3, twice; the second norm is scaled and shifted by time and kind (Dhariwal, Nichol 2021)."""

    def __init__(self, channels: int, described: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.modulate = nn.Linear(described, 2 * channels)
        self.norm = _norm(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, maps: Tensor, described: Tensor) -> Tensor:
        scale, shift = self.modulate(described)[:, :, None, None].chunk(2, 1)
        return maps + self.second(F.silu(self.norm(self.first(maps)) * (1 + scale) + shift))


class _Attention(nn.Module):
    """Self-attention over positions (Vaswani et al. 2017), added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS if channels % HEADS == 0 else 1
        self.norm = _norm(channels)
        self.queries = nn.Conv2d(channels, 3 * channels, 1)
        self.merge = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.merge.weight)

    def forward(self, maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        parts = self.queries(self.norm(maps)).reshape(count, 3, self.heads, channels // self.heads, height * width)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        found = F.scaled_dot_product_attention(query, key, value)
        return maps + self.merge(found.transpose(-1, -2).reshape(maps.shape))


def _sizes(side: int) -> list[int]:
    """Return the sides of the maps, each half of the one before."""
    sizes = [side]
    while len(sizes) < LEVELS and sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def _waves(time: Tensor) -> Tensor:
    """Return cosines and sines of times (N,), (N, 2 `FREQUENCIES`)."""
    angles = time[:, None] * torch.logspace(0, 2, FREQUENCIES, device=time.device) * math.pi
    return torch.cat([angles.cos(), angles.sin()], 1)
