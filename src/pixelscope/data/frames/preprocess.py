"""Prepare one decoded frame and its mask: content area, insets, resize; and the intermediate stages, for figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.decode import decode, decode_halved, load_stored, reject_decompression_bombs
from pixelscope.data.frames.view import CENTRE_SIZE, require_centre
from pixelscope.errors import InputError
from pixelscope.imaging.box import Box
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import find_content_area, otsu_stages
from pixelscope.imaging.insets import Inset, find_insets, inpaint

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Value = TypeVar("Value", np.uint8, np.float32)

_HALVED = 4
"""A frame is decoded at half its size if the half's shorter side is at least this many times the side of its square."""


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A prepared frame: the square in its content area."""

    frame: Bytes
    """uint8, shape (size, size, 3)."""
    inset: Bytes
    """uint8, shape (size, size): 1 where any source pixel that contributes to this output pixel lies inside an inset."""
    lesion: Bytes
    """uint8, shape (size, size): 1 where more than half of the source area lies inside the lesion."""
    content: Box
    """Content area in the original; the frame is its `centre_square()`."""
    insets: tuple[Inset, ...]
    """Insets in the original."""
    size: tuple[int, int]
    """Width and height of the original."""


@dataclass(frozen=True, eq=False)
class CentreFrame:
    """The centre view of a frame, `view.centre_box`; S is `view.CENTRE_SIZE`."""

    frame: Bytes
    """uint8, shape (S, S, 3)."""
    inset: Bytes
    """uint8, shape (S, S), as in `PreparedFrame`."""
    lesion: Bytes
    """uint8, shape (S, S), as in `PreparedFrame`."""


@dataclass(frozen=True, eq=False)
class FrameImage:
    """A decoded frame; one far larger than its square is decoded at half its size."""

    pixels: Bytes
    """uint8, shape (H, W, 3), RGB."""
    size: tuple[int, int]
    """Width and height of the whole frame."""

    @property
    def factor(self) -> int:
        """Return the side of a pixel in pixels of the whole frame: 1 or 2."""
        return 1 if self.size == (self.pixels.shape[1], self.pixels.shape[0]) else 2

    def in_whole(self, box: Box) -> Box:
        """Return a rectangle of these pixels in pixels of the whole frame."""
        factor, whole = self.factor, Box(0, 0, *self.size)
        return Box(factor * box.left, factor * box.top, factor * box.width, factor * box.height).intersection(whole)


def read_frame(path: Path, config: PrepareConfig, content: bytes | None = None) -> FrameImage:
    """Read a frame with three channels; call it within `reject_decompression_bombs`.

    Args:
        path: the file.
        config: size of its square, and range of deep values.
        content: the file's content, if it is read already.

    Raises:
        InputError: the file cannot be read.
    """
    pixels, size = decode_halved(path, _HALVED * config.size, config.range, content)
    return FrameImage(three_channels(pixels), size)


def read_whole(path: Path, config: PrepareConfig, content: bytes | None = None) -> Bytes:
    """Read a frame at its own size, uint8 (H, W, 3); arguments and errors as for `read_frame`."""
    return three_channels(decode(path, value_range=config.range, content=content))


def three_channels(image: Bytes) -> Bytes:
    """Return a decoded image (H, W, 1) or (H, W, 3) with three channels."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def prepare_file(path: Path, config: PrepareConfig) -> PreparedFrame:
    """Read and prepare a frame; call it within `reject_decompression_bombs`."""
    return _prepared(read_frame(path, config), None, config)


def prepare_views(path: Path, config: PrepareConfig) -> tuple[PreparedFrame, CentreFrame]:
    """Read a frame and prepare both views, as in a store; call it within `reject_decompression_bombs`.

    Raises:
        InputError: the file cannot be read, or its content area is too small for the centre view.
    """
    image = read_frame(path, config)
    prepared = _prepared(image, None, config)
    whole = image.pixels if image.factor == 1 else read_whole(path, config)
    return prepared, cut_centre(whole, None, prepared, config)


def prepare_frame(original: Bytes, lesion: Mask | None, config: PrepareConfig) -> PreparedFrame:
    """Find the content area and insets of a frame, cut the square out, resize it, and fill the insets if so configured.

    Args:
        original: uint8, shape (H, W, 3), RGB.
        lesion: bool, shape (H, W); None if the frame has no mask.
        config: size, method and treatment of insets.
    """
    return _prepared(FrameImage(original, (original.shape[1], original.shape[0])), lesion, config)


def _prepared(image: FrameImage, lesion: Mask | None, config: PrepareConfig) -> PreparedFrame:
    content = find_content_area(image.pixels, config.method)
    return cut_square(image, lesion, content, find_insets(image.pixels, content), config)


def cut_square(
    image: FrameImage, lesion: Mask | None, content: Box, insets: Sequence[Inset], config: PrepareConfig
) -> PreparedFrame:
    """Do what `prepare_frame` does once content area and insets are found in the image's pixels.

    lesion: bool, shape of the whole frame.
    """
    square = content.centre_square()
    frame, inset = _resized(image.pixels, square, insets, config.size, config)
    inside = None if lesion is None else lesion[:: image.factor, :: image.factor][square.slices]
    return PreparedFrame(
        frame=frame,
        inset=inset,
        lesion=_covered(inside, config.size),
        content=image.in_whole(content),
        insets=tuple(Inset(inset.kind, image.in_whole(inset.box)) for inset in insets),
        size=image.size,
    )


def cut_centre(whole: Bytes, lesion: Mask | None, prepared: PreparedFrame, config: PrepareConfig) -> CentreFrame:
    """Cut the centre view out of a frame decoded at its own size, with one resampling, whatever that size is.

    A frame decoded at half its size is never used here: it would have gone through two resamplings, and others through one.

    Args:
        whole: uint8, shape (H, W, 3), RGB.
        lesion: bool, shape (H, W); None if the frame has no mask.
        prepared: content area and insets of the frame.
        config: treatment of insets.

    Raises:
        InputError: the content area is too small.
    """
    square = require_centre(prepared.content)
    frame, inset = _resized(whole, square, prepared.insets, CENTRE_SIZE, config)
    return CentreFrame(frame, inset, _covered(None if lesion is None else lesion[square.slices], CENTRE_SIZE))


def _resized(pixels: Bytes, square: Box, insets: Sequence[Inset], size: int, config: PrepareConfig) -> tuple[Bytes, Bytes]:
    """Return a square of a frame resized, uint8 (size, size, 3), and which pixels insets touch, uint8 (size, size)."""
    frame = resize_square(pixels[square.slices], size)
    inset = _touched([inset.box for inset in insets], square, size)
    if config.insets == "inpaint" and inset.any():
        # After the black border is cut off, which would flow into the fill, and at the small size, where it is quick.
        frame = inpaint(frame, inset > 0)
    return frame, inset


def is_black(frame: Bytes) -> bool:
    """Return whether a prepared frame is black: no value above JPEG noise."""
    return int(frame.max()) <= 16


def resize_square(square: NDArray[Value], size: int) -> NDArray[Value]:
    """Resize uint8 (H, H, 3) or (H, H), or float32 (H, H), to `size`, bilinear and antialiased.

    The same filter as in `pixelscope.imaging.resize`: a weighted mean whose weights fall linearly to 0 at twice the pixel's
    width. OpenCV's bilinear filter is not antialiased, and its area mean is exact only for integer factors.
    """
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def _covered(inside: Mask | None, size: int) -> Bytes:
    """Return uint8 (size, size): 1 where more than half of the contributing source pixels is inside."""
    if inside is None or not inside.any():
        return np.zeros((size, size), np.uint8)
    return (resize_square(inside.astype(np.float32), size) > 0.5).astype(np.uint8)


def _touched(boxes: Sequence[Box], square: Box, size: int) -> Bytes:
    """Return uint8 (size, size): 1 where any of the contributing source pixels is inside one of the boxes."""
    touched = np.zeros((size, size), np.uint8)
    for box in boxes:
        rows = _reached(box.top - square.top, box.height, square.height, size)
        columns = _reached(box.left - square.left, box.width, square.width, size)
        touched |= np.outer(rows, columns).astype(np.uint8)
    return touched


def _reached(start: int, length: int, side: int, size: int) -> Mask:
    """Return, along one side, to which of `size` pixels any of the `length` source pixels from `start` contributes."""
    inside = np.zeros((side, 1), np.float32)
    inside[max(0, start) : max(0, start + length)] = 1
    return np.asarray(Image.fromarray(inside).resize((1, size), Image.Resampling.BILINEAR))[:, 0] > 0


Bytes = NDArray[np.uint8]

_LONGEST = 320
"""Longer side in pixels of the stored originals."""


@dataclass(frozen=True, eq=False)
class Stages:
    """Intermediate results of preparing one frame; arrays and coordinates refer to the resized original."""

    position: int
    """Position in the store, which has the prepared frame."""
    original: Bytes
    """uint8, shape (H, W, 3), the longer side at most 320."""
    grey: Bytes
    """uint8, shape (H, W)."""
    threshold: float
    """Otsu's threshold on grey values, 0 to 255."""
    mask: Bytes
    """uint8, shape (H, W): 1 where the original is brighter than the threshold."""
    contour: NDArray[np.float32]
    """Shape (K, 2), x and y: the largest outer contour of the mask."""
    otsu_box: NDArray[np.float32]
    """Left, top, width, height: bounding box of the contour."""
    box: NDArray[np.float32]
    """Left, top, width, height: the content area."""


_PARTS = ("position", "original", "grey", "threshold", "mask", "contour", "otsu_box", "box")


def stages(position: int, frame: Bytes, content: Box) -> Stages:
    """Return the stages of a frame, uint8 (H, W, 3), with the content area `content`."""
    found = otsu_stages(frame)
    height, width = frame.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Stages(
        position=position,
        original=np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)),
        grey=np.asarray(Image.fromarray(found.grey).resize(size, Image.Resampling.BILINEAR)),
        threshold=float(found.threshold),
        mask=np.asarray(Image.fromarray(found.mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)),
        contour=(found.contour * scale).astype(np.float32),
        otsu_box=_scaled(found.box, scale),
        box=_scaled(content, scale),
    )


def write_stages(path: Path, frames: Sequence[Stages]) -> None:
    """Write stages as .npz, uncompressed, because compression took longer than preparing the frames."""
    arrays = {f"{i}/{part}": np.asarray(getattr(one, part)) for i, one in enumerate(frames) for part in _PARTS}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, count=np.array(len(frames)), **arrays)


def read_stages(path: Path) -> list[Stages]:
    """Read the file written by `write_stages`."""
    with np.load(path, allow_pickle=False) as file:
        rows = [{part: file[f"{i}/{part}"] for part in _PARTS} for i in range(int(file["count"]))]
    return [Stages(**{**row, "position": int(row["position"]), "threshold": float(row["threshold"])}) for row in rows]


def _scaled(box: Box, scale: float) -> NDArray[np.float32]:
    return np.array([box.left, box.top, box.width, box.height], np.float32) * np.float32(scale)


Values = NDArray[Any]
Flags = NDArray[np.bool_]

_BETWEEN = 0.01
"""Maximum fraction of a mask's pixels between its two values: JPEG leaves ripples along edges, resizing intermediate steps."""

_FEW = 16
"""Maximum number of distinct values of an uncompressed mask: low values are then labels, not ripples."""

_LOSSY = ("JPEG", "MPO")
"""Lossy formats, which cannot store labels."""

_LAST_LABEL = 32
"""Maximum value of a mask whose values can only be labels."""


def read_mask(path: Path) -> Flags:
    """Read a mask from an image file, upright.

    If there are black and other visible pixels, the inside is where the value exceeds half of the maximum. If all visible
    pixels are black, or none is, the inside is what is visible, or in a palette the indices above 0.

    Args:
        path: an image of any mode and depth.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the file cannot be read, or the mask has more than two values.
    """
    with reject_decompression_bombs():
        return decode_mask(path)


def decode_mask(path: Path, content: bytes | None = None) -> Flags:
    """Read a mask as `read_mask` does; call it within `reject_decompression_bombs`.

    content: the file's content, if it is read already.
    """
    stored, turn = load_stored(path, content)
    lossy = isinstance(stored, Image.Image) and stored.format in _LOSSY
    flags = mask_from_values(_values(stored, path), str(path), lossy)
    if turn is None:
        return flags
    return np.asarray(Image.fromarray(flags.astype(np.uint8)).transpose(turn)) > 0


def mask_from_values(values: Values, name: str, lossy: bool = False) -> Flags:
    """Return where a mask of two values has the greater one.

    Args:
        values: integers or floats of any range and shape, 0 outside.
        name: name of the mask in messages.
        lossy: whether it was stored in a lossy format.

    Raises:
        InputError: there are more than two values, except for a few in between.
    """
    used, counts = _counted(values)
    top = used.max(initial=0)
    between = counts[(used > top / 8) & (used < top - top / 8)].sum()
    if between > _BETWEEN * values.size or (not lossy and _has_labels(used)):
        named = ", ".join(f"{value:g}" for value in used) if len(used) <= _FEW else f"{len(used):,}, up to {top:g}"
        raise InputError(
            f"The mask {name} has more than two values ({named}); give a mask that is black outside and white inside."
        )
    return values > (top // 2 if values.dtype == np.uint8 else top / 2)


def _counted(values: Values) -> tuple[Values, Values]:
    """Return the different values, ascending, and the number of each."""
    if values.dtype != np.uint8 or values.ndim != 2 or not values.size:
        return np.unique(values, return_counts=True)
    counts = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()
    used = np.flatnonzero(counts)
    return used.astype(np.uint8), counts[used]


def frame_mask(path: Path, shape: tuple[int, int], content: bytes | None = None) -> Flags:
    """Return where a mask marks a lesion; call it within `reject_decompression_bombs`.

    Args:
        path: the mask's file.
        shape: height and width of the frame.
        content: the file's content, if it is read already.

    Returns:
        bool, shape (H, W).

    Raises:
        InputError: the mask cannot be read, differs from its frame in size, or has more than two values.
    """
    marked = decode_mask(path, content)
    if marked.shape != shape:
        raise InputError(
            f"The mask {path} is {marked.shape[1]} x {marked.shape[0]} and its frame {shape[1]} x {shape[0]}; give a mask of "
            "the frame's size."
        )
    return marked


def _has_labels(used: Values) -> bool:
    """Return whether the distinct values of a mask are labels of several classes."""
    top = used.max(initial=0)
    others = used[(used > 0) & (used < top)]
    if not len(others) or len(used) > _FEW:
        return False
    if used.dtype.kind != "f" and top <= _LAST_LABEL:
        return True
    # Ripples are close to both values, labels to black alone.
    return bool(others.min() <= top / 32) and not bool((others >= top - top / 8).any())


def _values(stored: Image.Image | Values, path: Path) -> Values:
    """Return the values (H, W) of a mask, 0 outside."""
    if not isinstance(stored, Image.Image):
        has_alpha = stored.ndim == 3 and stored.shape[2] == 4
        return _visible(*((stored[..., :3], stored[..., 3]) if has_alpha else (stored, None)), path)
    transparent = "A" in stored.mode.upper() or "transparency" in stored.info
    alpha = np.asarray(stored.convert("RGBA"))[..., 3] if transparent else None
    colours = np.asarray(stored.convert("L" if stored.mode in ("1", "L", "LA", "La") else "RGB"))
    if stored.mode == "P" and alpha is None and not _both_kinds(colours.max(axis=2)):
        return np.asarray(stored)
    return _visible(colours, alpha, path)


def _visible(colours: Values, alpha: Values | None, path: Path) -> Values:
    """Return the values of colours (H, W) or (H, W, 3), or the visibility if colours are all black or all not.

    Raises:
        InputError: there are several colours and none is black, so that inside and outside are ambiguous.
    """
    values = colours.max(axis=2) if colours.ndim == 3 else colours
    if alpha is None and _both_kinds(values):
        return values
    visible = np.ones(values.shape, bool) if alpha is None else alpha > np.iinfo(alpha.dtype).max // 2
    if not visible.any() or _both_kinds(values[visible]):
        return np.where(visible, values, 0)
    if not visible.all():
        return visible.astype(np.uint8)
    spread = np.ptp(colours.reshape(-1, *colours.shape[2:]).astype(np.float64), axis=0).max()
    if spread > values.max() / 2:
        raise InputError(
            f"The mask {path} has several colours and none is black; give one that is black outside, white inside."
        )
    return values


def _both_kinds(values: Values) -> bool:
    return bool(values.any()) and not bool(values.all())
