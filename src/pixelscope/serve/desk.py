"""One worker for everything that computes, with a bounded queue before it; what it cannot hold is told to come again."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

WAITING = 48
"""Requests that wait or compute at most."""


class Busy(Exception):
    """The queue is full."""


class Desk:
    """Takes work from many requests and does it one after the other: networks on a CPU use all of its cores by themselves."""

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting, self._taken = waiting, 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pixelscope-serve")

    async def do(self, work: Callable[[], R]) -> R:
        """Return what `work` returns, when its turn has come; raises Busy where too many wait already."""
        if self._taken >= self.waiting:
            raise Busy
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Finish what was begun and stop."""
        self._pool.shutdown(cancel_futures=True)
