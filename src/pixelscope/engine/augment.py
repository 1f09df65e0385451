"""Augmentation of batches with explicit random draws.

`augment` flips, rotates, zooms and changes the contrast, as Keras does. `weak_view`, `moved_view` and `strong_view`
return views that keep the class of an image (FixMatch, Sohn et al. 2020).
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pixelscope.engine.config import AugmentConfig, ViewsConfig


@dataclass(frozen=True)
class Transforms:
    """Transforms of N images, applied in the order of the fields."""

    flip: Tensor
    """bool, (N,): horizontal flip."""
    angle: Tensor
    """float32, (N,): anticlockwise rotation about the centre, in radians."""
    zoom: Tensor
    """float32, (N, 2): scale factors of height and width about the centre, above 0."""
    contrast: Tensor
    """float32, (N,): contrast factor about the mean of each image and channel."""

    @classmethod
    def identity(cls, count: int) -> "Transforms":
        """Return the transforms that leave `count` images as they are."""
        return cls(torch.zeros(count, dtype=torch.bool), torch.zeros(count), torch.ones(count, 2), torch.ones(count))

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, positions: Tensor) -> "Transforms":
        """Return the rows at `positions`, int64 (K,), or those where it is True, bool (N,)."""
        return Transforms(*(getattr(self, field.name)[positions] for field in fields(self)))

    def identity_where(self, chosen: Tensor) -> "Transforms":
        """Return the transforms with the identity in the rows where `chosen`, bool (N,), is True."""
        same = Transforms.identity(len(self))
        return Transforms(
            flip=self.flip & ~chosen,
            angle=torch.where(chosen, same.angle, self.angle),
            zoom=torch.where(chosen[:, None], same.zoom, self.zoom),
            contrast=torch.where(chosen, same.contrast, self.contrast),
        )

    def to(self, device: torch.device | str) -> "Transforms":
        """Return the transforms on `device`."""
        return Transforms(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_transforms(count: int, config: AugmentConfig, generator: torch.Generator) -> Transforms:
    """Draw the transforms of `count` images, on the generator's device.

    Rotation, zoom of height, zoom of width and contrast are uniform within their limits. The number of draws per image does not
    depend on `config`, so a setting changes its own transform only.
    """
    mirror, *rest = torch.rand(count, 5, generator=generator, device=generator.device).unbind(1)
    turn, height, width, contrast = (2 * draw - 1 for draw in rest)
    return Transforms(
        flip=(mirror < 0.5) & config.flip,
        angle=turn * (2 * torch.pi * config.rotation),
        zoom=1 + config.zoom * torch.stack([height, width], 1),
        contrast=1 + config.contrast * contrast,
    )


def augment(images: Tensor, transforms: Transforms) -> Tensor:
    """Flip, rotate and zoom in one bilinear interpolation; then change the contrast; then clamp.

    The contrast is (x - mean) * factor + mean with the mean per image and channel, as in Keras. Pixels outside the image are
    mirrored with doubled edge pixels, as in Keras' fill mode "reflect".

    Args:
        images: float, shape (N, C, S, S), in [0, 1].
        transforms: N rows, on the same device.

    Returns:
        The same shape, type, range and memory format; bit-identical if the transform is the identity.
    """
    warped = _warp(images, transforms)
    factor = transforms.contrast.to(images.dtype)[:, None, None, None]
    mean = warped.mean((2, 3), keepdim=True)
    # A factor of 1 must not change a bit; mean + factor * (x - mean) would.
    return _match_memory_format(images, torch.addcmul(mean * (1 - factor), warped, factor, out=warped).clamp_(0, 1))


def augment_masks(masks: Tensor, transforms: Transforms) -> Tensor:
    """Warp masks as `augment` warps their images; edges become soft.

    Args:
        masks: float, shape (N, 1, S, S), in [0, 1].
        transforms: N rows, on the same device.

    Returns:
        The same shape, type and range.
    """
    return _match_memory_format(masks, _warp(masks, transforms).clamp_(0, 1))


def weak_view(images: Tensor, config: ViewsConfig, draw: torch.Generator) -> Tensor:
    """Return weak views of images (N, C, S, S): each is shifted; edges are repeated."""
    shift = _uniform(len(images), 2, draw) * 2 * config.shift
    return _affine_warp(images, torch.eye(2, device=draw.device).repeat(len(images), 1, 1), shift)


def moved_view(images: Tensor, config: ViewsConfig, draw: torch.Generator, share: float = 0.5) -> Tensor:
    """Return views of images (N, C, S, S): each is rotated, zoomed, sheared and shifted, by `share` of the settings at most."""
    turn, high, wide, shear, *shift = (share * _uniform(len(images), 6, draw)).unbind(1)
    matrix = _affine_matrices(
        turn * 2 * torch.pi * config.rotation, 1 + config.zoom * high, 1 + config.zoom * wide, config.shear * shear
    )
    return _affine_warp(images, matrix, torch.stack(shift, 1) * 2 * config.shift)


def strong_view(images: Tensor, config: ViewsConfig, draw: torch.Generator) -> Tensor:
    """Return strong views of images (N, 3, S, S) in [-1, 1].

    Each is rotated, zoomed, sheared, shifted and recoloured; some are inverted; a square is erased.
    """
    count = len(images)
    moved = moved_view(images, config, draw, share=1)
    gain = 1 + config.colour * _uniform(count, 3, draw)
    bias = config.colour * _uniform(count, 3, draw)
    inverted = torch.rand(count, 1, generator=draw, device=draw.device) < config.invert
    sign = 1 - 2 * inverted.float()
    coloured = moved * (gain * sign)[..., None, None].to(moved) + bias[..., None, None].to(moved)
    return _erased(coloured.clamp(-1, 1), config.erase, draw)


def _warp(images: Tensor, transforms: Transforms) -> Tensor:
    """Return images flipped, rotated and zoomed; edges are mirrored."""
    grid = _source_positions(transforms, images.shape[-1]).to(images.dtype)
    warped = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Coordinates are rounded, so even the identity would change an image in the sixth digit.
    still = ~transforms.flip & (transforms.angle == 0) & (transforms.zoom == 1).all(1)
    # Selecting by `still` would synchronize with the device, which a captured step must not do.
    return torch.where(still[:, None, None, None], images, warped, out=warped)


def _match_memory_format(images: Tensor, altered: Tensor) -> Tensor:
    """Return `altered` in the memory format of `images`, because sampling returns contiguous images."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return altered.contiguous(memory_format=torch.channels_last) if last else altered


def _source_positions(transforms: Transforms, size: int) -> Tensor:
    """Return the source position of each pixel, (N, S, S, 2): x and y, from -1 to 1 between the image's outer edges."""
    # Inverse transforms: zoom first, then rotation, then flip.
    cosine, sine = transforms.angle.cos(), transforms.angle.sin()
    height, width = transforms.zoom.unbind(1)
    mirror = 1 - 2 * transforms.flip.float()
    from_x = torch.stack([mirror * cosine / width, sine / width], 1)
    from_y = torch.stack([-mirror * sine / height, cosine / height], 1)
    centres = (2 * torch.arange(size, device=from_x.device) + 1) / size - 1
    # Planar coordinates are four times as fast as interleaved ones.
    return ((from_x[:, :, None] * centres)[:, :, None] + (from_y[:, :, None] * centres)[..., None]).permute(0, 2, 3, 1)


def _uniform(count: int, columns: int, draw: torch.Generator) -> Tensor:
    """Return values (count, columns) uniform on [-1, 1], on the generator's device."""
    return 2 * torch.rand(count, columns, generator=draw, device=draw.device) - 1


def _affine_matrices(angle: Tensor, high: Tensor, wide: Tensor, shear: Tensor) -> Tensor:
    """Return affine matrices (N, 2, 2) from output to input coordinates."""
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos / wide, (-sin + shear) / wide], 1), torch.stack([sin / high, cos / high], 1)]
    return torch.stack(rows, 1)


def _affine_warp(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Return images sampled at `matrix` (N, 2, 2) times each position plus `shift` (N, 2); edges are repeated."""
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
