"""Batches of float images from uint8 images that stay on the device."""

import torch
from torch import Tensor

from pixelscope.data.imageset import ImageSet
from pixelscope.engine.randomness import Order
from pixelscope.engine.task import Moment


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 1 or 3, H, W) into float32 (N, 3, H, W) in [-1, 1], channels last; grey is repeated."""
    scaled = images.float().mul_(2 / 255).sub_(1)
    return scaled.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> Tensor:
    """Turn float images in [-1, 1] into uint8 of the same shape."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class Stream:
    """An endless shuffled stream of one set's images, the same for any number of ranks."""

    def __init__(self, images: ImageSet, seed: int, name: str, device: torch.device) -> None:
        self.images = images.images.to(device)
        self.labels = None if images.labels is None else images.labels.to(device)
        self._order = Order(len(images), seed, name)

    def take(self, moment: Moment) -> tuple[Tensor, Tensor | None]:
        """Return this rank's images (n, 3, H, W) in [-1, 1] and labels (n,) of the step at `moment`."""
        positions = self.positions(moment)
        labels = None if self.labels is None else self.labels[positions]
        return to_float(self.images[positions]), labels

    def positions(self, moment: Moment) -> Tensor:
        """Return where this rank's images of the step at `moment` lie in the set."""
        return moment.part(self._order.take(moment.images, moment.batch_size)).to(self.images.device)
