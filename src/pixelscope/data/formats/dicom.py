"""Read DICOM files of one frame through pydicom, with the window that they store."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.errors import MissingExtra

SUFFIX = ".dcm"
_PREAMBLE = 128
"""Bytes before the letters DICM."""


@dataclass(frozen=True)
class Window:
    """The part of the values that becomes black to white (PS3.3, C.11.2.1.2)."""

    center: float
    width: float
    function: str = "LINEAR"
    """LINEAR, LINEAR_EXACT or SIGMOID."""

    def apply(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return values (H, W), after the modality transform, as 0 (black) to 1 (white)."""
        x = np.asarray(values, np.float64)
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (x - self.center) / self.width))
        if self.function == "LINEAR_EXACT":
            return np.clip((x - self.center) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (x > self.center - 0.5).astype(np.float64)
        return np.clip((x - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1)


def is_dicom(start: bytes) -> bool:
    """Return whether a file begins as DICOM files do; its first 132 bytes are enough."""
    return start[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def read_dicom(file: Path | io.BytesIO, most_pixels: int | None) -> Image.Image:
    """Read a DICOM file of one frame as an image of mode L or RGB.

    Grey values go through the modality transform (rescale slope and intercept, or its table), then through the file's first
    window, else its first VOI table, else from their own minimum to their maximum. MONOCHROME1 is inverted.

    Args:
        file: the file, or its content.
        most_pixels: refuse larger images before decoding them; None: no limit.

    Raises:
        MissingExtra: pydicom is not installed.
        Exception: the file is damaged, has several frames, or its compression needs another package; the message says which.
    """
    data, pixels = _pydicom().dcmread(file), import_module("pydicom.pixels")
    _check(data, most_pixels)
    values = pixels.pixel_array(data)
    kind = data.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = pixels.apply_color_lut(values, data)
        return Image.fromarray((colours >> 8 if colours.dtype.itemsize > 1 else colours).astype(np.uint8))
    if values.ndim == 3:
        deep = data.BitsStored - 8
        return Image.fromarray((values >> deep if deep > 0 else values).astype(np.uint8))
    grey = _windowed(values, data)
    return Image.fromarray(np.rint(255 * (1 - grey if kind == "MONOCHROME1" else grey)).astype(np.uint8))


def dicom_size(path: Path) -> tuple[int, int]:
    """Return width and height of a DICOM file; raises any exception if it is damaged."""
    data = _pydicom().dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(data.Columns), int(data.Rows)


def windows(paths: Sequence[Path]) -> dict[Path, str]:
    """Return how the values of each grey DICOM file become bytes: its window as text, or "" for its minimum to maximum."""
    found = {path: _described(path) for path in paths if path.suffix.lower() == SUFFIX}
    return {path: window for path, window in found.items() if window is not None}


def _pydicom() -> Any:
    """Import pydicom; raises MissingExtra if it is not installed."""
    try:
        return import_module("pydicom")
    except ImportError:
        raise MissingExtra("DICOM files", "dicom") from None


def _described(path: Path) -> str | None:
    """Return the window of a grey DICOM file as text, "" if it has none, None if it is in colour or damaged."""
    try:
        data = _pydicom().dcmread(path, stop_before_pixels=True)
        if int(data.SamplesPerPixel) > 1 or data.PhotometricInterpretation == "PALETTE COLOR":
            return None
        window = _window(data)
    except Exception:  # noqa: BLE001 - pydicom raises anything on damaged files; reading them says what
        return None
    if window is None:
        return "VOI table" if "VOILUTSequence" in data else ""
    return f"centre {window.center:g}, width {window.width:g}"


def _check(data: Any, most_pixels: int | None) -> None:
    frames = int(data.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(
            f"it has {frames:,} frames, and only DICOM files of one frame are read; store each frame in its own file"
        )
    width, height = int(data.Columns), int(data.Rows)
    if most_pixels is not None and width * height > most_pixels:
        raise Image.DecompressionBombError(f"Image size ({width * height} pixels) exceeds limit of {most_pixels} pixels")


def _windowed(values: NDArray[Any], data: Any) -> NDArray[np.float64]:
    """Return grey values as 0 to 1."""
    pixels = import_module("pydicom.pixels")
    measured = pixels.apply_modality_lut(values, data)
    window = _window(data)
    if window is not None:
        return window.apply(measured)
    if "VOILUTSequence" in data:
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return np.clip(pixels.apply_voi_lut(measured, data).astype(np.float64) / (2**bits - 1), 0, 1)
    low, high = float(measured.min()), float(measured.max())
    return (measured.astype(np.float64) - low) / ((high - low) or 1.0)


def _window(data: Any) -> Window | None:
    """Return a file's first window; None if it has none that can be used."""
    center, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(data.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    return Window(center, width, function)


def _first(value: Any) -> float | None:
    """Return the first of one or several numbers; None if there is none."""
    if value is None or value == "":
        return None
    return float(next(iter(value)) if hasattr(value, "__iter__") else value)
