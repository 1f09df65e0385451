"""The three networks of PixelDA: generator, discriminator, classifier.

Images are float tensors of shape (N, 3, S, S) in [-1, 1]. Sources: Bousmalis et al., "Unsupervised Pixel-Level Domain
Adaptation with Generative Adversarial Networks", CVPR 2017, Figures 3 and 7. Where the reference study
differs, it is followed (docs/decisions/0002-pixelda-protocol.md lists the differences).
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator as RandomGenerator
from torch import Tensor, nn

from pixelscope.pixelda.noise import NoisyDropout, random_bits

GROUPS = 8
"""Groups of channels that group normalisation treats as one."""


class ResidualBlock(nn.Module):
    """conv3x3 - batch norm - ReLU - conv3x3 - batch norm, added to the input (Figure 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features + self.layers(features)


class Generator(nn.Module):
    """G: generates a target-style image from a source image and noise (Figure 3).

    z passes a fully connected layer into one extra image channel; then conv3x3, residual blocks, conv3x3, tanh.
    """

    def __init__(self, size: int = 32, noise_dim: int = 10, blocks: int = 6, width: int = 64, conditioned: bool = True) -> None:
        super().__init__()
        self.size, self.noise_dim, self.conditioned = size, noise_dim, conditioned
        self.noise_fc = nn.Linear(noise_dim, size * size)
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """Return images generated from `images` (N, 3, S, S) in [-1, 1] and noise `z` (N, noise_dim), of the same shape.

        Without conditioning, the input images are black.
        """
        if not self.conditioned:
            images = -torch.ones_like(images)
        channel = self.noise_fc(z).view(-1, 1, self.size, self.size)
        features = torch.relu(self.conv_in(torch.cat([images, channel.to(images.dtype)], dim=1)))
        return torch.tanh(self.conv_out(self.blocks(features)))


class Discriminator(nn.Module):
    """D: one logit per image, positive for the target domain.

    Four conv3x3 of width, 2, 4 and 8 times width, the first of stride 1 and the others of stride 2; after each batch
    norm, LeakyReLU(0.2), and in training Gaussian noise and dropout, drawn together.
    """

    def __init__(self, size: int = 32, width: int = 64, noise_std: float = 0.2, dropout: float = 0.1) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        strides = [1, 2, 2, 2]
        self.shapes = [
            (after, side, side) for after, side in zip(widths[1:], (size, size // 2, size // 4, size // 8), strict=True)
        ]
        """Shapes of an image's features after each layer."""
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.noise = NoisyDropout(noise_std, dropout)
        self.fc = nn.Linear(8 * width * (size // 8) ** 2, 1)
        self.apply(_initialise)

    def draw(self, count: int, device: torch.device, generator: RandomGenerator | None) -> list[Tensor]:
        """Return the random bits of noise and dropout for `count` images, one tensor per layer; none where they are off.

        Compiled code gets these values as input, because a compiler's own draws do not use `generator`.
        """
        if not self.noise.active:
            return []
        return [random_bits(torch.Size((count, *shape)), device, generator) for shape in self.shapes]

    def forward(self, images: Tensor, generator: RandomGenerator | None = None, bits: Sequence[Tensor] | None = None) -> Tensor:
        """Return logits (N,) of `images` (N, 3, S, S) in [-1, 1].

        Noise and dropout are made of `bits`, which `draw` returned, or else of draws from `generator`.
        """
        features = images
        for layer, convolution in enumerate(self.convolutions):
            features = self.noise(convolution(features), generator, bits[layer] if bits else None)
        return self.fc(features.flatten(1)).flatten()


class TaskNetwork(nn.Module):
    """T of either kind: a first convolution, optionally separate for source images, and shared layers.

    The last shared layer is linear and decides between the classes.
    """

    def __init__(self, conv1: nn.Conv2d, conv1_source: nn.Conv2d | None, shared: nn.Sequential) -> None:
        super().__init__()
        self.conv1, self.conv1_source, self.shared = conv1, conv1_source, shared

    def forward(self, images: Tensor, source: bool = False) -> Tensor:
        """Return logits (N, classes) for `images` (N, 3, S, S) in [-1, 1].

        `source`: whether the images are from the source domain; it matters with private first layers only.
        """
        conv1 = self.conv1_source if source and self.conv1_source is not None else self.conv1
        return self.shared(conv1(images))


class Classifier(TaskNetwork):
    """T of the paper (Figure 7); 359,290 parameters at 32 x 32 pixels and ten classes.

    conv5x5-32, ReLU, max pool, conv5x5-48, ReLU, max pool, fully connected 100, 100, classes. The first fully connected
    layer grows with the square of the side.
    """

    def __init__(self, classes: int = 10, size: int = 32, private_first_layer: bool = False) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 5, padding=2),
            nn.Conv2d(3, 32, 5, padding=2) if private_first_layer else None,
            # A ReLU after a max pool has a quarter of the values, and gives the same ones as before it.
            nn.Sequential(
                nn.MaxPool2d(2),
                nn.ReLU(),
                nn.Conv2d(32, 48, 5, padding=2),
                nn.MaxPool2d(2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(48 * (size // 4) ** 2, 100),
                nn.ReLU(),
                nn.Linear(100, 100),
                nn.ReLU(),
                nn.Linear(100, classes),
            ),
        )
        self.apply(_initialise)


class ResidualClassifier(TaskNetwork):
    """T for larger images: a residual network (He et al., CVPR 2016); 697,706 parameters at width 32 and ten classes.

    conv3x3 of `width` channels, three stages of two residual blocks with width, 2 and 4 times width, each stage at half the
    side, the mean over the image, and a linear layer. The number of parameters does not depend on the side. Group
    normalisation (Wu & He, ECCV 2018) has statistics per image, so source and generated images do not mix.
    Initial weights are PyTorch's defaults for convolutions and linear layers (uniform, after He et al., ICCV 2015).
    """

    def __init__(self, classes: int = 10, width: int = 32, private_first_layer: bool = False) -> None:
        widths = [width, width, 2 * width, 4 * width]
        stages = [
            block
            for before, after in zip(widths, widths[1:], strict=False)
            for block in (ClassifierBlock(before, after, 2), ClassifierBlock(after, after, 1))
        ]
        super().__init__(
            _conv3x3(3, width),
            _conv3x3(3, width) if private_first_layer else None,
            nn.Sequential(
                _group_norm(width),
                nn.ReLU(inplace=True),
                *stages,
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(widths[-1], classes),
            ),
        )


class StrongClassifier(nn.Module):
    """Six conv3x3 with batch norm and ReLU, then the mean over the image, dropout, and a linear layer.

    In pairs of width, 2 and 4 times width, with max pools between the pairs.
    """

    def __init__(self, classes: int, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, after in enumerate((width, 2 * width, 4 * width)):
            # A ReLU after a max pool has a quarter of the values, and gives the same ones as before it.
            for pool in ([], [nn.MaxPool2d(2)] if stage < 2 else []):
                convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(after), *pool, nn.ReLU(inplace=True)]
                before = after
        self.features = nn.Sequential(*layers)
        self.dropout = dropout
        self.fc = nn.Linear(before, classes)

    def draw(self, count: int, device: torch.device, generator: RandomGenerator | None) -> Tensor:
        """Return values (count, features) uniform on [0, 1), which decide what is dropped; compiled code gets them as input."""
        return torch.rand((count, self.fc.in_features), generator=generator, device=device)

    def forward(self, images: Tensor, source: bool = False, uniform: Tensor | None = None) -> Tensor:
        """Return logits (N, classes) for `images` (N, 3, S, S) in [-1, 1].

        `source` makes no difference here; `uniform`, which `draw` returned, decides what is dropped in training.
        """
        features = self.features(images).mean((2, 3))
        if self.training and self.dropout:
            kept = (self.draw(len(images), images.device, None) if uniform is None else uniform) >= self.dropout
            features = features * kept.to(features) / (1 - self.dropout)
        return self.fc(features)


class MeanClassifier(nn.Module):
    """The weighted mean of the predictions of two classifiers; its logits are the logarithms of the mean probabilities."""

    log_weights: Tensor

    def __init__(self, start: nn.Module, refined: nn.Module, weight: float = 0.5) -> None:
        """Take two classifiers; weight: of the first, in (0, 1)."""
        super().__init__()
        self.start, self.refined = start, refined
        self.register_buffer("log_weights", torch.tensor([weight, 1 - weight]).log())

    def forward(self, images: Tensor, source: bool = False) -> Tensor:
        """Return logits (N, classes) for `images` (N, 3, S, S) in [-1, 1]; `source`: of the source domain."""
        both = [network(images, source=source).log_softmax(1) for network in (self.start, self.refined)]
        # Not logaddexp, which ONNX computes by exponentials that can be 0.
        return torch.logsumexp(torch.stack([both[0] + self.log_weights[0], both[1] + self.log_weights[1]]), 0)


def make_classifier(kind: str, classes: int, size: int, width: int, private_first_layer: bool = False) -> TaskNetwork:
    """Return T of the kind `paper` or `residual` for images of `size` pixels; torch's global generator draws its weights.

    width: of the first convolution of `residual`; the other kind has the paper's.
    """
    if kind == "residual":
        return ResidualClassifier(classes, width, private_first_layer)
    return Classifier(classes, size, private_first_layer)


class ClassifierBlock(nn.Module):
    """conv3x3 - group norm - ReLU - conv3x3 - group norm, added to the input, then ReLU (He et al., CVPR 2016, Figure 2).

    A block of stride 2 pools its input 2x2 by the mean and passes it through a conv1x1 with group norm (He et al., CVPR 2019,
    Figure 2c): a conv1x1 of stride 2 would look at a quarter of it, and with 4 channels its gradient writes past its memory
    in torch 2.13 on CPUs.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv3x3(before, after, stride),
            _group_norm(after),
            nn.ReLU(inplace=True),
            _conv3x3(after, after),
            _group_norm(after),
        )
        pooled = [nn.AvgPool2d(2), nn.Conv2d(before, after, 1, bias=False), _group_norm(after)]
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(*pooled)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, after, S / stride, S / stride) of `features` (N, before, S, S)."""
        return torch.relu(self.shortcut(features) + self.layers(features))


def _conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _group_norm(channels: int) -> nn.GroupNorm:
    """Return group normalisation in `GROUPS` groups, or fewer if they do not divide the channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def _initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and set biases to zero, as in the reference study."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
