"""Memory format of images and weights."""

from typing import TypeVar

import torch
from torch import Tensor, nn

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

N = TypeVar("N", bound=nn.Module)


def to_device(network: N, device: torch.device, memory_format: str) -> N:
    """Move a network to a device, with its convolution weights in this memory format, and return it."""
    return network.to(device, memory_format=FORMATS[memory_format])  # pyright: ignore[reportCallIssue]


def to_memory_format(images: Tensor, memory_format: str) -> Tensor:
    """Return images (N, C, H, W) in this memory format; a convolution runs channels-last if its images or weights are."""
    return images.contiguous(memory_format=FORMATS[memory_format])
