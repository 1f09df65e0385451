"""Where foregrounds lie, and images placed as others are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixelscope.data import load
from pixelscope.imaging.framing import Framing, find_foreground, matching


def _squares(size: int, left: int, top: int, width: int, height: int, ground: int = 0, ink: int = 255) -> np.ndarray:
    """Return ten grey images with a rectangle, moved by a pixel in every second one and back."""
    images = np.full((10, size, size, 1), ground, np.uint8)
    for number, image in enumerate(images):
        shift = (0, 1, 0, -1, 0)[number % 5]
        image[top : top + height, left + shift : left + shift + width] = ink
    return images


def test_a_foreground_is_measured() -> None:
    found = find_foreground(_squares(40, left=8, top=4, width=12, height=24))
    assert found is not None
    assert (found.x, found.y) == pytest.approx(((8 + 6) / 40, (4 + 12) / 40))
    assert (found.width, found.height, found.side) == (12 / 40, 24 / 40, 24 / 40)
    assert found.background == (0, 0, 0)


@pytest.mark.parametrize(("ground", "ink"), [(255, 0), (40, 200), (200, 40)])
def test_any_plain_background_will_do(ground: int, ink: int) -> None:
    found = find_foreground(_squares(40, 8, 4, 12, 24, ground, ink))
    assert found is not None
    assert (found.side, found.background) == (24 / 40, (ground,) * 3)


def test_a_background_of_colour_is_one() -> None:
    images = np.repeat(_squares(20, 5, 5, 6, 6), 3, axis=3)
    images[images[..., 0] == 0] = (200, 0, 90)
    found = find_foreground(images)
    assert found is not None
    assert found.background == (200, 0, 90)


def test_photos_have_no_framing() -> None:
    random = np.random.default_rng(0)
    assert find_foreground(random.integers(0, 256, (20, 32, 32, 3), np.uint8)) is None
    assert find_foreground(np.full((20, 32, 32, 3), 80, np.uint8)) is None


def test_a_few_images_without_a_plain_edge_do_not_matter() -> None:
    images = _squares(40, 8, 4, 12, 24)
    images[0] = np.random.default_rng(0).integers(0, 256, (40, 40, 1))
    found = find_foreground(images)
    assert found is not None
    assert found.side == 24 / 40
    images[:3] = images[0]
    assert find_foreground(images) is None


def test_matched_images_have_the_others_framing() -> None:
    ours, theirs = _squares(40, 2, 1, 30, 38), _squares(40, 14, 12, 11, 15, ground=90)
    own, other = find_foreground(ours), find_foreground(theirs)
    assert own is not None
    assert other is not None
    framing = matching(own, other, 40)
    assert framing is not None
    after = find_foreground(framing.apply(ours))
    assert after is not None
    assert after.background == (0, 0, 0)
    for name in ("x", "y", "side"):
        assert getattr(after, name) == pytest.approx(getattr(other, name), abs=1.01 / 40), name


def test_enlarged_images_are_cut() -> None:
    ours, theirs = _squares(40, 14, 12, 11, 15), _squares(40, 2, 1, 30, 38)
    own, other = find_foreground(ours), find_foreground(theirs)
    assert own is not None
    assert other is not None
    framing = matching(own, other, 40)
    assert framing is not None
    assert framing.side > 40
    after = find_foreground(framing.apply(ours))
    assert after is not None
    assert after.side == pytest.approx(other.side, abs=2.01 / 40)


def test_alike_framings_stay_as_they_are() -> None:
    own, other = find_foreground(_squares(40, 8, 4, 12, 24)), find_foreground(_squares(40, 8, 5, 11, 23))
    assert own is not None
    assert other is not None
    assert matching(own, other, 40) is None


@pytest.mark.parametrize("side", [11, 22, 32, 47])
def test_it_scales_as_torch_does(side: int) -> None:
    """Up and down, with and without antialiasing, placed inside, over the edge, and beside it."""
    images = np.random.default_rng(side).integers(0, 256, (3, 32, 32, 3), np.uint8)
    framing = Framing(side, left=5, top=-4, fill=(10, 20, 30))
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True
    ).permute(0, 2, 3, 1)
    expected = np.empty((3, 32, 32, 3))
    expected[:] = (10, 20, 30)
    bottom, right = min(32, side - 4), min(32, 5 + side)
    expected[:, :bottom, 5:right] = scaled[:, 4 : 4 + bottom, : right - 5]
    assert np.abs(framing.apply(images) - expected).max() <= 0.51


def test_more_images_than_a_block_are_framed_alike() -> None:
    images = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 1), np.uint8)
    framing = Framing(5, 1, 2, (0, 0, 0))
    one_by_one = np.concatenate([framing.apply(image[None]) for image in images])
    np.testing.assert_array_equal(framing.apply(images), one_by_one)


def test_usps_is_framed_as_mnist(shared_data: Path) -> None:
    usps, mnist = (load(f"{kind}:{shared_data / name}") for kind, name in (("arrays", "usps_sample.npz"), ("mnist", "mnist")))
    own, other = (find_foreground(one.images[:1000].transpose(0, 2, 3, 1)) for one in (usps, mnist))
    assert own is not None
    assert other is not None
    framing = matching(own, other, 32)
    assert framing is not None
    assert framing.side / 32 == pytest.approx(20 / 28, abs=0.03), "MNIST draws its digits into 20 of 28 pixels, USPS into all"
