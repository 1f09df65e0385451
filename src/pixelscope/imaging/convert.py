"""Convert images: stored values to 8-bit sRGB, and 8-bit images to HTML for notebooks.

Stored values are deeper than 8 bits, or colours with a profile. Images of a set share one range, so that equal values are equal
greys in all of them. `require_rgb` checks images that a caller has converted.
"""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pixelscope.errors import InputError

Range = tuple[float, float]
"""Values mapped to 0 and 255."""

BITS = (8, 10, 12, 16)
"""Bit depths of integer images."""

BYTES_FROM = 128
"""Minimum of the maximum from which floats above 1 count as bytes: sets of bytes reach it, values slightly above 1 do not."""

_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_CONVERTED_MODES = {"1": "L", "LA": "RGBA", "La": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "YCbCr": "RGB"}
"""Modes that are converted before a profile is applied."""
_PROFILE_MODES = ("L", "RGB", "RGBA", "CMYK")
"""Modes that a profile is applied to; in files, others are rare and have none."""

SHEET_HEIGHT = 48
"""Minimum height in CSS pixels of the images of a contact sheet."""
SHEET_GAP = 2
"""White pixels between neighbouring images of a contact sheet."""


def known_range(lowest: float, highest: float, whole: bool) -> Range | None:
    """Return the usual range of images with values from `lowest` to `highest`; None if there is none.

    For integers it is that of the smallest of 8, 10, 12 and 16 bits that contains them; for floats 0 to 1 or -1 to 1.

    Args:
        lowest: minimum of all images.
        highest: maximum of all images.
        whole: whether they are stored as integers.
    """
    known = [(0.0, 2.0**bits - 1) for bits in BITS] if whole else [(0.0, 1.0), (-1.0, 1.0)]
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), None)


def type_range(lowest: float, highest: float, whole: bool) -> Range:
    """Return the range of a single image, by its type.

    Integers have 16 bits; floats 0 to 1, -1 to 1, or 0 to 255 from `BYTES_FROM` on. Otherwise it is minimum to maximum.
    """
    floats = [(0.0, 1.0), (-1.0, 1.0), *([(0.0, 255.0)] if highest >= BYTES_FROM else [])]
    known = [(0.0, 65535.0)] if whole else floats
    return next(((low, high) for low, high in known if low <= lowest and highest <= high), (lowest, highest))


def to_eight_bits(values: NDArray[np.generic], low_high: Range) -> NDArray[np.uint8]:
    """Return values as bytes: the range is mapped to 0 to 255 and clipped; all 0 if the range is empty."""
    low, high = low_high
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.astype(np.float64) - low) * scale).round().clip(0, 255).astype(np.uint8)


def range_note(low_high: Range) -> str:
    """Return the note that names the range of a set."""
    return (
        f"Values of {range_text(low_high)} became 0 to 255 in all images; to change it, write @range=LOW:HIGH after the path."
    )


def unused_range_note(low_high: Range) -> str:
    """Return the note on a range given for images of 8 bits."""
    return f"The range {range_text(low_high)} is not used: no image is deeper than 8 bits."


def range_text(low_high: Range) -> str:
    """Return a range as text, with its bit depth if it has one."""
    low, high = low_high
    bits = next((f" ({bits} bits)" for bits in BITS if (low, high) == (0, 2**bits - 1)), "")
    return f"{low:g} to {high:g}{bits}"


def to_srgb(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits in sRGB, by the ICC profile stored in its file.

    An image without a profile is taken to be sRGB and returned as it is, and so is one whose profile is damaged, or is of
    another kind than its pixels. Grey images stay grey. Transparency is kept. The rendering intent is the profile's own.

    Args:
        image: a decoded image of any mode of 8 bits; CMYK is converted by its profile.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    plain = _plain(image)
    if plain.mode not in _PROFILE_MODES:
        return image
    out = "RGBA" if plain.mode == "RGBA" else "RGB"
    transform = _transform(bytes(profile), plain.mode, out)
    if transform is None:
        return image
    converted = transform.apply(plain)
    converted.info = {key: value for key, value in image.info.items() if key not in ("icc_profile", "transparency")}
    return converted.convert("L") if image.mode in ("1", "L") and out == "RGB" else converted


def _plain(image: Image.Image) -> Image.Image:
    """Return an image in mode L, RGB, RGBA or CMYK."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGB")
    return image.convert(_CONVERTED_MODES[image.mode]) if image.mode in _CONVERTED_MODES else image


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str, out: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None if none is needed or the profile cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        return ImageCms.buildTransform(source, _srgb(), mode, out, renderingIntent=intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def require_rgb(images: np.ndarray, size: int | None = None) -> None:
    """Raise InputError unless `images` are uint8 RGB (N, H, W, 3); with `size`, both H and W must equal it.

    Values of 0 to 1, or of 16 bits, have a result too, and nothing else would say that it is wrong.
    """
    wanted = ("H", "W") if size is None else (size, size)
    found = np.asarray(images)
    if found.ndim == 4 and found.shape[3] == 3 and found.dtype == np.uint8 and (size is None or found.shape[1:3] == wanted):
        return
    raise InputError(
        f"The images are {found.dtype} of shape {found.shape}; give uint8 RGB arrays (N, {wanted[0]}, {wanted[1]}, 3)."
    )


def sheet_html(heading: str, rows: Sequence[tuple[str, NDArray[np.uint8]]]) -> str:
    """Return a contact sheet: a heading, then one row per name with its uint8 images (N, H, W, 3); empty rows are omitted."""
    lines = [f"<tr><th>{escape(name)}</th><td>{_strip(images)}</td></tr>" for name, images in rows if len(images)]
    return f"<p>{escape(heading)}</p><table>{''.join(lines)}</table>"


def text_html(text: str) -> str:
    """Return aligned text, such as a table for a terminal, as HTML."""
    return f"<pre>{escape(text)}</pre>"


def _strip(images: NDArray[np.uint8]) -> str:
    """Return images next to each other as one <img> with embedded content."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, SHEET_GAP), (0, 0)), constant_values=255)
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(padded), axis=1)).save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    height = max(SHEET_HEIGHT, images.shape[1])
    return f'<img height="{height}" style="image-rendering: pixelated" src="data:image/png;base64,{content}">'
