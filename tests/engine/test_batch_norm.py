"""Batch norm over several processes: outputs, statistics and gradients of one process with the whole batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixtures.processes import fork_ranks
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import average, ranks, sum_over_ranks, synchronize_batch_norm
from pixelscope.engine.launch import launch

CHANNELS = 3


def images() -> Tensor:
    return torch.randn(4, CHANNELS, 5, 5, generator=torch.Generator().manual_seed(0)).double()


def weights_of_a_loss() -> Tensor:
    return torch.randn(4, CHANNELS, 5, 5, generator=torch.Generator().manual_seed(1)).double()


def normalise(share: slice) -> dict[str, Tensor]:
    """Return what batch norm gives this process's share of the images, and the gradients of a loss over all of them."""
    norm = nn.BatchNorm2d(CHANNELS)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(2))
    synchronize_batch_norm(norm)
    given = images()[share].float().requires_grad_()
    output = norm(given)
    (output.double() * weights_of_a_loss()[share]).sum().backward()
    assert given.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    assert norm.running_mean is not None and norm.running_var is not None
    return {
        "output": output.detach(),
        "images": given.grad,
        # The ranks' gradients are averaged, and this loss is a sum.
        "weight": average(norm.weight.grad) * ranks(),
        "bias": average(norm.bias.grad) * ranks(),
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def _first_half(fabric: Any) -> dict[str, Any]:
    rank = int(fabric.global_rank)
    return {name: value.tolist() for name, value in normalise(slice(2 * rank, 2 * rank + 2)).items()}


def test_two_processes_have_the_gradients_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    whole = normalise(slice(None))
    half = launch(RuntimeConfig(devices=2, accelerator="cpu", threads=1), _first_half)
    for name, value in whole.items():
        expected = value[:2] if name in ("output", "images") else value
        torch.testing.assert_close(
            torch.tensor(half[name]), expected, rtol=1e-4, atol=1e-5, msg=lambda text, of=name: f"{of}: {text}"
        )


def _own_sum(fabric: Any) -> tuple[list[float], list[float]]:
    given = torch.full((2,), float(fabric.global_rank + 1), requires_grad=True)
    total = sum_over_ranks(given)
    (total * (fabric.global_rank + 1)).sum().backward()
    assert given.grad is not None
    return total.tolist(), given.grad.tolist()


def test_a_sum_over_processes_passes_back_the_gradients_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    total, gradient = launch(RuntimeConfig(devices=2, accelerator="cpu", threads=1), _own_sum)
    assert total == [3.0, 3.0]
    assert gradient == [3.0, 3.0]
