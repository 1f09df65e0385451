"""Make batches of float tensors from uint8 arrays in memory or on disk. Torch starts here."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pixelscope.data.disk_array import Bytes, DiskArray, Pixels
from pixelscope.data.imageset import ImageSet
from pixelscope.rng import ShuffledOrder, StepContext

Batch_co = TypeVar("Batch_co", covariant=True)

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


class StepBatches(ABC, Generic[Batch_co]):
    """Returns this rank's shard of the batch at a given step, in two halves; deterministic.

    `read` runs on the CPU and returns the batch's tensors, `make` runs on the device and never waits for it, so that a
    step can be captured with its data.
    """

    device: torch.device

    def __call__(self, context: StepContext) -> Batch_co:
        """Return this rank's shard of the batch at `context`."""
        return self.make({name: tensor.to(self.device) for name, tensor in self.read(context).items()})

    @abstractmethod
    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return the tensors of the batch at `context`, on the CPU; names, shapes and types are the same at every step."""

    @abstractmethod
    def make(self, read: Mapping[str, Tensor]) -> Batch_co:
        """Return the batch made of what `read` returned, moved to the device."""

    @abstractmethod
    def sets(self) -> Mapping[str, "DeviceImages"]:
        """Return the sets that batches are taken from, by name."""


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

    @property
    def nbytes(self) -> int:
        """Return the size of all images."""
        return self.images.nbytes

    @property
    def resident(self) -> bool:
        """Return whether the images are on the training device."""
        return isinstance(self.images, Tensor) and self.images.device.type == self.device.type

    def read(self, positions: Tensor) -> dict[str, Tensor]:
        """Return what `take` needs for the images at int64 `positions`, on the CPU: these, and images that are not resident."""
        if self.resident:
            return {"positions": positions}
        if isinstance(self.images, DiskArray):
            return {"positions": positions, "pixels": torch.from_numpy(self.images[positions.numpy()])}
        return {"positions": positions, "pixels": self.images[positions]}

    def take(self, read: Mapping[str, Tensor]) -> Tensor:
        """Return the images of what `read` returned, moved to the training device."""
        if "pixels" in read:
            return read["pixels"]
        assert isinstance(self.images, Tensor)
        return self.images[read["positions"]]

    def overwrite(self, images: Bytes) -> None:
        """Replace all images in place, uint8 of the same shape, so that a captured step reads the new ones."""
        assert isinstance(self.images, Tensor)
        self.images.copy_(torch.from_numpy(images))

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

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what `take` needs for the step at `context`, on the CPU."""
        read = self.images.read(self.positions(context))
        if isinstance(self.images.images, DiskArray) and not self._turns_over(context.after()):
            self.images.prefetch(self.positions(context.after()))
        return read

    def take(self, read: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return images (n, 3, H, W) in [-1, 1] and labels (n,) of what `read` returned, moved to the device."""
        labels = None if self.labels is None else self.labels[read["positions"]]
        return to_float(self.images.take(read)), labels

    def positions(self, context: StepContext) -> Tensor:
        """Return the positions of this rank's images for the step of `context`, int64 on the CPU."""
        return context.shard(self._order.take(context.images, context.batch_size))

    def _turns_over(self, context: StepContext) -> bool:
        # Drawing the next epoch's order early would draw both orders twice.
        return context.images % len(self.images) + context.batch_size > len(self.images)


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names `prefix`/name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`/, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def resident_bytes(device: torch.device) -> int:
    """Return the maximum size of a set that is kept on `device`."""
    if device.type != "cuda":
        return RESIDENT_BYTES
    return int(torch.cuda.get_device_properties(device).total_memory * GPU_SHARE)
