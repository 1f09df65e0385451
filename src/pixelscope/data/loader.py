"""Make batches of float tensors from uint8 arrays in memory or on disk. Torch starts here."""

import torch
from torch import Tensor

from pixelscope.data.disk_array import DiskArray, Pixels
from pixelscope.data.imageset import ImageSet
from pixelscope.rng import ShuffledOrder, StepContext

RESIDENT_BYTES = 2**29
"""Maximum size of images on disk that a CPU process reads into memory; larger sets are read per batch."""
GPU_SHARE = 0.25
"""Maximum fraction of a GPU's memory for images."""


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images (N, 1 or 3, H, W) to float32 (N, 3, H, W) in [-1, 1], channels last; grey is repeated."""
    scaled = images.float().mul_(2 / 255).sub_(1)
    return scaled.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> Tensor:
    """Convert float images in [-1, 1] to uint8 of the same shape."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class DeviceImages:
    """Images from which batches are gathered: on the training device, or on disk if they do not fit.

    Batches are the same in both cases.
    """

    def __init__(self, images: Pixels, device: torch.device, limit: int | None = None) -> None:
        """Move the images to the device if they take at most `limit` bytes, by default what the device can spare."""
        self.device = device
        small = images.nbytes <= (resident_bytes(device) if limit is None else limit)
        self.images = images if isinstance(images, DiskArray) and not small else torch.from_numpy(images[:])
        if isinstance(self.images, Tensor) and small:
            self.images = self.images.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Return the images at int64 `positions`, on the training device."""
        if isinstance(self.images, DiskArray):
            return torch.from_numpy(self.images[positions.cpu().numpy()]).to(self.device)
        return self.images[positions.to(self.images.device)].to(self.device)

    def prefetch(self, positions: Tensor) -> None:
        """Read the images at `positions` from disk in the background, if they are there."""
        if isinstance(self.images, DiskArray):
            self.images.prefetch(positions.numpy())


class ShuffledStream:
    """An endless shuffled stream of a set's images, the same for any number of ranks."""

    def __init__(self, images: ImageSet, seed: int, name: str, device: torch.device, limit: int | None = None) -> None:
        """Move images as `DeviceImages` does, and labels, to the device."""
        self.images = DeviceImages(images.images, device, limit)
        self.labels = None if images.labels is None else torch.from_numpy(images.labels).to(device)
        self._order = ShuffledOrder(len(images), seed, name)

    def take(self, context: StepContext) -> tuple[Tensor, Tensor | None]:
        """Return this rank's images (n, 3, H, W) in [-1, 1] and labels (n,) for the step of `context`."""
        positions = self.positions(context)
        images = to_float(self.images[positions])
        if isinstance(self.images.images, DiskArray) and not self._turns_over(context.after()):
            self.images.prefetch(self.positions(context.after()))
        return images, None if self.labels is None else self.labels[positions.to(self.labels.device)]

    def positions(self, context: StepContext) -> Tensor:
        """Return the positions of this rank's images for the step of `context`, int64 on the CPU."""
        return context.shard(self._order.take(context.images, context.batch_size))

    def _turns_over(self, context: StepContext) -> bool:
        # To draw the order of the next epoch before its time would mean to draw both twice.
        return context.images % len(self.images) + context.batch_size > len(self.images)


def resident_bytes(device: torch.device) -> int:
    """Return the maximum size of a set that is kept on `device`."""
    if device.type != "cuda":
        return RESIDENT_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * GPU_SHARE)
