"""Convert images with a colour profile to sRGB, the colour space that everything after decoding expects."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_READ = {"1": "L", "LA": "RGBA", "La": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "YCbCr": "RGB"}
"""Modes that are converted before a profile is applied."""
_MODES = ("L", "RGB", "RGBA", "CMYK")
"""Modes that a profile is applied to; in files, others are rare and have none."""


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
    if plain.mode not in _MODES:
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
    if image.mode in _ALPHA or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGB")
    return image.convert(_READ[image.mode]) if image.mode in _READ else image


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
