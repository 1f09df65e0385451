"""Permutations without torch are those of torch."""

import numpy as np
import pytest
import torch

from pixelscope.data import split as module
from pixelscope.data.split import permutation


@pytest.mark.parametrize("seed", [0, 1, 2026, 2**32 - 1, 2**32 + 5, 2**62 + 12345, -3])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_equals_torch(count, seed):
    expected = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_array_equal(permutation(count, seed), expected)


@pytest.mark.parametrize("seed", [0, 2**40 + 1])
def test_equals_torch_at_the_size_of_mnist(seed, monkeypatch):
    # A block that divides nothing: the numbers don't depend on how many are drawn at a time.
    monkeypatch.setattr(module, "_BLOCK", 9973)
    expected = torch.randperm(70_000, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_array_equal(permutation(70_000, seed), expected)


def test_is_a_writable_array_of_int64():
    order = permutation(5, 3)
    assert order.dtype == np.int64 and order.flags.writeable
