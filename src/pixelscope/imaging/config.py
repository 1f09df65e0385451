"""Settings of what is done to frames; apart from the code that does it, so that reading them imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from pixelscope.config import Config, ValueRange


class PrepareConfig(Config):
    """How a frame becomes a small square: content area, insets, size."""

    size: Annotated[int, Field(ge=8, multiple_of=8)] = 96
    """Side in pixels of the prepared frames; a multiple of 8, as the encoder halves it three times."""
    method: Literal["robust", "otsu"] = "robust"
    """How the content area is found: `robust` spares dark lumen; `otsu` is the report's method."""
    insets: Literal["keep", "inpaint", "mask"] = "keep"
    """What is done about green and blacked-out insets: nothing; filled in; or left out of loss and score."""
    strict: bool = False
    """Refuse an unreadable frame rather than skip it and count it."""
    range: ValueRange | None = None
    """LOW HIGH: values that become black and white in frames deeper than 8 bits; unset, one range is found for all."""


class AugmentConfig(Config):
    """How far an altered copy may be from its original."""

    flip: bool = True
    """Mirror one copy in two, left to right."""
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Most that a copy is turned either way, in turns: 0.05 are 18 degrees."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Most by which height and width grow or shrink, each by its own draw."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Most by which the contrast grows or shrinks."""
