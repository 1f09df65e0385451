"""Noise and dropout of D, against the distributions they stand for."""

import numpy as np
import pytest
import torch
from scipy import stats

from pixelscope.pixelda.networks import Dropout, GaussianNoise, random_bits

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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_noise_is_normal(layout: torch.memory_format) -> None:
    still = torch.full(SHAPE, 2.0).contiguous(memory_format=layout)
    noise = (GaussianNoise(0.2)(still, _generator()) - 2).double().numpy().ravel()
    assert stats.kstest(noise, "norm", args=(0, 0.2)).pvalue > 0.001
    assert np.std(noise) == pytest.approx(0.2, rel=0.02)
    assert np.abs(noise).max() > 3.2 * 0.2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_the_probability_and_keeps_the_mean(layout: torch.memory_format) -> None:
    still = torch.ones(SHAPE).contiguous(memory_format=layout)
    dropped = Dropout(0.1)(still, _generator())
    share = float((dropped == 0).double().mean())
    assert share == pytest.approx(0.1, abs=4 * (0.09 / still.numel()) ** 0.5)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])


@pytest.mark.parametrize("layer", [GaussianNoise(0.5), Dropout(0.5)], ids=["noise", "dropout"])
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
    assert GaussianNoise(0.0)(images, draw) is images
    assert Dropout(0.0)(images, draw) is images
    assert torch.equal(draw.get_state(), before)
