"""Threads that share a network on a CPU."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from pixelscope import InputError
from pixelscope.inference.replicas import ReplicaPool

CORES = 4


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    """Let torch use four cores, whatever the machine has."""
    if torch.cuda.is_available():
        pytest.skip("networks are copied to the GPUs of this machine")
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def threads_within(pool: ReplicaPool) -> int:
    with pool.acquire():
        return torch.get_num_threads()


@pytest.mark.parametrize(("devices", "callers", "each"), [(None, CORES, 1), (1, 1, CORES), (2, 2, 2), (3, 3, 1), (8, 8, 1)])
def test_callers_divide_the_cores(devices: int | None, callers: int, each: int) -> None:
    pool = ReplicaPool(nn.Linear(2, 2), devices)
    assert pool.devices == callers
    with ThreadPoolExecutor(1) as other:
        assert threads_within(pool) == other.submit(threads_within, pool).result() == each
    assert torch.get_num_threads() == CORES


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="--devices"):
        ReplicaPool(nn.Linear(2, 2), 0)
