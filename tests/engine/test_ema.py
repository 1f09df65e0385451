"""The moving average, its decay counted in images."""

import pytest
import torch
from torch import nn

from pixelscope.engine.ema import EMA


def _network(value: float) -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for tensor in network.state_dict().values():
        tensor.fill_(value)
    return network


def test_after_one_half_life_the_old_weights_count_half() -> None:
    average = EMA(_network(0.0), half_life=1000)
    for step in range(100):
        average.update(_network(1.0), average.kept(10, 1_000_000 + 10 * step))
    assert average.network[0].weight.flatten().tolist() == pytest.approx([0.5] * 4, abs=1e-5)


def test_batch_size_does_not_change_the_average() -> None:
    small, large = (EMA(_network(0.0), half_life=500) for _ in range(2))
    for _ in range(8):
        small.update(_network(1.0), small.kept(16, 1_000_000))
    large.update(_network(1.0), large.kept(128, 1_000_000))
    torch.testing.assert_close(small.network[0].weight, large.network[0].weight)


def test_early_on_it_leaves_the_initial_weights_behind() -> None:
    average = EMA(_network(0.0), half_life=1_000_000)
    for step in range(50):
        average.update(_network(1.0), average.kept(32, 32 * step))
    assert float(average.network[0].weight.min()) > 0.99


def test_a_weight_that_is_a_tensor_gives_the_same_average() -> None:
    averages = [EMA(_network(0.0), half_life=500) for _ in range(2)]
    for step in range(30):
        kept = averages[0].kept(16, 16 * step)
        averages[0].update(_network(step + 1.0), kept)
        averages[1].update(_network(step + 1.0), torch.tensor(kept))
    torch.testing.assert_close(averages[1].network[0].weight, averages[0].network[0].weight)


def test_the_copy_is_apart() -> None:
    network = _network(2.0)
    average = EMA(network, half_life=100)
    average.update(network, average.kept(1, 0))
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())
    network[0].weight.data.fill_(9.0)
    assert float(average.network[0].weight.max()) < 9.0


def test_its_statistics_are_those_of_what_is_passed_through_it() -> None:
    network = _network(2.0)
    average = EMA(network, half_life=100)
    network[1].running_mean.fill_(7.0)
    average.update(network, average.kept(1, 0))
    assert average.network[1].running_mean.tolist() == [2.0, 2.0]
    images = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        with average.updating_batch_norm() as averaged:
            passed = averaged(images)
    torch.testing.assert_close(average.network[1].running_mean, average.network[0](images).mean(0))
    torch.testing.assert_close(passed, average.network(images), atol=0.05, rtol=0.02)
    assert not passed.requires_grad and not average.network[1].training


def test_an_error_while_statistics_are_taken_leaves_it_ready_for_use() -> None:
    average = EMA(_network(1.0), half_life=100)
    with pytest.raises(ValueError, match="broken"), average.updating_batch_norm():
        raise ValueError("broken")
    assert not any(module.training for module in average.network.modules())
