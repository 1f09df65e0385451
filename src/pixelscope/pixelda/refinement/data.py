"""Batches of a refinement and their augmentation: source, generated and target images, the target without labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import DeviceImages, ShuffledStream, StepBatches, to_float, under, with_prefix
from pixelscope.engine.runtime import to_device
from pixelscope.errors import InputError
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.forward import draw_noise, redraw
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.refinement.config import GeneratedConfig, ViewsConfig
from pixelscope.rng import ShuffledOrder, StepContext, generator

GENERATE_BATCH = 250
"""Images that G generates in one pass."""


@dataclass(frozen=True)
class RefineBatch:
    """One step's images, each (n, 3, S, S) in [-1, 1]; labels int64 (n,)."""

    source: Tensor
    labels: Tensor
    generated: Tensor | None
    """Images generated from other source images, with `generated_labels`; None if stage 1 is off."""
    generated_labels: Tensor | None
    target: Tensor


class GeneratedPool:
    """Images that G generates from source images, refreshed regularly; a function of seed and step alone."""

    def __init__(
        self,
        network: Generator,
        config: PixelDAConfig,
        source: ImageSet,
        seed: int,
        generated: GeneratedConfig,
        fabric: Fabric,
    ) -> None:
        self.network, self.config, self.fabric = to_device(network, fabric.device, config.runtime.memory_format), config, fabric
        self.source, self.seed, self.refresh = source, seed, generated.refresh_every
        self.pool = min(generated.pool_size, len(source))
        self._order = ShuffledOrder(len(source), seed, "generated pool")
        self._within = ShuffledOrder(self.pool, seed, "within the pool")
        self._drawn = -1
        size = source.images.shape[-1]
        self.images = DeviceImages(np.empty((self.pool, 3, size, size), np.uint8), fabric.device)
        self._labels = torch.empty(self.pool, dtype=torch.int64, device=fabric.device)

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what `take` needs at `context`, on the CPU; the pool is generated first where it is due."""
        number = context.images // self.refresh
        if number != self._drawn:
            self._draw(number)
        return self.images.read(context.shard(self._within.take(context.images, context.batch_size)))

    def take(self, read: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images (n, 3, S, S) in [-1, 1] and labels (n,) of what `read` returned, moved to the device."""
        return to_float(self.images.take(read)), self._labels[read["positions"]]

    def _draw(self, number: int) -> None:
        positions = self._order.take(number * self.pool, self.pool).numpy()
        z = draw_noise(self.config, self.pool, generator("cpu", self.seed, "generated pool", number)).to(self.fabric.device)
        with self.fabric.autocast():
            parts = [
                redraw(
                    self.network,
                    self.source.images[positions[start : start + GENERATE_BATCH]],
                    z[start : start + GENERATE_BATCH],
                )
                for start in range(0, self.pool, GENERATE_BATCH)
            ]
        assert self.source.labels is not None
        self.images.overwrite(np.concatenate(parts))
        # In place, because a captured step reads from this address.
        self._labels.copy_(torch.from_numpy(self.source.labels[positions]))
        self._drawn = number


class RefineBatches(StepBatches[RefineBatch]):
    """Shuffled batches of everything that a refinement trains on."""

    def __init__(self, source: ImageSet, target: ImageSet, pool: GeneratedPool | None, seed: int, device: torch.device) -> None:
        """Create the streams.

        Args:
            source: labelled source images.
            target: target images without labels.
            pool: generated images; None if stage 1 is off.
            seed: seed of the order of images.
            device: where batches are put.

        Raises:
            InputError: the target has labels, which a refinement must never hold.
        """
        if target.labels is not None:
            raise InputError(f"{target.provenance.source} has labels, which a refinement must not use; remove them.")
        self.device = device
        self.source = ShuffledStream(source, seed, "source", device)
        self.target = ShuffledStream(target, seed, "target", device)
        self.pool = pool

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what the batch at `context` is made of."""
        pool = {} if self.pool is None else self.pool.read(context)
        read = {"source": self.source.read(context), "target": self.target.read(context), "pool": pool}
        return {name: tensor for prefix, tensors in read.items() for name, tensor in with_prefix(prefix, tensors).items()}

    def make(self, read: Mapping[str, Tensor]) -> RefineBatch:
        """Return the batch."""
        source, labels = self.source.take(under("source", read))
        assert labels is not None
        generated, generated_labels = (None, None) if self.pool is None else self.pool.take(under("pool", read))
        return RefineBatch(source, labels, generated, generated_labels, self.target.take(under("target", read))[0])

    def sets(self) -> dict[str, DeviceImages]:
        """Return both domains, and the pool where there is one."""
        pool = {} if self.pool is None else {"generated pool": self.pool.images}
        return {"source": self.source.images, "target": self.target.images, **pool}


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
