"""A single worker thread with a bounded queue; when the queue is full, requests get 503 with Retry-After."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

QUEUE_SIZE = 48
"""Maximum number of calls that wait or run."""


class QueueFull(Exception):
    """The queue has `queue_size` calls already."""


class Worker:
    """Runs the calls of many requests one after the other: a network on a CPU uses all cores by itself."""

    def __init__(self, queue_size: int = QUEUE_SIZE) -> None:
        self.queue_size, self._taken = queue_size, 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pixelscope-serve")

    async def submit(self, call: Callable[[], R]) -> R:
        """Run `call` in its turn and return its result; raises QueueFull if too many calls wait."""
        if self._taken >= self.queue_size:
            raise QueueFull
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Finish the running call, drop the waiting ones and stop."""
        self._pool.shutdown(cancel_futures=True)
