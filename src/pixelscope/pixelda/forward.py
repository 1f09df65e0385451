"""Draws noise and applies G and T to images."""

import numpy as np
import torch
from torch import Tensor, nn

from pixelscope.data.disk_array import Bytes
from pixelscope.data.loader import to_float, to_uint8
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.networks import StrongClassifier, TaskNetwork


def draw_noise(config: PixelDAConfig, count: int, draw: torch.Generator) -> Tensor:
    """Draw z, shape (count, noise_dim): uniform on [-1, 1] or standard normal."""
    shape = (count, config.generator.noise_dim)
    if config.generator.noise == "normal":
        return torch.randn(shape, generator=draw)
    return torch.rand(shape, generator=draw) * 2 - 1


@torch.no_grad()
def redraw(generator: nn.Module, images: Bytes, z: Tensor) -> Bytes:
    """Return the uint8 images (N, 3, S, S) that G generates from uint8 `images` and `z`, in evaluation mode."""
    training = generator.training
    generator.eval()
    drawn = generator(to_float(torch.from_numpy(images).to(z.device)), z)
    generator.train(training)
    return to_uint8(drawn).cpu().numpy()


def pixels(images: Bytes) -> Bytes:
    """Return uint8 images (..., 1 or 3, H, W) as (..., H, W, 3); grey is repeated."""
    last = np.moveaxis(images, -3, -1)
    return np.repeat(last, 3, axis=-1) if last.shape[-1] == 1 else np.ascontiguousarray(last)


@torch.no_grad()
def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) and the inputs (N, F) of the last layer, for images (N, 3, S, S) in [-1, 1].

    The network must be in evaluation mode.
    """
    if isinstance(network, StrongClassifier):
        features = network.features(images).mean((2, 3))
        return network.fc(features), features
    assert isinstance(network, TaskNetwork)
    features = network.shared[:-1](network.conv1(images))
    return network.shared[-1](features), features
