"""Losses, divergence, quality and yardsticks against independent implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

from pixelscope.endovae.losses import Posterior, cross_entropy_loss
from pixelscope.endovae.metrics import pixel_maps
from pixelscope.endovae.pca import PrincipalComponents


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _quality(images: torch.Tensor, drawn: torch.Tensor, name: str, valid_mask: torch.Tensor | None = None) -> torch.Tensor:
    return pixel_maps(images, drawn).quality(valid_mask)[name]


def _pair(count: int = 4, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    images = _random(count, 3, size, size)
    return images, (images + 0.2 * _random(count, 3, size, size, seed=1) - 0.1).clamp(0, 1)


@given(st.integers(0, 2**20), st.integers(1, 9))
def test_divergence_is_that_of_torch_distributions(seed: int, latent: int) -> None:
    parameters = torch.randn(5, 2, latent, generator=torch.Generator().manual_seed(seed))
    posterior = Posterior.from_parameters(parameters)
    own = Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    torch.testing.assert_close(posterior.kl(), kl_divergence(own, Normal(0.0, 1.0)), rtol=1e-4, atol=1e-5)
    assert posterior.kl().shape == (5, latent)
    assert float(posterior.kl().min()) >= -1e-6


def test_a_measured_divergence_keeps_its_digits_near_the_prior() -> None:
    parameters = 1e-3 * torch.randn(5, 2, 6, generator=torch.Generator().manual_seed(0))
    posterior = Posterior.from_parameters(parameters)
    mean, log_variance = posterior.mean.double(), posterior.log_variance.double()
    expected = (0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)).float()
    assert expected.min() > 0 and expected.max() < 1e-4
    torch.testing.assert_close(posterior.measured_kl(), expected, rtol=1e-5, atol=0)


def test_samples_have_the_posteriors_mean_and_deviation() -> None:
    posterior = Posterior(torch.tensor([[2.0, -1.0]]), torch.tensor([[0.0, 2.0]]))
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = posterior.sample(noise)
    torch.testing.assert_close(drawn.mean(0), posterior.mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.0, np.e]).float(), rtol=0.02, atol=0)
    assert torch.equal(posterior.sample(torch.zeros(1, 2)), posterior.mode)


def test_both_readings_of_the_cross_entropy_loss() -> None:
    logits, images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), _random(2, 3, 4, 4)
    p, x = torch.sigmoid(logits).double().numpy(), images.double().numpy()
    cross_entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p))
    np.testing.assert_allclose(cross_entropy_loss(logits, images, "sum"), cross_entropy.sum((1, 2, 3)), rtol=1e-5)
    by_pixel = cross_entropy.mean(1).sum((1, 2))
    np.testing.assert_allclose(cross_entropy_loss(logits, images, "channel-mean"), by_pixel, rtol=1e-5)


def test_a_pixel_left_out_has_no_part_in_the_loss() -> None:
    logits, images = torch.zeros(1, 3, 4, 4, requires_grad=True), _random(1, 3, 4, 4)
    valid_mask = torch.ones(1, 1, 4, 4)
    valid_mask[0, 0, 1, 2] = 0
    cross_entropy_loss(logits, images, "sum", valid_mask).sum().backward()
    assert logits.grad is not None
    assert not bool(logits.grad[0, :, 1, 2].any())
    assert bool(logits.grad[0, :, 1, 1].all())


def test_psnr_is_that_of_scikit_image() -> None:
    images, reconstructions = _pair()
    found = _quality(images, reconstructions, "psnr")
    for image, other, value in zip(images.numpy(), reconstructions.numpy(), found, strict=True):
        assert float(value) == pytest.approx(peak_signal_noise_ratio(image, other, data_range=1.0), abs=1e-5)


@pytest.mark.parametrize("size", [16, 32, 33])
def test_ssim_is_that_of_scikit_image(size: int) -> None:
    images, reconstructions = _pair(size=size)
    found = _quality(images, reconstructions, "ssim")
    for image, other, value in zip(images.numpy(), reconstructions.numpy(), found, strict=True):
        expected = structural_similarity(
            image, other, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        assert float(value) == pytest.approx(expected, abs=1e-5)


def test_equal_images_are_equal() -> None:
    images, _ = _pair()
    torch.testing.assert_close(_quality(images, images, "ssim"), torch.ones(4))
    assert bool(_quality(images, images, "psnr").isinf().all())


def test_what_is_left_out_does_not_count() -> None:
    images, reconstructions = _pair()
    valid_mask = torch.ones(4, 1, 32, 32)
    valid_mask[:, :, :16] = 0
    reconstructions[:, :, 16:] = images[:, :, 16:]
    torch.testing.assert_close(_quality(images, reconstructions, "squared_error", valid_mask), torch.zeros(4))
    assert float(_quality(images, reconstructions, "squared_error").min()) > 0
    half = _quality(images, reconstructions, "ssim", valid_mask)
    assert bool((half > _quality(images, reconstructions, "ssim")).all())
    torch.testing.assert_close(
        _quality(images, reconstructions, "ssim", torch.ones(4, 1, 32, 32)), _quality(images, reconstructions, "ssim")
    )


@pytest.mark.parametrize("count", [1, 3, 6])
def test_components_are_those_of_scikit_learn(count: int) -> None:
    images = _random(20, 3, 8, 8)
    oracle = PCA(count, svd_solver="full").fit(images.flatten(1).numpy())
    expected = oracle.inverse_transform(oracle.transform(images.flatten(1).numpy())).clip(0, 1)
    found = PrincipalComponents.fit(images, count)
    np.testing.assert_allclose(found.reconstruct(images).flatten(1), expected, atol=1e-4)
    np.testing.assert_allclose(found.mean, oracle.mean_, atol=1e-6)


def test_components_of_few_or_equal_images() -> None:
    images = _random(3, 3, 8, 8)
    found = PrincipalComponents.fit(images, 6)
    assert len(found.directions) == 2  # three images span a plane
    torch.testing.assert_close(found.reconstruct(images), images, rtol=0, atol=1e-4)
    same = PrincipalComponents.fit(images[:1].repeat(4, 1, 1, 1), 6)
    torch.testing.assert_close(same.reconstruct(images[:1]), images[:1])
    projected, mean_image = found.baselines(images)
    assert torch.equal(projected, found.reconstruct(images))
    assert torch.equal(mean_image[2], found.mean.view(3, 8, 8))
