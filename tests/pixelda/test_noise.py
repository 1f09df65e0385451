"""Noise and dropout of D, against the distributions they stand for."""

import numpy as np
import pytest
import torch
from scipy import stats

from pixelscope.pixelda.networks import Discriminator, StrongClassifier
from pixelscope.pixelda.noise import NoisyDropout, random_bits

SHAPE = torch.Size((7, 11, 13, 17))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bits_are_uniform_and_uncorrelated() -> None:
    bits = random_bits(torch.Size((400_000,)), torch.device("cpu"), _generator()).numpy()
    assert bits.dtype == np.int16
    counts = np.bincount((bits.astype(int) + 2**15) // 256, minlength=256)
    assert stats.chisquare(counts).pvalue > 0.001
    values = bits.astype(float)
    for lag in (1, 2, 3, 4, 5):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 0.006


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


@LAYOUTS
def test_noise_is_normal(layout: torch.memory_format) -> None:
    still = torch.full(SHAPE, 2.0).contiguous(memory_format=layout)
    noise = (NoisyDropout(0.2, 0)(still, _generator()) - 2).double().numpy().ravel()
    assert stats.kstest(noise, "norm", args=(0, 0.2)).pvalue > 0.001
    assert np.std(noise) == pytest.approx(0.2, rel=0.02)
    assert np.abs(noise).max() > 3.2 * 0.2


@LAYOUTS
def test_dropout_drops_the_probability_and_keeps_the_mean(layout: torch.memory_format) -> None:
    still = torch.ones(SHAPE).contiguous(memory_format=layout)
    dropped = NoisyDropout(0, 0.1)(still, _generator())
    share = float((dropped == 0).double().mean())
    assert share == pytest.approx(0.1, abs=4 * (0.09 / still.numel()) ** 0.5)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])


def test_the_noise_of_what_is_kept_is_normal_and_scaled() -> None:
    still = torch.full(SHAPE, 2.0)
    both = NoisyDropout(0.2, 0.3)(still, _generator()).double().numpy().ravel()
    kept = both[both != 0] * 0.7 - 2
    assert len(kept) / len(both) == pytest.approx(0.7, abs=4 * (0.21 / len(both)) ** 0.5)
    assert stats.kstest(kept, "norm", args=(0, 0.2)).pvalue > 0.001


def test_gradients_pass_where_activations_do() -> None:
    images = torch.rand(SHAPE, generator=_generator()).requires_grad_()
    disturbed = NoisyDropout(0.2, 0.3)(images, _generator())
    disturbed.sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, (disturbed != 0) / 0.7)


@pytest.mark.parametrize("layer", [NoisyDropout(0.5, 0), NoisyDropout(0, 0.5), NoisyDropout(0.5, 0.5)], ids=str)
def test_only_in_training_and_by_the_generator_given(layer: torch.nn.Module) -> None:
    images = torch.rand(SHAPE, generator=_generator())
    assert layer.eval()(images, _generator()) is images
    layer.train()
    first, again, other = (layer(images, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert layer(images.bfloat16(), _generator()).dtype == torch.bfloat16


def test_none_is_drawn_where_it_is_turned_off() -> None:
    images, draw = torch.rand(SHAPE), _generator()
    before = draw.get_state()
    assert NoisyDropout(0.0, 0.0)(images, draw) is images
    assert torch.equal(draw.get_state(), before)


@pytest.mark.parametrize("size", [16, 24])
def test_noise_drawn_beforehand_is_that_drawn_by_the_discriminator(size: int) -> None:
    network, images = Discriminator(size, width=4), torch.randn(3, 3, size, size, generator=_generator())
    drawn = network.draw(3, images.device, _generator())
    assert torch.equal(network(images, bits=drawn), network(images, _generator()))
    assert not torch.equal(network(images, bits=drawn), network(images, bits=[bits.flip(0) for bits in drawn]))
    assert network.eval().draw(3, images.device, _generator()) == []


def test_dropout_drawn_beforehand_is_what_is_dropped() -> None:
    network, images = StrongClassifier(3, 4, dropout=0.5), torch.randn(8, 3, 16, 16, generator=_generator())
    logits = [network(images, uniform=torch.full((8, 16), value)) for value in (0.4, 0.6)]
    assert torch.equal(logits[0], network.fc.bias.expand(8, 3)), "everything is dropped"
    assert not torch.equal(logits[1], logits[0])
    draws = [network.draw(8, images.device, _generator()) for _ in range(2)]
    assert torch.equal(*draws) and draws[0].shape == (8, 16)
