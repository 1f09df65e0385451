"""Batched augmentation with explicit random draws: flip, rotation, zoom, contrast."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from pixelscope.engine.config import AugmentConfig


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


def _warp(images: Tensor, transforms: Transforms) -> Tensor:
    grid = _grid(transforms, images.shape[-1]).to(images.dtype)
    warped = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Coordinates are rounded, so even the identity would change an image in the sixth digit.
    still = ~transforms.flip & (transforms.angle == 0) & (transforms.zoom == 1).all(1)
    # Selecting by `still` would synchronize with the device, which a captured step must not do.
    return torch.where(still[:, None, None, None], images, warped, out=warped)


def _match_memory_format(images: Tensor, altered: Tensor) -> Tensor:
    """Return `altered` in the memory format of `images`, because sampling returns contiguous images."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return altered.contiguous(memory_format=torch.channels_last) if last else altered


def _grid(transforms: Transforms, size: int) -> Tensor:
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
