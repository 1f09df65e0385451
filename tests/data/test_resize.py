"""Resizing, against Pillow's own antialiased bilinear filter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.made import noise
from pixelscope.imaging import resize as module
from pixelscope.imaging.resize import centre_square, resize


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 40), channels=st.sampled_from([1, 3]))
def test_agrees_with_pillow(height: int, width: int, size: int, channels: int) -> None:
    image = noise((height, width, channels), seed=height * 41 + width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    planes = [Image.fromarray(image[top : top + side, left : left + side, c]) for c in range(channels)]
    expected = np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes])
    resized = resize(torch.from_numpy(image).permute(2, 0, 1)[None], size)
    assert resized.shape == (1, channels, size, size)
    # Pillow rounds after each of its two passes, we once.
    assert np.abs(resized[0].numpy().astype(int) - expected).max() <= 1


def test_shrinking_averages_rather_than_picks() -> None:
    stripes = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    middle = resize(stripes, 8)[..., 1:-1]
    assert middle.float().sub(100).abs().max() <= 1


def test_halves_are_rounded_to_the_nearest_value() -> None:
    assert resize(torch.tensor([[[[254, 255], [255, 255]]]], dtype=torch.uint8), 1).item() == 255


def test_images_of_that_size_are_not_copied() -> None:
    images = torch.from_numpy(noise((2, 3, 8, 8)))
    assert resize(images, 8).data_ptr() == images.data_ptr()


def test_chunks_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(noise((7, 3, 9, 9)))
    whole = resize(images, 5)
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 3 * 81 * 2)
    assert torch.equal(resize(images, 5), whole)


def test_the_centre_is_kept() -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 2, 6)
    assert centre_square(images)[0, 0].tolist() == [[2, 3], [8, 9]]


def test_none_is_none() -> None:
    assert resize(torch.empty(0, 1, 28, 28, dtype=torch.uint8), 32).shape == (0, 1, 32, 32)
