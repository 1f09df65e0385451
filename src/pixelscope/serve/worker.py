"""A single worker thread with a bounded queue; where it is full, or does not move, requests get 503 with Retry-After."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

QUEUE_SIZE = 48
"""Maximum number of calls that wait or run."""
PATIENT = 4
"""Calls that wait for their turn however long it takes."""
LONGEST_WAIT = 2.0
"""Seconds that a call behind them waits for its turn; an answer that it can come again is worth more than a late one."""


class QueueFull(Exception):
    """Too many calls wait, or those before this one take too long."""


class Worker:
    """Runs the calls of many requests one after the other: a network on a CPU uses all cores by itself."""

    def __init__(self, queue_size: int = QUEUE_SIZE, longest_wait: float = LONGEST_WAIT) -> None:
        self.queue_size, self.longest_wait, self._taken = queue_size, longest_wait, 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pixelscope-serve")

    async def submit(self, call: Callable[[], R]) -> R:
        """Run `call` in its turn and return its result; raises QueueFull if too many calls wait, or it would wait too long."""
        if self._taken >= self.queue_size:
            raise QueueFull
        job, loop = self._pool.submit(call), asyncio.get_running_loop()
        # Cancels it only while it waits.
        deadline = loop.call_later(self.longest_wait, job.cancel) if self._taken >= PATIENT else None
        self._taken += 1
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # not the request, but the job was cancelled
                raise QueueFull from None
            raise
        finally:
            self._taken -= 1
            if deadline is not None:
                deadline.cancel()

    def close(self) -> None:
        """Finish the running call, drop the waiting ones and stop."""
        self._pool.shutdown(cancel_futures=True)
