"""Batches of frames with their altered copies, made on the training device from uint8 frames that stay there."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.disk_array import Pixels
from pixelscope.data.loader import Held
from pixelscope.endovae.config import AugmentationConfig
from pixelscope.engine.augment import Transforms, augment, augment_masks, draw_transforms
from pixelscope.rng import Moment, Order, generator


@dataclass(frozen=True)
class FrameBatch:
    """One step's frames."""

    images: Tensor
    """(n, 3, S, S) in [0, 1]."""
    counted: Tensor | None = None
    """(n, 1, S, S), 0 where a pixel is left out of loss and score; None where all count."""


class AugmentedBatches:
    """Shuffled batches of a set of frames and the altered copies of each (the report's step 3)."""

    def __init__(
        self, frames: Pixels, insets: Pixels | None, config: AugmentationConfig, seed: int, device: torch.device
    ) -> None:
        """Hold the frames as `Held` does.

        frames: uint8 (N, S, S, 3); insets: (N, S, S), over 0 where a pixel is left out of loss and score.
        """
        self.config, self.seed, self.device = config, seed, device
        self.frames = Held(frames, device)
        self.insets = None if insets is None else Held(insets, device)
        self.epoch = len(frames) * (1 + config.copies)
        self._order = Order(self.epoch, seed, "frames")
        self._fixed = draw_transforms(self.epoch, config, generator("cpu", seed, "augmentation"))

    def __call__(self, moment: Moment) -> FrameBatch:
        """Return this rank's part of the batch at `moment`."""
        whole = self._order.take(moment.images, moment.batch_size)
        mine = moment.part(torch.arange(len(whole)))
        return self._batch(whole[mine], self._transforms(whole, moment)[mine])

    def version(self, copy: int, count: int) -> Tensor:
        """Return the first `count` frames, or a `copy` of them, as training sees them: (n, 3, S, S) in [0, 1]."""
        items = torch.arange(min(count, len(self.frames))) + copy * len(self.frames)
        return self._batch(items, self._fixed[items]).images

    def _batch(self, items: Tensor, transforms: Transforms) -> FrameBatch:
        """Return the frames of `items`: first come all originals, then all first copies, and so on."""
        transforms = transforms.to(self.device)
        frames, altered = items % len(self.frames), items >= len(self.frames)
        images = to_unit(self.frames[frames].permute(0, 3, 1, 2))
        images[altered] = augment(images[altered], transforms[altered])
        return FrameBatch(images, self._counted(frames, altered, transforms))

    def _transforms(self, items: Tensor, moment: Moment) -> Transforms:
        if not self.config.fresh:
            return self._fixed[items]
        return draw_transforms(len(items), self.config, moment.draw_together("augmentation"))

    def _counted(self, frames: Tensor, altered: Tensor, transforms: Transforms) -> Tensor | None:
        if self.insets is None:
            return None
        inside = (self.insets[frames].unsqueeze(1) > 0).float()
        inside[altered] = augment_masks(inside[altered], transforms[altered])
        return 1 - (inside > 0).float()


def as_channels_first(frames: np.ndarray | Tensor) -> Tensor:
    """Return uint8 frames (N, S, S, 3), in memory or on disk, as a tensor (N, 3, S, S), channels last in memory."""
    given = frames if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames))
    return given.permute(0, 3, 1, 2)


def to_unit(images: Tensor) -> Tensor:
    """Turn uint8 images into float32 of the same shape and layout in [0, 1]."""
    return images.float().mul_(1 / 255)


def from_unit(images: Tensor) -> Tensor:
    """Turn float images in [0, 1] into uint8 of the same shape."""
    return images.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)
