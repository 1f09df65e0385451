"""Prepare one decoded frame and its mask in both views, and keep the intermediate stages for figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.formats.decode import decode, decode_halved
from pixelscope.data.sources.masks import frame_mask
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box, find_content_area, otsu_stages
from pixelscope.imaging.insets import Inset, find_insets, inpaint

ViewName = Literal["full", "centre"]
"""`full`: the centre square of the content area. `centre`: one square inside it, see `centre_box`."""
VIEWS: tuple[ViewName, ...] = ("full", "centre")

CENTRE_LEFT, CENTRE_TOP, CENTRE_SIDE = 0.50, 0.275, 0.45
"""Left, top and side of the centre view, as fractions of the side of the content area's centre square.

Columns 0.50 to 0.95 and rows 0.275 to 0.725: no border and no corner of an octagon, nothing of the lower left, where devices
put insets and text, and no 5% margin. Insets of Kvasir's frames lie at columns below 0.36 and rows above 0.55.
"""
CENTRE_SIZE = 224
"""Side in pixels of the stored centre view."""
MIN_CENTRE = 4
"""Minimum side of the centre view in pixels of the original; of less, nothing is left to see."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class View:
    """Frames of a store in one view.

    frames: uint8, shape (N, S, S, 3), RGB.
    insets: uint8, shape (N, S, S), 1 inside an inset.
    lesions: uint8, shape (N, S, S), 1 inside a lesion.
    """

    name: ViewName
    frames: Bytes
    insets: Bytes
    lesions: Bytes


def centre_box(square: Box) -> Box:
    """Return the centre view's square in the centre square of a content area; its area is 0 in a square of 0 or 1 pixels."""
    left, top, side = (round(part * square.width) for part in (CENTRE_LEFT, CENTRE_TOP, CENTRE_SIDE))
    return Box(square.left + left, square.top + top, side, side)


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
    """The centre view of a frame, `centre_box`; S is `CENTRE_SIZE`."""

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


def prepare_file(path: Path, config: PrepareConfig, mask: Path | None = None) -> PreparedFrame:
    """Read and prepare a frame, and its mask; call it within `reject_decompression_bombs`.

    Raises:
        InputError: a file cannot be read, or the mask differs from the frame in size.
    """
    image = read_frame(path, config)
    return _prepared(image, None if mask is None else frame_mask(mask, (image.size[1], image.size[0])), config)


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
    inside = None if lesion is None else lesion[image.in_whole(square).slices]
    return PreparedFrame(
        frame=frame,
        inset=inset,
        lesion=_covered(inside, config.size),
        content=image.in_whole(content),
        insets=tuple(Inset(inset.kind, image.in_whole(inset.box)) for inset in insets),
        size=image.size,
    )


def cut_centre(whole: Bytes, lesion: Mask | None, prepared: PreparedFrame, config: PrepareConfig) -> CentreFrame:
    """Cut the centre view out of a frame decoded at its own size.

    Frames decoded at half their size are not used, because they would be resampled twice and others once.

    Args:
        whole: uint8, shape (H, W, 3), RGB.
        lesion: bool, shape (H, W); None if the frame has no mask.
        prepared: content area and insets of the frame.
        config: treatment of insets.

    Raises:
        InputError: the content area leaves fewer than `MIN_CENTRE` pixels along a side.
    """
    content = prepared.content
    square = centre_box(content.centre_square())
    if square.width < MIN_CENTRE:
        raise InputError(
            f"The content area is {content.width} x {content.height} pixels, of which the centre view shows {square.width} x "
            f"{square.height}, and at least {MIN_CENTRE} x {MIN_CENTRE} are needed; give larger frames."
        )
    frame, inset = _resized(whole, square, prepared.insets, CENTRE_SIZE, config)
    return CentreFrame(frame, inset, _covered(None if lesion is None else lesion[square.slices], CENTRE_SIZE))


def _resized(pixels: Bytes, square: Box, insets: Sequence[Inset], size: int, config: PrepareConfig) -> tuple[Bytes, Bytes]:
    """Return a square of a frame resized, uint8 (size, size, 3), and which pixels insets touch, uint8 (size, size)."""
    frame = resize_square(pixels[square.slices], size)
    inset = _touched([inset.box for inset in insets], square, size)
    if config.insets == "inpaint" and inset.any():
        # After the border is cut off, because its black would flow into the fill; at the small size, because that is faster.
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
