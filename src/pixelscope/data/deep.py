"""Images deeper than 8 bits: which files are, and the one range of values that a set of them has."""

import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.errors import InputError
from pixelscope.imaging.convert import Range, common_range, range_text

Values = NDArray[np.generic]

_COLOUR = ("RGB", "RGBA", "LA")
"""Modes in which Pillow holds 16-bit colour, of which it keeps the high byte alone."""

_STARTS = (b"\x89PNG", b"II", b"MM", b"P2", b"P5", b"Pf", b"PF", b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51")
"""How files begin whose format can hold more than 8 bits."""


@dataclass(frozen=True)
class Depth:
    """What is known of the deep images of a set."""

    low_high: Range | None
    """The values that become 0 and 255; None where no image is deeper than 8 bits."""
    count: int
    """Deep images."""
    of: int
    """All images."""

    def note(self, option: str = "--data.range") -> tuple[str, ...]:
        """Return the note that names the range; nothing where all images are of 8 bits."""
        if self.low_high is None or not self.count:
            return ()
        number = f"All {self.of:,}" if self.count == self.of else f"{self.count:,} of {self.of:,}"
        values = f"values of {range_text(self.low_high)} became 0 to 255"
        return (f"{number} images are deeper than 8 bits: {values}; fix it with {option} LOW HIGH.",)


def is_deep(image: Image.Image) -> bool:
    """Say whether an image, opened and not yet decoded, holds more than 8 bits a value."""
    return image.mode.startswith(("I", "F")) or _is_deep_colour(image)


def deep_values(image: Image.Image, file: Path | io.BytesIO) -> Values:
    """Return the values of a deep image, (H, W), or (H, W, 3 or 4) in RGB; raises ValueError where one is not finite."""
    if not _is_deep_colour(image):
        values = np.asarray(image)
    else:
        content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.ndim != 3:
            raise ValueError("its 16-bit colours cannot be decoded")
        values = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it has values that are not finite (NaN or infinite)")
    return values


def measure_depth(paths: Sequence[Path], formats: Sequence[str], given: Range | None = None) -> Depth:
    """Return the range of all deep images among files; unreadable ones are passed over.

    Args:
        paths: the files of one set.
        formats: what a file is tried as.
        given: the range to use in place of the one that their values have.

    Raises:
        InputError: there are integers and floats among them, and no range is given.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: _extremes(path, formats, decode=given is None), paths)
        deep = [(path, *extremes) for path, extremes in zip(paths, found, strict=True) if extremes is not None]
    if given is not None or not deep:
        return Depth(given if deep else None, len(deep), len(paths))
    integers = [path for path, _, _, whole in deep if whole]
    if integers and len(integers) < len(deep):
        other = next(path for path, _, _, whole in deep if not whole)
        raise InputError(
            f"{integers[0]} holds integers and {other} floating-point values, which have no range in common; give one with "
            "--data.range LOW HIGH (frames: --prepare.range), or keep them apart."
        )
    lowest, highest = min(one[1] for one in deep), max(one[2] for one in deep)
    return Depth(common_range(lowest, highest, bool(integers)), len(deep), len(paths))


def _extremes(path: Path, formats: Sequence[str], decode: bool) -> tuple[float, float, bool] | None:
    """Return the least and greatest value of a deep image and whether they are integers; None where it is none."""
    try:
        with path.open("rb") as file:
            start = file.read(26)
        if not start.startswith(_STARTS) or (start.startswith(b"\x89PNG") and start[24:25] != b"\x10"):
            return None
        with Image.open(path, formats=tuple(formats)) as image:
            if not is_deep(image):
                return None
            values = deep_values(image, path) if decode else np.zeros(1)
    except Exception:  # noqa: BLE001 - decoders raise anything; whoever reads the file says what
        return None
    colours = values[..., :3] if values.ndim == 3 else values
    return float(colours.min()), float(colours.max()), values.dtype.kind != "f"


def _is_deep_colour(image: Image.Image) -> bool:
    # After decoding, the tiles are gone; what is asked here is asked before.
    return image.mode in _COLOUR and bool(re.search(r"[A-Z];16", str([tile[3] for tile in getattr(image, "tile", ())])))
