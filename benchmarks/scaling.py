"""What many images cost on several devices, from measured rates and stated links.

python -m benchmarks.scaling [--pixelda-rate R] [--endovae-rate R] [--link GB/s] [--disk GB/s] [--price P] [--images N]

Rates are images a second of one device as `python -m benchmarks pixelda-step endovae-step` prints them there; left out, those
of results/benchmarks/benchmarks.json. The time of a message between two processes of this machine and the rate at which rows
of a pack are read are measured here.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from pixelscope.data.disk_array import DiskArray
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.launch import launch

STORED = Path("results/benchmarks/benchmarks.json")
DEVICES = (1, 8, 64)


@dataclass(frozen=True)
class System:
    """What a system's step moves."""

    name: str
    item: str
    parameters: int
    batch: int
    """Images a device and step."""
    image_bytes: int
    """Read from disk for each image trained on."""


SYSTEMS = (
    System("PixelDA", "pixelda-step", 2_378_686, 32, 2 * 3072),
    System("EndoVAE", "endovae-step", 11_124_847, 128, 27_648),
)


@dataclass(frozen=True)
class Cost:
    """Time and price on a number of devices, and what one of them waits for."""

    devices: int
    hours: float
    price: float
    shares: dict[str, float]
    """Seconds of a step by what they are spent on."""

    @property
    def bottleneck(self) -> str:
        """Return what takes most of a step."""
        return max(self.shares, key=lambda name: self.shares[name])


def cost(system: System, devices: int, rate: float, link: float, disk: float, images: int, price: float) -> Cost:
    """Work out `images` images on `devices` devices.

    rate: images a second of one; link: GB/s of each device's connection; disk: GB/s that all devices of a node of eight share.
    A ring moves 2 (n - 1) / n of the gradients (float32) over each connection. Reading goes on beside computing.
    """
    computing = system.batch / rate
    message = 2 * (devices - 1) / devices * 4 * system.parameters / (link * 1e9)
    reading = system.batch * system.image_bytes * min(devices, 8) / (disk * 1e9)
    step = max(computing + message, reading)
    hours = images / (system.batch * devices) * step / 3600
    return Cost(devices, hours, hours * devices * price, {"computing": computing, "gradients": message, "reading": reading})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what can be measured here, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pixelda-rate", type=float)
    parser.add_argument("--endovae-rate", type=float)
    parser.add_argument("--link", type=float, help="GB/s; left out, what is measured between two processes here")
    parser.add_argument("--disk", type=float, help="GB/s; left out, what is measured here")
    parser.add_argument("--price", type=float, default=1.0, help="of a device and hour")
    parser.add_argument("--images", type=int, default=10_000_000)
    chosen = parser.parse_args(arguments)
    disk = chosen.disk or reading_rate()
    for system, rate in zip(SYSTEMS, (chosen.pixelda_rate, chosen.endovae_rate), strict=True):
        link = chosen.link or message_rate(system.parameters)
        known = rate or stored_rate(system.item)
        print(f"{system.name}: {known:,.0f} images/s a device, link {link:.2f} GB/s, disk {disk:.2f} GB/s")
        for devices in DEVICES:
            one = cost(system, devices, known, link, disk, chosen.images, chosen.price)
            spent = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in one.shares.items())
            print(f"  {devices:>2} devices {one.hours:8.2f} h  price {one.price:8.1f}  {spent}: {one.bottleneck}")
    return 0


def stored_rate(item: str) -> float:
    """Return images a second of ours in the stored benchmarks."""
    return json.loads(STORED.read_text(encoding="utf-8"))["items"][item]["ours"]["per_second"]


def reading_rate(count: int = 50_000, batch: int = 32) -> float:
    """Return GB/s of random rows of 3 KB out of the disk's cache, a batch at a time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8))
        rows, order = DiskArray(path), np.split(np.random.default_rng(1).permutation(count), range(batch, count, batch))
        began = time.perf_counter()
        for positions in order:
            rows[positions]
        return path.stat().st_size / (time.perf_counter() - began) / 1e9


def message_rate(parameters: int) -> float:
    """Return GB/s at which two processes of this machine average so many gradients over gloo, by the ring's count."""
    config = RuntimeConfig(devices=2, accelerator="cpu", threads=1)
    return 4 * parameters / launch(config, _message, parameters) / 1e9


def _message(fabric: Fabric, *arguments: Any) -> float:
    values, seconds = torch.ones(arguments[0]), []
    for _ in range(8):
        fabric.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
