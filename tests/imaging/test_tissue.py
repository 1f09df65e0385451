"""Tissue and smoothing, which OpenCV computes, are those of SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from pixelscope.endovae.anomaly.heatmap import SMOOTHING, smoothed
from pixelscope.imaging.insets import BORDER, FLAT, GLINT, LUMA, tissue_mask, touching_edge


@pytest.mark.parametrize("density", [0.2, 0.45, 0.6])
def test_parts_that_touch_the_edge_are_connected_by_sides(density: float) -> None:
    black = np.random.default_rng(0).random((40, 50)) < density
    labels, _ = ndimage.label(black)
    edge = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
    assert (touching_edge(black) == np.isin(labels, list(edge))).all()


def test_what_is_not_tissue_grows_by_a_pixel_to_each_side() -> None:
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (3, 24, 24, 3), np.uint8)
    frames[:, :4] = 0
    insets = random.random((3, 24, 24)) < 0.05
    for frame, inset, found in zip(frames, insets, tissue_mask(frames, insets), strict=True):
        border = touching_edge(frame @ np.array(LUMA) < BORDER * 255)
        glints = frame.min(2) > GLINT * 255
        assert (found == ~(inset | ndimage.binary_dilation(border | glints))).all()
        assert found.any() and not found.all()


@pytest.mark.parametrize("border", [0, 4])
def test_a_single_colour_with_noise_is_not_tissue(border: int) -> None:
    noise = np.random.default_rng(3).integers(-FLAT // 2, FLAT // 2 + 1, (40, 40, 3))
    frame = np.pad(noise + np.array([180, 90, 80]), ((border, border), (border, border), (0, 0))).astype(np.uint8)
    more = frame.copy()
    more[20:25, 20:25, 1] += FLAT
    none = np.zeros((2, *frame.shape[:2]), bool)
    found = tissue_mask(np.stack([frame, more]), none)
    assert not found[0].any() and found[1].mean() > 0.5
    assert not tissue_mask(more[None], ~none[:1]).any()


def test_the_blur_is_gaussian_and_reflects_at_the_edge() -> None:
    errors = np.random.default_rng(2).random((2, 48, 48), np.float32)
    sigma = SMOOTHING * 48
    expected = ndimage.gaussian_filter(errors.astype(np.float64), (0, sigma, sigma))
    np.testing.assert_allclose(smoothed(errors), expected, atol=1e-7)
    assert smoothed(errors[:0]).shape == (0, 48, 48)
