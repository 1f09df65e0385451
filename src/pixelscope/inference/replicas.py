"""A network on several devices or threads, each used by one caller at a time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from functools import cache
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch
from threadpoolctl import ThreadpoolController
from torch import nn

from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.runtime import resolve_runtime

N = TypeVar("N", bound=nn.Module)

AT_ONCE = 16
"""Images per pass on a CPU, so that activations stay in the cache."""
MOST_CALLERS = 8
"""Maximum number of threads that share a network by default: each needs memory for its activations."""


class ReplicaPool(Generic[N]):
    """A network on each device, in evaluation mode.

    Attributes:
        devices: number of callers that may use it at a time.
        at_once: images per pass.
    """

    def __init__(self, network: N, devices: int | None = 1) -> None:
        """Copy `network` to GPUs; without a GPU, threads share it and the cores.

        Args:
            network: is moved to the first GPU, if there is one.
            devices: number of GPUs, or without a GPU of threads. None: one GPU, or a thread for each of up to `MOST_CALLERS`
                cores, because small convolutions divided among cores wait for one another.

        Raises:
            InputError: there are fewer GPUs, or `devices` is below 1.
        """
        runtime = resolve_runtime(RuntimeConfig.parse({"devices": 1 if devices is None else devices}, "--devices"))
        on_gpus, shared = runtime.accelerator == "cuda", devices is None and runtime.accelerator != "cuda"
        self.devices = min(runtime.threads, MOST_CALLERS) if shared else runtime.devices
        self.at_once = 64 if on_gpus else AT_ONCE
        self._threads = runtime.threads // self.devices if shared else runtime.threads
        self._free: SimpleQueue[tuple[N, torch.device]] = SimpleQueue()
        for index in range(self.devices):
            device = torch.device("cuda", index) if on_gpus else torch.device("cpu")
            copy = deepcopy(network) if on_gpus and index > 0 else network
            self._free.put((copy.to(device).eval().requires_grad_(False), device))

    @contextmanager
    def acquire(self) -> Iterator[tuple[N, torch.device]]:
        """Yield the network on a free device, and the device; waits until one is free."""
        one = self._free.get()
        try:
            with self.share_of_cores():
                yield one
        finally:
            self._free.put(one)

    def share_of_cores(self) -> AbstractContextManager[None]:
        """Limit what this thread computes, besides the passes of the network, to the cores of one caller."""
        return limited_threads(self._threads)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch use `count` cores for what this thread computes; other threads keep theirs."""
    torch.get_num_threads()  # a new thread takes torch's number of threads now, not within the limit
    with _openmp().limit(limits=count):
        yield


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")
