"""Weak and strong views of images, altered so that their class stays the same (Sohn et al. 2020)."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pixelscope.engine.config import ViewsConfig


def weak(images: Tensor, config: ViewsConfig, draw: torch.Generator) -> Tensor:
    """Return images (N, C, S, S), each shifted; edges are repeated."""
    shift = _uniform(len(images), 2, draw) * 2 * config.shift
    return _warped(images, torch.eye(2, device=draw.device).repeat(len(images), 1, 1), shift)


def strong(images: Tensor, config: ViewsConfig, draw: torch.Generator) -> Tensor:
    """Return images (N, 3, S, S) in [-1, 1]: rotated, zoomed, sheared, shifted, recoloured, some inverted, a square erased."""
    count = len(images)
    turn, high, wide, shear, *shift = _uniform(count, 6, draw).unbind(1)
    matrix = _matrix(
        turn * 2 * torch.pi * config.rotation, 1 + config.zoom * high, 1 + config.zoom * wide, config.shear * shear
    )
    moved = _warped(images, matrix, torch.stack(shift, 1) * 2 * config.shift)
    gain = 1 + config.colour * _uniform(count, 3, draw)
    bias = config.colour * _uniform(count, 3, draw)
    inverted = torch.rand(count, 1, generator=draw, device=draw.device) < config.invert
    sign = 1 - 2 * inverted.float()
    coloured = moved * (gain * sign)[..., None, None].to(moved) + bias[..., None, None].to(moved)
    return _erased(coloured.clamp(-1, 1), config.erase, draw)


def _uniform(count: int, columns: int, draw: torch.Generator) -> Tensor:
    """Return values (count, columns) uniform on [-1, 1], on the generator's device."""
    return 2 * torch.rand(count, columns, generator=draw, device=draw.device) - 1


def _matrix(angle: Tensor, high: Tensor, wide: Tensor, shear: Tensor) -> Tensor:
    """Return affine matrices (N, 2, 2) from output to input coordinates."""
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos / wide, (-sin + shear) / wide], 1), torch.stack([sin / high, cos / high], 1)]
    return torch.stack(rows, 1)


def _warped(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    theta = torch.cat([matrix, shift[:, :, None]], 2).to(images)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _erased(images: Tensor, largest: float, draw: torch.Generator) -> Tensor:
    """Set a square of each image to a random grey."""
    if largest == 0:
        return images
    count, size = len(images), images.shape[-1]
    side, top, left, grey = torch.rand(count, 4, generator=draw, device=draw.device).unbind(1)
    side = side * largest
    along = (torch.arange(size, device=draw.device) + 0.5) / size
    rows = (along >= (top * (1 - side))[:, None]) & (along < (top * (1 - side) + side)[:, None])
    columns = (along >= (left * (1 - side))[:, None]) & (along < (left * (1 - side) + side)[:, None])
    inside = rows[:, :, None] & columns[:, None, :]
    return torch.where(inside[:, None], (2 * grey - 1)[:, None, None, None].to(images), images)
