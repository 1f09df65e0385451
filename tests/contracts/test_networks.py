"""What holds for every network."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.cases import NETWORKS, NetworkCase

every_network = pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)


@every_network
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shape_and_finite(case: NetworkCase, count: int) -> None:
    network = case.build().train(count > 1)
    output = network(*case.inputs(count))
    assert output.shape == (count, *case.output)
    assert torch.isfinite(output).all()


@every_network
def test_every_parameter_gets_a_gradient(case: NetworkCase) -> None:
    network = case.build()
    output = network(*case.inputs(4))
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert without == []


@every_network
def test_evaluation_is_deterministic_and_each_image_is_judged_alone(case: NetworkCase) -> None:
    network = case.build().eval()
    inputs = case.inputs(4)
    with torch.no_grad():
        first, again = network(*inputs), network(*inputs)
        alone = network(*(value[2:3] for value in inputs))
    assert torch.equal(first, again)
    torch.testing.assert_close(first[2:3], alone, rtol=1e-4, atol=1e-5)


@every_network
def test_saved_and_loaded_is_equal(case: NetworkCase, tmp_path) -> None:
    network, other = case.build(), case.build()
    inputs = case.inputs(3)
    network(*inputs)  # batch norm statistics move
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "x.safetensors")
    other.load_state_dict(load_file(tmp_path / "x.safetensors"))
    with torch.no_grad():
        assert torch.equal(network.eval()(*inputs), other.eval()(*inputs))


@every_network
def test_channels_last_gives_the_same(case: NetworkCase) -> None:
    network = case.build().eval()
    inputs = case.inputs(2)
    laid_out = tuple(v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in inputs)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), network(*laid_out), rtol=1e-4, atol=1e-5)
