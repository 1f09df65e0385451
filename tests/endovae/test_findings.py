"""What is said of frequencies and regions is what is there."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from pixelscope.endovae.forward import decode, interpolate, random_latents, traverse
from pixelscope.endovae.metrics import REGIONS, brightness, fine_detail_kept, regions, spectrum
from pixelscope.endovae.networks import Decoder


def _grey(values: torch.Tensor) -> torch.Tensor:
    return values[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize("cycles", [3, 8, 15])
def test_a_wave_has_its_energy_at_its_frequency(cycles: int) -> None:
    x = torch.arange(48) / 48
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * cycles * x).expand(1, 48, 48)
    energy = spectrum(_grey(wave))[0]
    assert energy.shape == (25,)
    assert int(energy.argmax()) == cycles
    assert float(energy[cycles - 2 : cycles + 3].sum() / energy.sum()) > 0.99


def test_the_spectrum_is_the_energy_in_rings_of_a_windowed_image() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    light = np.einsum("nchw,c->nhw", images.numpy(), [0.299, 0.587, 0.114])
    window = np.outer(np.hanning(12), np.hanning(12))
    cycles = np.fft.fftfreq(12) * 12
    for one, found in zip(light, spectrum(images), strict=True):
        energy = np.abs(np.fft.fft2((one - one.mean()) * window)) ** 2
        expected = np.zeros(7)
        for (row, column), value in np.ndenumerate(energy):
            ring = int(np.floor(np.hypot(cycles[row], cycles[column]) + 0.5))
            if ring < 7:
                expected[ring] += value
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_blur_loses_fine_detail_and_brightness_does_not_matter() -> None:
    noise = np.random.default_rng(0).uniform(0, 1, (4, 48, 48)).astype(np.float32)
    sharp, blurred = (spectrum(_grey(torch.from_numpy(v))) for v in (noise, ndimage.gaussian_filter(noise, (0, 1, 1))))
    assert fine_detail_kept(sharp, sharp) == pytest.approx(1)
    assert fine_detail_kept(sharp, blurred) < 0.2
    assert fine_detail_kept(sharp, torch.zeros_like(sharp)) == 0
    brighter = spectrum(_grey(torch.from_numpy(noise * 0.5 + 0.4)))
    assert fine_detail_kept(sharp, brighter) == pytest.approx(0.25, rel=1e-4)


def test_every_pixel_is_in_one_region() -> None:
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    insets = np.zeros((3, 24, 24), bool)
    insets[1, 15:, :8] = True
    found = regions(images, insets)
    assert tuple(found) == REGIONS
    assert bool((torch.stack(list(found.values())).sum(0) == 1).all())
    assert torch.equal(found["inset"], torch.from_numpy(insets))


def test_regions_are_what_a_person_would_call_them() -> None:
    image = torch.full((1, 3, 32, 32), 0.5)
    image[:, 2] = 0.3  # tissue is not grey
    image[..., :5, :5] = 0.02  # a black corner
    image[..., 14:20, 14:20] = 0.05  # lumen, black too but away from the edge
    image[..., 8, 20:22] = 0.95  # a glint
    found = regions(image, np.zeros((1, 32, 32), bool))
    assert bool(found["border"][0, :5, :5].all()) and int(found["border"].sum()) == 25
    assert bool(found["lumen"][0, 14:20, 14:20].all()) and int(found["lumen"].sum()) == 36
    assert int(found["glints"].sum()) == 2
    assert bool(found["tissue"][0, 25, 25])


def test_brightness_weighs_colours_as_the_eye_does() -> None:
    colours = torch.eye(3).view(3, 3, 1, 1)
    assert brightness(colours).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_ways_through_the_latent_space() -> None:
    first, second = torch.tensor([0.0, 2.0]), torch.tensor([4.0, -2.0])
    assert interpolate(first, second, 5).tolist() == [[0, 2], [1, 1], [2, 0], [3, -1], [4, -2]]
    assert interpolate(first, second, 1).tolist() == [[0, 2]]
    assert traverse(first, 1, torch.tensor([-1.0, 7.0])).tolist() == [[0, -1], [0, 7]]
    assert first.tolist() == [0, 2]
    drawn = random_latents(20_000, 2, torch.Generator().manual_seed(0))
    assert drawn.mean(0).abs().max() < 0.03
    torch.testing.assert_close(drawn.T.cov(), torch.eye(2), rtol=0, atol=0.03)


def test_decoded_images_are_bytes_one_by_one_the_same() -> None:
    decoder, z = Decoder(16, 3, 2).eval(), random_latents(70, 3, torch.Generator().manual_seed(0))
    images = decode(decoder, z)
    assert images.shape == (70, 16, 16, 3)
    assert images.dtype == torch.uint8
    alone = decode(decoder, z[66:67])
    assert int((images[66:67].int() - alone.int()).abs().max()) <= 1
