"""The order in which the values of images and weights lie in memory."""

from typing import TypeVar

import torch
from torch import Tensor, nn

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

N = TypeVar("N", bound=nn.Module)


def placed(network: N, device: torch.device, layout: str) -> N:
    """Bring a network to a device, its convolutions' weights in this layout, and return it."""
    return network.to(device, memory_format=FORMATS[layout])  # pyright: ignore[reportCallIssue]


def laid_out(images: Tensor, layout: str) -> Tensor:
    """Return images (N, C, H, W) in this layout; a convolution is computed channels last if either side is."""
    return images.contiguous(memory_format=FORMATS[layout])
