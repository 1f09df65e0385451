"""What holds for every task in training."""

from typing import Any

import pytest
import torch

from contracts.cases import TASKS, TaskCase
from pixelscope.engine import checkpoint
from pixelscope.rng import StepContext

every_task = pytest.mark.parametrize("case", TASKS, ids=lambda case: case.name)


def _train(task: Any, batches: Any, steps: range) -> dict[str, torch.Tensor]:
    numbers = {}
    for step in steps:
        context = StepContext(step * 8, step, 8, seed=0, log_now=True)
        numbers = dict(task.step(batches(context), context))
    return numbers


@every_task
def test_each_optimizer_moves_its_networks_and_no_other(case: TaskCase) -> None:
    task, batches = case.build()
    assert set(case.trains) == set(task.optimizers)
    moved: dict[str, set[str]] = {}
    for name, optimizer in task.optimizers.items():
        _watch(task, name, optimizer, moved)
    _train(task, batches, range(1))
    assert moved == case.trains


def _watch(task: Any, name: str, optimizer: torch.optim.Optimizer, moved: dict[str, set[str]]) -> None:
    before: dict[str, list[torch.Tensor]] = {}

    def look(*_: Any) -> None:
        before.update({key: [p.detach().clone() for p in network.parameters()] for key, network in task.networks.items()})

    def compare(*_: Any) -> None:
        same = {
            key: [torch.equal(a, b) for a, b in zip(before[key], network.parameters(), strict=True)]
            for key, network in task.networks.items()
        }
        moved[name] = {key for key, parts in same.items() if not any(parts)}
        untouched = {key for key, parts in same.items() if all(parts)}
        assert moved[name] | untouched == set(task.networks), "a network moved in part only"

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(compare)


@every_task
def test_gradients_are_cleared_and_networks_trainable_after_a_step(case: TaskCase) -> None:
    task, batches = case.build()
    _train(task, batches, range(1))
    parameters = [p for network in task.networks.values() for p in network.parameters()]
    assert all(p.requires_grad and p.grad is None for p in parameters)
    assert all(network.training for network in task.networks.values())


@every_task
def test_numbers_are_finite_and_name_every_network_that_is_trained(case: TaskCase) -> None:
    task, batches = case.build()
    numbers = _train(task, batches, range(3))
    assert all(bool(torch.isfinite(value).all()) for value in numbers.values())
    assert {f"gradient/{name}" for trained in case.trains.values() for name in trained} <= set(numbers)
    assert not any(value.requires_grad for value in numbers.values())


@every_task
def test_a_step_is_a_function_of_its_moment(case: TaskCase) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(len(states))  # the global generator must not matter
        task, batches = case.build()
        _train(task, batches, range(2))
        states.append(checkpoint.state(task))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@every_task
def test_a_restored_task_goes_on_to_the_same_bits(case: TaskCase, tmp_path) -> None:
    task, batches = case.build()
    _train(task, batches, range(2))
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, checkpoint.state(task), checkpoint.CheckpointHeader("any", {}, {}, checkpoint.Progress()))
    _train(task, batches, range(2, 4))
    other, batches = case.build()
    checkpoint.restore(other, checkpoint.load(path)[0], path)
    _train(other, batches, range(2, 4))
    expected, found = checkpoint.state(task), checkpoint.state(other)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@every_task
def test_weights_of_other_networks_are_refused(case: TaskCase, tmp_path) -> None:
    task, _ = case.build()
    tensors = checkpoint.state(task)
    name = next(name for name in tensors if name.startswith("network."))
    with pytest.raises(ValueError, match="other networks"):
        checkpoint.restore(task, {key: value for key, value in tensors.items() if key != name}, tmp_path)


@every_task
def test_averages_follow_in_images_of_all_ranks(case: TaskCase) -> None:
    """Half of a weight is left after a half-life of images, however many processes share them."""
    task, batches = case.build()
    context = StepContext(8000, 1000, 8, seed=0, ranks=2)
    before = {name: [p.clone() for p in average.network.parameters()] for name, average in task.averages.items()}
    task.step(batches(context), context)
    assert task.averages
    for name, average in task.averages.items():
        kept = 0.5 ** (8 / average.half_life)
        for was, now, network in zip(before[name], average.network.parameters(), task.networks[name].parameters(), strict=True):
            torch.testing.assert_close(now, kept * was + (1 - kept) * network, rtol=0, atol=1e-6)
