"""Copies of a network on several devices, each used by one thread at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch
from torch import nn

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.runtime import resolve_runtime

N = TypeVar("N", bound=nn.Module)


class ReplicaPool(Generic[N]):
    """A copy of a network for each device, in evaluation mode."""

    def __init__(self, network: N, devices: int = 1) -> None:
        """Copy `network` to `devices` GPUs, or without a GPU to as many CPU threads.

        Raises:
            InputError: there are fewer GPUs, or `devices` is below 1.
        """
        runtime = resolve_runtime(RuntimeConfig.parse({"devices": devices}, "--devices"))
        torch.set_num_threads(runtime.threads)
        on_gpus = runtime.accelerator == "cuda"
        self._free: SimpleQueue[tuple[N, torch.device]] = SimpleQueue()
        for index in range(devices):
            device = torch.device("cuda", index) if on_gpus else torch.device("cpu")
            copy = network if index == 0 else deepcopy(network)
            self._free.put((copy.to(device).eval().requires_grad_(False), device))

    @contextmanager
    def acquire(self) -> Iterator[tuple[N, torch.device]]:
        """Yield a free copy and its device; waits until one is free."""
        one = self._free.get()
        try:
            yield one
        finally:
            self._free.put(one)
