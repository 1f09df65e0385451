"""Augmentation: against kornia and SciPy where definitions agree, and what must hold of every draw."""

import math
from dataclasses import fields, replace

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from torch import Tensor

from pixelscope.engine.augment import Transforms, augment, augment_masks, draw_transforms
from pixelscope.engine.config import AugmentConfig

STRONG = AugmentConfig(rotation=0.2, zoom=0.4, contrast=0.6)
OFF = AugmentConfig(flip=False, rotation=0, zoom=0, contrast=0)

seeds = st.integers(0, 2**32)


def images(count: int, size: int = 12, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def drawn(count: int, config: AugmentConfig = STRONG, seed: int = 0) -> Transforms:
    return draw_transforms(count, config, torch.Generator().manual_seed(seed))


def equal(one: Transforms, other: Transforms) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Transforms))


def close(one: Tensor, other: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


# --- oracles ----------------------------------------------------------------------------------------------------------


def test_turning_agrees_with_kornia() -> None:
    batch = images(4)
    angle = torch.tensor([0.3, -0.3, 1.2, math.pi / 2])
    turned = augment(batch, replace(Transforms.identity(4), angle=angle))
    expected = kornia.geometry.transform.rotate(batch, angle.rad2deg(), padding_mode="reflection", align_corners=False)
    close(turned, expected)


def test_a_quarter_turn_is_anticlockwise() -> None:
    batch = images(1)
    turned = augment(batch, replace(Transforms.identity(1), angle=torch.tensor([math.pi / 2])))
    close(turned, batch.rot90(1, (2, 3)))


def test_zooming_agrees_with_kornia() -> None:
    batch = images(3)
    zoom = torch.tensor([[1.4, 1.0], [1.0, 0.7], [0.8, 1.3]])
    zoomed = augment(batch, replace(Transforms.identity(3), zoom=zoom))
    # kornia names the width first.
    expected = kornia.geometry.transform.scale(batch, zoom.flip(1), padding_mode="reflection", align_corners=False)
    close(zoomed, expected)


def test_flipping_agrees_with_kornia_and_undoes_itself() -> None:
    batch, mirror = images(3), replace(Transforms.identity(3), flip=torch.tensor([True, False, True]))
    flipped = augment(batch, mirror)
    close(flipped[mirror.flip], kornia.geometry.transform.hflip(batch[mirror.flip]))
    assert torch.equal(flipped[1], batch[1])
    close(augment(flipped, mirror), batch)


def test_contrast_agrees_with_kornia_channel_by_channel() -> None:
    batch, factor = images(4), torch.tensor([0.5, 0.9, 1.1, 3.0])
    changed = augment(batch, replace(Transforms.identity(4), contrast=factor))
    for channel in range(3):
        one = batch[:, channel : channel + 1]
        close(changed[:, channel : channel + 1], kornia.enhance.adjust_contrast_with_mean_subtraction(one, factor))


@pytest.mark.parametrize("seed", range(4))
def test_geometry_and_fill_agree_with_scipy(seed: int) -> None:
    """SciPy's mode "reflect" is that of Keras: d c b a | a b c d | d c b a."""
    batch, transforms = (
        images(1, seed=seed),
        replace(drawn(1, STRONG, seed), contrast=torch.ones(1), flip=torch.tensor([seed % 2 == 1])),
    )
    angle, (height, width) = float(transforms.angle), transforms.zoom[0].tolist()
    forth = np.diag([height, width]) @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back, centre = np.linalg.inv(forth), np.full(2, 5.5)
    source = batch.flip(3) if seed % 2 else batch
    warped = augment(batch, transforms)[0].numpy()
    for channel in range(3):
        expected = affine_transform(
            source[0, channel].numpy().astype(float), back, centre - back @ centre, order=1, mode="reflect", prefilter=False
        )
        np.testing.assert_allclose(warped[channel], expected, atol=3e-5)


def test_contrast_comes_after_the_geometry() -> None:
    batch = images(2)
    both = replace(drawn(2), contrast=torch.tensor([0.5, 1.4]))
    warped = augment(batch, replace(both, contrast=torch.ones(2)))
    close(augment(batch, both), augment(warped, replace(Transforms.identity(2), contrast=both.contrast)), 1e-6)


# --- every draw -------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(seed=seeds, count=st.integers(0, 4), size=st.integers(1, 17), channels=st.integers(1, 3))
def test_shape_type_and_range_are_kept(seed: int, count: int, size: int, channels: int) -> None:
    batch = images(count, size, seed, channels)
    # Black and white pixels are where contrast would leave the range.
    altered = augment((3 * batch - 1).clamp(0, 1), drawn(count, STRONG, seed))
    assert altered.shape == batch.shape
    assert altered.dtype == batch.dtype
    assert ((altered >= 0) & (altered <= 1)).all()


@settings(max_examples=20)
@given(seed=seeds)
def test_no_image_depends_on_its_neighbours(seed: int) -> None:
    batch, transforms = images(4, seed=seed), drawn(4, STRONG, seed)
    together = augment(batch, transforms)
    for i in range(4):
        close(augment(batch[i : i + 1], transforms[torch.tensor([i])])[0], together[i], 1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_in_memory_is_kept(layout: torch.memory_format) -> None:
    batch = images(3)
    altered = augment(batch.to(memory_format=layout), drawn(3))
    assert altered.is_contiguous(memory_format=layout)
    close(altered, augment(batch, drawn(3)), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_changes_no_bit(dtype: torch.dtype) -> None:
    batch = images(5, 96).to(dtype)
    assert torch.equal(augment(batch, Transforms.identity(5)), batch)
    assert torch.equal(augment_masks(batch[:, :1], Transforms.identity(5)), batch[:, :1])


def test_the_given_images_are_not_written_to() -> None:
    batch = images(3)
    before = batch.clone()
    augment(batch, drawn(3))
    assert torch.equal(batch, before)


def test_masks_go_where_their_images_go() -> None:
    batch, transforms = images(3, channels=1), drawn(3)
    masks = (batch > 0.5).float()
    close(augment_masks(masks, transforms), augment(masks, replace(transforms, contrast=torch.ones(3))), 1e-6)


# --- draws ------------------------------------------------------------------------------------------------------------


def test_draws_are_a_function_of_the_generator() -> None:
    assert equal(drawn(9, seed=1), drawn(9, seed=1))
    assert not equal(drawn(9, seed=1), drawn(9, seed=2))


def test_draws_fill_their_limits_and_keep_within() -> None:
    transforms = drawn(4000, AugmentConfig())
    turns, zooms, contrasts = transforms.angle / (2 * math.pi), transforms.zoom - 1, transforms.contrast - 1
    for values, most in ((turns, 0.05), (zooms[:, 0], 0.1), (zooms[:, 1], 0.1), (contrasts, 0.1)):
        # 1e-6 is for float32; 4,000 uniform draws come within a hundredth of both ends, and are even.
        assert values.abs().max() <= most + 1e-6
        assert values.min() < -0.99 * most
        assert values.max() > 0.99 * most
        assert values.mean().abs() < 0.05 * most
    assert 0.46 < transforms.flip.float().mean() < 0.54


def test_no_draw_follows_another() -> None:
    transforms = drawn(1000, AugmentConfig())
    height, width = transforms.zoom.unbind(1)
    draws = torch.stack([transforms.flip.float(), transforms.angle, height, width, transforms.contrast])
    assert (torch.corrcoef(draws) - torch.eye(5)).abs().max() < 0.12


def test_settings_that_are_off_draw_the_identity() -> None:
    assert equal(drawn(20, OFF), Transforms.identity(20))


@pytest.mark.parametrize(("name", "off"), [("flip", False), ("rotation", 0.0), ("zoom", 0.0), ("contrast", 0.0)], ids=str)
def test_a_setting_changes_its_own_transform_alone(name: str, off: float) -> None:
    field = "angle" if name == "rotation" else name
    one, other = drawn(20), drawn(20, STRONG.model_copy(update={name: off}))
    differing = {f.name for f in fields(Transforms) if not torch.equal(getattr(one, f.name), getattr(other, f.name))}
    assert differing == {field}


def test_rows_are_chosen_by_position_and_by_mask() -> None:
    transforms = drawn(5)
    chosen = transforms[torch.tensor([3, 1])]
    assert len(chosen) == 2
    assert torch.equal(chosen.zoom, transforms.zoom[[3, 1]])
    assert equal(transforms[torch.tensor([False, True, False, True, False])], transforms[torch.tensor([1, 3])])


def test_transforms_move_between_devices() -> None:
    moved = drawn(3).to("meta")
    assert {getattr(moved, field.name).device.type for field in fields(Transforms)} == {"meta"}
