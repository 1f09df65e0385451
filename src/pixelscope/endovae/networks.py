"""The two networks of EndoVAE: encoder and decoder.

Images are float tensors of shape (N, 3, S, S) in [0, 1]. Source: Diamantis, Gatoula, Iakovidis, "EndoVAE: Generating
Endoscopic Images with a Variational Autoencoder", IVMSP 2022, Figure 2, as implemented by the reference study. At 96 pixels,
six latent dimensions and width 16, the encoder has 9,842,380 parameters and the decoder 1,282,467.
"""

import torch
from torch import Tensor, nn

HIDDEN = 256
"""Units of the encoder's dense layer."""


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

    def logits(self, z: Tensor) -> Tensor:
        """Return the images before the sigmoid, (N, 3, S, S), for `z` (N, latent)."""
        features = torch.relu(self.dense(z)).view(-1, *self.start)
        # A convolution runs in channels_last if its input or its weights are: the features follow the weights.
        last = next(self.layers.parameters()).is_contiguous(memory_format=torch.channels_last)
        return self.layers(features.contiguous(memory_format=torch.channels_last) if last else features)

    def forward(self, z: Tensor) -> Tensor:
        """Return images (N, 3, S, S) in [0, 1] for `z` (N, latent)."""
        return torch.sigmoid(self.logits(z))


def make_networks(size: int, latent: int, width: int) -> tuple[Encoder, Decoder]:
    """Return an encoder and a decoder for images of side `size`; their initial weights are drawn from torch's generator."""
    return Encoder(size, latent, width), Decoder(size, latent, width)


def _initialise(module: nn.Module) -> None:
    """Initialize weights by Glorot uniform and biases with zero, the defaults of the reference study's framework."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
