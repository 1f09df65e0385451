"""The machine as benchmarks see it: its clock, its device, and the fastest that it can compute."""

import statistics
import time
from collections.abc import Callable
from functools import cache

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONVOLUTIONS = ((32, 256, 64), (32, 128, 64), (64, 64, 96))
"""Images, channels in and out, side in pixels."""
MATRICES = (2048, 4096)


@cache
def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ready() -> float:
    """Return the time in seconds, once the device has done all that was asked of it."""
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def ceiling(dtype: str) -> dict[str, float]:
    """Return the best rates in GFLOP/s: of a 3x3 convolution, channels last, and of a matrix product."""
    kind = DTYPES[dtype]
    return {
        "convolution": max(_convolution(*shape, kind) for shape in CONVOLUTIONS),
        "matrix product": max(_product(size, kind) for size in MATRICES),
    }


@torch.no_grad()
def fastest_convolution(dtype: str) -> tuple[Callable[[], object], float]:
    """Return the convolution that this machine computes at the best rate, and its GFLOP."""
    rates = {shape: _convolution(*shape, DTYPES[dtype]) for shape in CONVOLUTIONS}
    count, channels, side = max(rates, key=lambda shape: rates[shape])
    images, weights = _operands(count, channels, side, DTYPES[dtype])
    return lambda: torch.conv2d(images, weights, padding=1), _operations(count, channels, side) / 1e9


def _convolution(count: int, channels: int, side: int, dtype: torch.dtype) -> float:
    images, weights = _operands(count, channels, side, dtype)
    return _operations(count, channels, side) / _fastest(lambda: torch.conv2d(images, weights, padding=1)) / 1e9


def _operands(count: int, channels: int, side: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(count, channels, side, side, dtype=dtype, device=device())
    weights = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device())
    return images.contiguous(memory_format=torch.channels_last), weights.contiguous(memory_format=torch.channels_last)


def _operations(count: int, channels: int, side: int) -> int:
    return 2 * 9 * count * channels**2 * side**2


def _product(size: int, dtype: torch.dtype) -> float:
    matrix = torch.randn(size, size, dtype=dtype, device=device())
    return 2 * size**3 / _fastest(lambda: matrix @ matrix) / 1e9


def _fastest(work: Callable[[], object]) -> float:
    """Return the median seconds of one call, the first one left out."""
    seconds = []
    for _ in range(5):
        began = ready()
        work()
        seconds.append(ready() - began)
    return statistics.median(seconds[1:])
