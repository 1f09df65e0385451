"""Settings of frame preparation and of rendering."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pixelscope.config import Config, ValueRange


def _ordered(low_high: tuple[float, float]) -> tuple[float, float]:
    if low_high[0] > low_high[1]:
        raise ValueError(f"a range goes from LOW to HIGH, not from {low_high[0]:g} to {low_high[1]:g}")
    return low_high


Amounts = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1000)], Annotated[float, Field(ge=0, le=1000)]], AfterValidator(_ordered)
]
"""LOW HIGH, at least 0; equal values fix the amount."""
Factors = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]], AfterValidator(_ordered)
]
"""LOW HIGH, above 0; equal values fix the factor."""

MIN_LESION = 0.01
"""Fraction of a view that a lesion must cover; abnormal frames whose mask covers less are left out of its numbers."""


class PrepareConfig(Config):
    """Preparation of frames: content area, insets, size."""

    size: Annotated[int, Field(ge=16, le=4096, multiple_of=8)] = 96
    """Side in pixels of the prepared frames: a multiple of 8, as the encoder halves it three times, and at least 16, as SSIM
    has windows of 11."""
    method: Literal["robust", "otsu"] = "robust"
    """How the content area is found: `robust` keeps dark lumen; `otsu` is the reference study's method."""
    insets: Literal["keep", "inpaint", "mask"] = "keep"
    """Treatment of green and blacked-out insets: kept; inpainted; or masked in loss and score."""
    strict: bool = False
    """Refuse an unreadable frame instead of skipping it."""
    range: ValueRange | None = None
    """LOW HIGH: values mapped to black and white in frames deeper than 8 bits; if unset, one range is measured for all."""


class RenderConfig(Config):
    """Rendering of pictograms: number of images and ranges of their variations. LOW HIGH is the range of a uniform draw."""

    count: Annotated[int, Field(ge=1)] = 200
    """Number of images per class."""
    size: Annotated[int, Field(ge=8, le=4096)] = 32
    """Side of the images in pixels."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    scale: Factors = (0.55, 0.85)
    """LOW HIGH: longer side of the pictogram, as a fraction of the image's side."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Maximum rotation to either side, in degrees."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Maximum shear along each axis: 0.1 moves the far edge by a tenth of the pictogram."""
    shift: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Maximum shift along each axis, as a fraction of the image's side."""
    crop: Factors = (1.0, 4.0)
    """LOW HIGH: side of the crop from a photo, in sides of the image; limited by the size of the photo."""
    background: Factors = (0.4, 2.5)
    """LOW HIGH: factor on the background's brightness, because a pictogram and its background may be lit differently."""
    brightness: Factors = (0.2, 1.8)
    """LOW HIGH: factor on the brightness of the whole image."""
    contrast: Amounts = (0.5, 1.6)
    """LOW HIGH: factor on the contrast of the whole image."""
    saturation: Amounts = (0.3, 1.0)
    """LOW HIGH: factor on the saturation; cameras give duller colours than drawings."""
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Maximum difference in brightness between channels, as a fraction."""
    blur: Amounts = (0.0, 0.03)
    """LOW HIGH: standard deviation of a Gaussian blur, as a fraction of the image's side."""
    noise: Amounts = (0.0, 3.0)
    """LOW HIGH: standard deviation of the noise, in grey levels of 255."""
