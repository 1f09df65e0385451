"""Memory: order of images and weights, and what the C library does with freed memory."""

import ctypes
import platform
from typing import TypeVar

import torch
from torch import Tensor, nn

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Numbers of the settings in glibc's malloc.h."""


def keep_heap() -> bool:
    """Let malloc keep freed memory for reuse; returns whether the C library supports it (glibc only).

    By default glibc maps each tensor over 32 MB anew and unmaps it afterwards, so the kernel clears every page in every step: a
    third of EndoVAE's step on a CPU, half of an evaluation.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 * 2**20)])


FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

N = TypeVar("N", bound=nn.Module)


def to_device(network: N, device: torch.device, memory_format: str) -> N:
    """Move a network to a device, its convolution weights in this memory format, and return it."""
    return network.to(device, memory_format=FORMATS[memory_format])  # pyright: ignore[reportCallIssue]


def to_memory_format(images: Tensor, memory_format: str) -> Tensor:
    """Return images (N, C, H, W) in this memory format; a convolution runs channels-last if its images or its weights are."""
    return images.contiguous(memory_format=FORMATS[memory_format])
