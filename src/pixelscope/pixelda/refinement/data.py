"""Batches of a refinement: source, generated and target images, the target without labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import DeviceImages, ShuffledStream, StepBatches, to_float, under, with_prefix
from pixelscope.engine.runtime import to_device
from pixelscope.errors import InputError
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.forward import draw_noise, redraw
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.refinement.config import GeneratedConfig
from pixelscope.rng import ShuffledOrder, StepContext, generator

if TYPE_CHECKING:
    from lightning_fabric import Fabric

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
        fabric: "Fabric",
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
