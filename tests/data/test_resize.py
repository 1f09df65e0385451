"""Resizing, against Pillow's own antialiased bilinear filter and torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fixtures.sources import noise
from pixelscope.imaging import resize as module
from pixelscope.imaging.resize import centre_square, resize


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 40), channels=st.sampled_from([1, 3]))
def test_agrees_with_pillow(height: int, width: int, size: int, channels: int) -> None:
    image = noise((height, width, channels), seed=height * 41 + width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    planes = [Image.fromarray(image[top : top + side, left : left + side, c]) for c in range(channels)]
    expected = np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes])
    resized = resize(image.transpose(2, 0, 1)[None], size)
    assert resized.shape == (1, channels, size, size)
    # Pillow rounds after each of its two passes, we once.
    assert np.abs(resized[0].astype(int) - expected).max() <= 1


def test_shrinking_averages_rather_than_picks() -> None:
    stripes = np.zeros((1, 1, 64, 64), np.uint8)
    stripes[..., ::2] = 200
    middle = resize(stripes, 8)[..., 1:-1]
    assert np.abs(middle.astype(float) - 100).max() <= 1


def test_halves_are_rounded_to_the_nearest_value() -> None:
    assert resize(np.array([[[[254, 255], [255, 255]]]], np.uint8), 1).item() == 255


def test_images_of_that_size_are_not_copied() -> None:
    images = noise((2, 3, 8, 8))
    assert np.shares_memory(resize(images, 8), images)


def test_chunks_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise((7, 3, 9, 9))
    whole = resize(images, 5)
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 3 * 81 * 2)
    assert np.array_equal(resize(images, 5), whole)


def test_the_centre_is_kept() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 1, 2, 6)
    assert centre_square(images)[0, 0].tolist() == [[2, 3], [8, 9]]


def test_none_is_none() -> None:
    assert resize(np.empty((0, 1, 28, 28), np.uint8), 32).shape == (0, 1, 32, 32)


def torchs(images: np.ndarray, size: int) -> np.ndarray:
    scaled = torch.nn.functional.interpolate(torch.from_numpy(images).float(), (size, size), mode="bilinear", antialias=True)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).numpy()


@pytest.mark.parametrize(("side", "size"), [(28, 32), (16, 32), (14, 28), (8, 16)])
def test_equals_torch_where_weights_are_sums_of_powers_of_two(side: int, size: int) -> None:
    images = noise((400, 3, side, side))
    np.testing.assert_array_equal(resize(images, size), torchs(images, size))


@pytest.mark.parametrize(("side", "size"), [(64, 32), (96, 32), (45, 32), (28, 20), (300, 32), (33, 64)])
def test_differs_from_torch_by_one_level_in_few_pixels_elsewhere(side: int, size: int) -> None:
    """Where a value lies half between two levels, sums in another order round otherwise: under 5 values in 1,000."""
    images = noise((40, 3, side, side))
    apart = np.abs(resize(images, size).astype(int) - torchs(images, size))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.005


@pytest.mark.parametrize("size", [20, 45])
def test_an_image_does_not_depend_on_the_others_of_its_batch(size: int) -> None:
    images = noise((50, 3, 33, 33))
    whole = resize(images, size)
    np.testing.assert_array_equal(np.concatenate([resize(images[i : i + 1], size) for i in range(50)]), whole)
