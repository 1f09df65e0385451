"""Random permutations without torch, equal to those that torch draws."""

from array import array

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20
"""Random numbers drawn at a time."""


def permutation(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of `count` items, int64 (count,), a function of the arguments.

    Equal to `torch.randperm(count, generator=torch.Generator().manual_seed(seed))` for fewer than 2^32 / 20 items: splits and
    samples drawn with torch stay the same.
    """
    # NumPy's legacy generator is seeded as torch's is: MT19937 from the low 32 bits, by the reference's `init_genrand`.
    draw = np.random.RandomState(seed & 0xFFFFFFFF)
    order = array("q", range(count))
    for start in range(0, count - 1, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, count - 1))
        raw = draw.randint(0, 2**32, len(places), np.uint32)
        for place, other in enumerate((places + raw % (count - places)).tolist(), start):
            order[place], order[other] = order[other], order[place]
    return np.frombuffer(order, np.int64) if count else np.empty(0, np.int64)
