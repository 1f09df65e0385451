"""The networks of EndoVAE: an encoder and a decoder of a global code, one vector per image, or of a spatial one.

Images are float tensors of shape (N, 3, S, S) in [0, 1]. Source of the global code: Diamantis, Gatoula, Iakovidis, "EndoVAE:
Generating Endoscopic Images with a Variational Autoencoder", IVMSP 2022, Figure 2, as implemented by the reference study. At 96
pixels, six latent dimensions and width 16, its encoder has 9,842,380 parameters and its decoder 1,282,467. The spatial code has
no published model.
"""

import math
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

HIDDEN = 256
"""Units of the encoder's dense layer."""
GROUPS = 8
"""Maximum number of groups of a group norm."""
GAIN = 2.0
"""Initial factor from the coefficients of a block to its code, whose values then vary by about 1."""
LOG_VARIANCE = -6.0
"""Initial log variance of a spatial code: noise that hides no detail."""
SMALL = 0.01
"""Initial factor on the weights of the last layer of residual blocks: at first, the linear path leads."""
CHROMA = 5
"""Factor on the squared frequency of colour differences, which are smooth, in the order of coefficients."""


class Encoder(nn.Module):
    """Maps images to the parameters of their posterior.

    Six conv3x3 with 1, 2, 2, 4, 8 and 16 times `width` channels, the third, fourth and sixth with stride 2, then dense 256, all
    with ReLU; finally one dense layer each for mean and log variance.
    """

    def __init__(self, size: int = 96, latent: int = 6, width: int = 16) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 2 * width, 4 * width, 8 * width, 16 * width]
        strides = [1, 1, 2, 2, 1, 2]
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(16 * width * (size // 8) ** 2, HIDDEN)
        self.mean = nn.Linear(HIDDEN, latent)
        self.log_variance = nn.Linear(HIDDEN, latent)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 2, latent) for `images` (N, 3, S, S) in [0, 1]: the mean at [:, 0], the log variance at [:, 1]."""
        features = torch.relu(self.dense(self.convolutions(images).flatten(1)))
        return torch.stack([self.mean(features), self.log_variance(features)], dim=1)


class Decoder(nn.Module):
    """Maps latent vectors to images.

    Dense to 16 times `width` channels at an eighth of the side; transposed conv3x3 with stride 2 to 16, 4 and 2 times `width`,
    each followed by a conv3x3 to 8, 4 and 2 times `width`; all with ReLU; then conv3x3 to three channels and sigmoid.
    """

    def __init__(self, size: int = 96, latent: int = 6, width: int = 16) -> None:
        super().__init__()
        self.start = (16 * width, size // 8, size // 8)
        self.dense = nn.Linear(latent, 16 * width * (size // 8) ** 2)
        layers: list[nn.Module] = []
        channels = 16 * width
        for up, after in ((16 * width, 8 * width), (4 * width, 4 * width), (2 * width, 2 * width)):
            layers += [nn.ConvTranspose2d(channels, up, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(up, after, 3, padding=1), nn.ReLU(inplace=True)]
            channels = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))
        self.apply(_initialise)

    def linear_output(self, z: Tensor) -> Tensor:
        """Return the images before the sigmoid, (N, 3, S, S), for `z` (N, latent)."""
        features = torch.relu(self.dense(z)).view(-1, *self.start)
        # A convolution runs in channels_last if its input or its weights are: the features follow the weights.
        last = next(self.layers.parameters()).is_contiguous(memory_format=torch.channels_last)
        return self.layers(features.contiguous(memory_format=torch.channels_last) if last else features)

    def forward(self, z: Tensor) -> Tensor:
        """Return images (N, 3, S, S) in [0, 1] for `z` (N, latent)."""
        return torch.sigmoid(self.linear_output(z))


class SpatialEncoder(nn.Module):
    """Maps images to the posterior of a spatial code: `latent` numbers per block of `stride` x `stride` pixels.

    The mean is a linear projection of each block, plus what residual blocks add to it. The
    projection starts as the first coefficients of a cosine transform (Ahmed et al. 1974) in brightness and two colour
    differences, so that training starts from a picture.
    """

    def __init__(self, stride: int, latent: int, width: int, blocks: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, latent, stride, stride)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for level in range(int(math.log2(stride))):
            before, after = _channels(width, level), _channels(width, level + 1)
            layers += [_Downsample(before, after), *(_ResidualBlock(after) for _ in range(blocks))]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(_channels(width, int(math.log2(stride))), 2 * latent, 1)
        with torch.no_grad():
            self.project.weight.copy_(GAIN * cosine_basis(stride, latent))
            self.head.weight.mul_(SMALL)
            _set_bias(self.head, torch.cat([torch.zeros(latent), torch.full((latent,), LOG_VARIANCE)]))
            _set_bias(self.project, torch.zeros(latent))

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 2, latent h w) for `images` (N, 3, S, S) in [0, 1]: the mean at [:, 0], the log variance at [:, 1].

        The values of one position are next to each other, positions by row.
        """
        centred = images - 0.5
        mean, log_variance = self.head(self.layers(2 * centred)).chunk(2, 1)
        maps = torch.stack([self.project(centred) + mean, log_variance], dim=1)
        return maps.permute(0, 1, 3, 4, 2).flatten(2)


class SpatialDecoder(nn.Module):
    """Maps spatial codes to images, as `SpatialEncoder` maps images to codes."""

    def __init__(self, size: int, stride: int, latent: int, width: int, blocks: int) -> None:
        super().__init__()
        self.start = (size // stride, size // stride, latent)
        self.unproject = nn.ConvTranspose2d(latent, 3, stride, stride)
        levels = int(math.log2(stride))
        layers: list[nn.Module] = [nn.Conv2d(latent, _channels(width, levels), 3, padding=1)]
        for level in reversed(range(levels)):
            before, after = _channels(width, level + 1), _channels(width, level)
            layers += [*(_ResidualBlock(before) for _ in range(blocks)), _Upsample(before, after)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, 3, 3, padding=1)
        with torch.no_grad():
            self.unproject.weight.copy_(cosine_basis(stride, latent) / GAIN)
            self.head.weight.mul_(SMALL)
            for layer in (self.head, self.unproject):
                _set_bias(layer, torch.zeros(3))

    def linear_output(self, z: Tensor) -> Tensor:
        """Return the images before they are limited to [0, 1], (N, 3, S, S), for `z` (N, latent h w)."""
        code = z.view(-1, *self.start).permute(0, 3, 1, 2)
        return self.unproject(code) + 0.5 + self.head(self.layers(code))

    def forward(self, z: Tensor) -> Tensor:
        """Return images (N, 3, S, S) in [0, 1] for `z` (N, latent h w)."""
        return self.linear_output(z).clamp(0, 1)


class PatchDiscriminator(nn.Module):
    """Tells real images from reconstructions, patch by patch (Isola et al. 2017, section 3.2.2).

    Three conv4x4 with stride 2 and 1, 2 and 4 times `width` channels, and a conv3x3, each with LeakyReLU; then conv3x3 to one
    output per position, which sees 54 x 54 pixels. All weights have a spectral norm of 1 (Miyato et al. 2018), which keeps the
    training stable.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((3, width, 2 * width, 4 * width)):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1, bias=False)))

    def forward(self, images: Tensor) -> Tensor:
        """Return outputs (N, 1, S / 8, S / 8), large for real ones, for `images` (N, 3, S, S) in [0, 1]."""
        return self.layers(2 * images - 1)


class _ResidualBlock(nn.Module):
    """Group norm, SiLU and conv3x3, twice; added to the input (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, channels)
        self.layers = nn.Sequential(
            *(nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class _Downsample(nn.Module):
    """Halves both sides: each 2 x 2 positions become channels, and a convolution mixes them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.mix(F.pixel_unshuffle(features, 2))


class _Upsample(nn.Module):
    """Doubles both sides: a convolution makes four times the channels, which become 2 x 2 positions (Shi et al. 2016)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(before, 4 * after, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mix(features), 2)


AnyEncoder = Encoder | SpatialEncoder
AnyDecoder = Decoder | SpatialDecoder
Networks = tuple[AnyEncoder, AnyDecoder]


def cosine_transform(side: int) -> Tensor:
    """Return the cosine transform of `side` values (Ahmed et al. 1974), orthonormal, smoothest first, float64 (side, side)."""
    positions = torch.arange(side, dtype=torch.float64) + 0.5
    waves = torch.cos(torch.pi * torch.outer(torch.arange(side, dtype=torch.float64), positions) / side)
    return F.normalize(waves, dim=1)


def cosine_basis(stride: int, count: int) -> Tensor:
    """Return the `count` smoothest functions of a block of `stride` x `stride` pixels, (count, 3, stride, stride), orthonormal.

    Products of cosines in brightness, red minus blue, and green minus both, ordered by `_roughness`.
    """
    waves = cosine_transform(stride)
    colours = F.normalize(torch.tensor([[1, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64), dim=1)
    order = sorted(product(range(3), range(stride), range(stride)), key=_roughness)
    chosen = [torch.einsum("c,h,w->chw", colours[colour], waves[u], waves[v]) for colour, u, v in order[:count]]
    return torch.stack(chosen).float()


def _roughness(coefficient: tuple[int, int, int]) -> float:
    colour, u, v = coefficient
    return CHROMA * (u * u + v * v) + 0.5 if colour else u * u + v * v


def make_networks(size: int, latent: int, width: int, kind: str = "global", stride: int = 4, blocks: int = 2) -> Networks:
    """Return an encoder and a decoder; their initial weights are drawn from torch's generator.

    Args:
        size: side of the images; of a spatial code a multiple of `stride`.
        latent: dimensions of the code; of a spatial one, per block of pixels, at most 3 stride^2.
        width: channels at the images' size.
        kind: `global` or `spatial`.
        stride: side in pixels of the block that one position of a spatial code stands for, a power of 2.
        blocks: residual blocks per halving, of a spatial code.
    """
    if kind == "spatial":
        return SpatialEncoder(stride, latent, width, blocks), SpatialDecoder(size, stride, latent, width, blocks)
    return Encoder(size, latent, width), Decoder(size, latent, width)


def _channels(width: int, level: int) -> int:
    """Return the channels after `level` halvings."""
    return width * min(2**level, 4)


def _set_bias(layer: nn.Conv2d | nn.ConvTranspose2d, values: Tensor) -> None:
    assert layer.bias is not None
    layer.bias.copy_(values)


def _initialise(module: nn.Module) -> None:
    """Initialize weights by Glorot uniform and biases with zero, the defaults of the reference study's framework."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
