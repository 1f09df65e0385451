"""Work on several threads whose results come in the order of what went in."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(function: Callable[[In], Out], items: Iterable[In], workers: int, ahead: int) -> Iterator[Out]:
    """Give `function(item)` for each item in order, on `workers` threads, of at most `ahead` items at a time.

    An error of `function` is raised where its result would come. Items are taken from the caller's thread.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Give the items in lists of `size`, the last one of what is left."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
