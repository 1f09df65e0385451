"""Order and random draws are functions of (seed, what, when, rank)."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelscope.rng import ShuffledOrder, StepContext, derive, generator


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 25), st.integers(0, 9))
def test_every_epoch_is_a_permutation_however_it_is_cut_into_batches(count: int, epoch: int, size: int, seed: int) -> None:
    order = ShuffledOrder(count, seed, "source")
    start = epoch * count
    taken = torch.cat([order.take(start + i, min(size, count - i)) for i in range(0, count, size)])
    assert taken.sort().values.tolist() == list(range(count))
    assert torch.equal(taken, ShuffledOrder(count, seed, "source").take(start, count))


def test_a_batch_runs_on_into_the_next_epoch() -> None:
    order = ShuffledOrder(5, 0, "source")
    assert torch.equal(order.take(3, 4), torch.cat([order.take(3, 2), order.take(5, 2)]))
    assert len(order.take(0, 17)) == 17


def test_epochs_streams_and_seeds_are_shuffled_apart() -> None:
    base = ShuffledOrder(100, 0, "source").take(0, 100)
    others = [
        ShuffledOrder(100, 0, "source").take(100, 100),
        ShuffledOrder(100, 0, "target").take(0, 100),
        ShuffledOrder(100, 1, "source").take(0, 100),
    ]
    assert all(not torch.equal(base, other) for other in others)


def test_draws_differ_by_each_part_of_their_name_and_repeat_with_the_same() -> None:
    names = [(0, "z", 1, 0), (1, "z", 1, 0), (0, "noise", 1, 0), (0, "z", 2, 0), (0, "z", 1, 1)]
    assert len({derive(*name) for name in names}) == len(names)
    first, again = (torch.rand(4, generator=generator("cpu", 0, "z", 1, 0)) for _ in range(2))
    assert torch.equal(first, again)


def test_ranks_divide_what_is_drawn_together() -> None:
    whole = torch.arange(8)
    parts = [StepContext(0, 0, 8, 0, rank=rank, ranks=4).shard(whole) for rank in range(4)]
    assert torch.equal(torch.cat(parts), whole)
    draws = [StepContext(0, 3, 8, 0, rank=rank, ranks=4).shared_generator("z").initial_seed() for rank in range(4)]
    assert len(set(draws)) == 1
    own = [StepContext(0, 3, 8, 0, rank=rank, ranks=4).generator("noise").initial_seed() for rank in range(4)]
    assert len(set(own)) == 4
