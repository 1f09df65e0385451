"""Decode image files of any size, mode and depth to bytes."""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features
from PIL.TiffImagePlugin import TiffImageFile

from pixelscope.data.formats.dicom import SUFFIX, dicom_size, is_dicom, read_dicom
from pixelscope.errors import InputError, MissingExtra
from pixelscope.imaging.convert import Range, known_range, range_text, to_eight_bits, to_srgb, type_range

Values = NDArray[np.generic]

_COLOUR = ("RGB", "RGBA", "LA")
"""Pillow modes of 16-bit colour, which drop the low byte."""

_STARTS = (b"\x89PNG", b"II", b"MM", b"P2", b"P5", b"Pf", b"PF", b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51")
"""First bytes of the formats that can have more than 8 bits."""


_RUN = 16
"""Files per task of a thread, because handing over a task takes longer than reading one file."""

Result = TypeVar("Result")


RANGE = "--data.range LOW HIGH"
"""Option of a training that gives the range of values, for messages."""


@dataclass(frozen=True)
class Depth:
    """Value range of the images deeper than 8 bits in a set."""

    low_high: Range | None
    """Values mapped to 0 and 255; None if no image is deeper than 8 bits."""
    count: int
    """Number of deep images."""
    of: int
    """Number of all images."""

    def note(self, option: str = RANGE) -> tuple[str, ...]:
        """Return the note that names the range; empty if all images have 8 bits."""
        if self.low_high is None or not self.count:
            return ()
        number = "The image is" if self.of == 1 else f"All {self.of:,} images are"
        if self.count < self.of:
            number = f"{self.count:,} of {self.of:,} images {'is' if self.count == 1 else 'are'}"
        values = f"values of {range_text(self.low_high)} became 0 to 255"
        return (f"{number} deeper than 8 bits: {values}; {option} sets another range.",)


def map_files(function: Callable[[Path], Result], paths: Sequence[Path]) -> list[Result]:
    """Return the result of `function` for each file, in order; several threads take some files each at a time."""
    runs = [paths[start : start + _RUN] for start in range(0, len(paths), _RUN)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(chain.from_iterable(pool.map(lambda run: [function(path) for path in run], runs)))


def is_deep(image: Image.Image) -> bool:
    """Return whether an opened image, not yet decoded, has more than 8 bits per value."""
    return image.mode.startswith(("I", "F")) or _is_deep_colour(image)


def deep_values(image: Image.Image, file: Path | io.BytesIO) -> Values:
    """Return the values of a deep image, (H, W), or (H, W, 3 or 4) in RGB; raises ValueError if one is not finite."""
    if not _is_deep_colour(image):
        values = without_inversion(image, np.asarray(image))
    else:
        content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.ndim != 3:
            raise ValueError("its 16-bit colours cannot be decoded")
        values = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it has values that are not finite (NaN or infinite)")
    return values


def without_inversion(image: Image.Image, values: Values) -> Values:
    """Return grey values, of which 0 is black: a TIFF can have 0 for white, which Pillow inverts at 8 bits alone."""
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(_PHOTOMETRIC) != 0:
        return values
    bits = int(image.tag_v2[_BITS_PER_SAMPLE][0])
    if bits > 16 or image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] != 1:
        raise ValueError("0 is white in it, which is read of unsigned integers of up to 16 bits alone")
    return ((1 << bits) - 1 - values.astype(np.int64)).astype(values.dtype)


def refuse_signed_bytes(image: Image.Image) -> None:
    """Raise ValueError for a TIFF of signed bytes, which Pillow takes for unsigned ones."""
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == 2 and not is_deep(image):
        raise ValueError("its values are signed bytes")


def is_deep_file(path: Path) -> bool:
    """Return whether a file has more than 8 bits per value; call it within `reject_decompression_bombs`."""
    return _extremes(path, decode=False) is not None


def _extremes(path: Path, decode: bool) -> tuple[float, float, bool] | None:
    """Return minimum and maximum of a deep image, and whether its values are integers; None if it is not deep."""
    try:
        with path.open("rb") as file:
            start = file.read(26)
        if not start.startswith(_STARTS) or (start.startswith(b"\x89PNG") and start[24:25] != b"\x10"):
            return None
        with Image.open(path, formats=_FORMATS) as image:
            if not is_deep(image):
                return None
            values = deep_values(image, path) if decode else np.zeros(1)
            transparent = image.info.get("transparency")
    except Exception:  # noqa: BLE001 - decoders raise any exception; reading the file reports it
        return None
    colours = values[..., :3] if values.ndim == 3 else _visible(values, transparent)
    return float(colours.min()), float(colours.max()), values.dtype.kind != "f"


def _visible(values: Values, transparent: object) -> Values:
    """Return the grey values that are not transparent; all, if all are."""
    shown = values[values != transparent] if isinstance(transparent, int) else values
    return shown if shown.size else values


def _is_deep_colour(image: Image.Image) -> bool:
    # Decoding removes the tiles, so this is checked before.
    return image.mode in _COLOUR and bool(re.search(r"[A-Z];16", str([tile[3] for tile in getattr(image, "tile", ())])))


_PHOTOMETRIC, _BITS_PER_SAMPLE, _SAMPLE_FORMAT = 262, 258, 339
"""Tags of TIFF: whether 0 is white (0) or black (1); bits per value; whether values are unsigned (1), signed (2) or floats."""

_OPTIONAL = {"jpg_2000": ("JPEG2000", ".jp2"), "avif": ("AVIF", ".avif")}
"""Formats that some builds of Pillow lack: feature name, format and file suffixes."""

_READ = [_OPTIONAL[name] for name in _OPTIONAL if name in features.get_supported()]

SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
        SUFFIX,
        *(suffix for _, suffix in _READ),
    )
)
"""Suffixes of image files, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM", *(name for name, _ in _READ))
"""Pillow formats to try, whatever a file's suffix; Pillow has others, some of which start external programs."""

Bytes = NDArray[np.uint8]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that turns an image upright, by EXIF orientation."""

MOST_PIXELS = "PIXELSCOPE_MAX_PIXELS"
"""Environment variable with the largest number of pixels of an image that is decoded."""

_WIDTH, _HEIGHT = ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength

_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))

_CHUNK = 512
"""Images decoded per block."""

_HEAD = 512
"""Bytes at the start of a file that show whether it can have several images."""

_PAGED = (b"II", b"MM", b"GIF8", b"RIFF")
"""First bytes of TIFF, GIF and WebP; an animated PNG has a chunk acTL, an animated AVIF the brand avis."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""Exceptions of converting an image with a damaged palette or transparency."""


def read_image(path: Path, size: int | None = None, value_range: Range | None = None) -> Bytes:
    """Read an image as grey or RGB bytes.

    EXIF rotation is applied, 8-bit images with an ICC profile are converted to sRGB, and transparent images are composited on
    white. DICOM files (extra `dicom`) are read through their own window; see `read_dicom`. Images deeper than 8 bits are scaled
    from `value_range`. By default this is the range of their type: 16 bits; for floats 0 to 1, -1 to 1, 0 to 255, or the
    image's own minimum and maximum. A set of images has one range; see `depth_of`.

    Args:
        path: the file.
        size: side in pixels of the returned square: the shorter side is resized to `size`, antialiased, and the centre of the
            longer one is cropped. None keeps the image's size.
        value_range: values mapped to black and white in an image deeper than 8 bits.

    Returns:
        uint8, shape (H, W, 1) or (H, W, 3).

    Raises:
        InputError: the file cannot be read.
    """
    with reject_decompression_bombs():
        return decode(path, size, value_range)


def depth_of(paths: Sequence[Path], value_range: Range | None = None, option: str = RANGE) -> Depth:
    """Return how many files are deeper than 8 bits, and their range: `value_range`, or the smallest range that fits.

    Unreadable files are skipped. `option` is what gives a range, for the message.

    Raises:
        InputError: integers and floats are mixed, and no range is given.
    """
    with reject_decompression_bombs():
        found = map_files(lambda path: _extremes(path, decode=value_range is None), paths)
    deep = [(path, *extremes) for path, extremes in zip(paths, found, strict=True) if extremes is not None]
    if value_range is not None or not deep:
        return Depth(value_range if deep else None, len(deep), len(paths))
    integers = [path for path, _, _, whole in deep if whole]
    if integers and len(integers) < len(deep):
        other = next(path for path, _, _, whole in deep if not whole)
        raise InputError(
            f"{integers[0]} has integers and {other} floating-point values, which share no range; give one with "
            f"{option}, or use them separately."
        )
    lowest, highest = min(one[1] for one in deep), max(one[2] for one in deep)
    return Depth(known_range(lowest, highest, bool(integers)) or (lowest, highest), len(deep), len(paths))


def read_images(
    paths: Sequence[Path], size: int | None = None, value_range: Range | None = None
) -> Iterator[Bytes | InputError]:
    """Yield many images as `read_image` returns them, in order, decoded by several threads; an error is yielded, not raised."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            with reject_decompression_bombs():
                chunk = list(pool.map(lambda path: _try_decode(path, size, value_range), paths[start : start + _CHUNK]))
            yield from chunk


def read_all(paths: Sequence[Path], size: int | None = None) -> Bytes:
    """Read many images into one array (N, H, W, C); C is 1 if all are grey, else 3.

    Raises:
        InputError: an image cannot be read; or `size` is None and images differ in size.
    """
    images, errors = read_readable(paths, size)
    if errors:
        raise errors[min(errors)]
    return images


def read_readable(
    paths: Sequence[Path], size: int | None = None, value_range: Range | None = None
) -> tuple[Bytes, dict[int, InputError]]:
    """Read all readable images into one array (N, H, W, C); C is 1 if all are grey, else 3.

    Returns:
        The array, and the errors of the other images by their position in `paths`.

    Raises:
        InputError: `size` is None and images differ in size.
    """
    images, errors, channels = np.empty((0, 0, 0, 3), np.uint8), {}, 1
    filled = 0
    for position, image in enumerate(read_images(paths, size, value_range)):
        if isinstance(image, InputError):
            errors[position] = image
            continue
        if not filled:
            images = np.empty((len(paths), *image.shape[:2], 3), np.uint8)
        if image.shape[:2] != images.shape[1:3]:
            raise InputError(
                f"{paths[position]} is {_size(image)}, but earlier images are {_size(images[0])}; give a size to resize all."
            )
        images[filled] = image
        channels = max(channels, image.shape[2])
        filled += 1
    return np.ascontiguousarray(images[:filled, ..., :channels]), errors


def is_flat(image: Bytes) -> bool:
    """Return whether an image (H, W, C) has a single colour."""
    return bool(image.size) and bool((image == image[0, 0]).all())


def open_image(file: Path | io.BytesIO) -> Image.Image:
    """Open an image of a known format without decoding it; call it within `reject_decompression_bombs`."""
    image = Image.open(file, formats=_FORMATS)
    if isinstance(image, TiffImageFile):
        # Pillow 13 maps an uncompressed file into memory by its upright size, which scrambles one that is stored sideways.
        image.filename = ""
    return image


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an upright image, without decoding it; None if the file is unreadable."""
    try:
        if path.suffix.lower() == SUFFIX:
            return dicom_size(path)
        with reject_decompression_bombs(), Image.open(path, formats=_FORMATS) as image:
            width, height = _stored_size(image)
            return (height, width) if upright_turn(image) in _SIDEWAYS else (width, height)
    except Exception:  # noqa: BLE001 - decoders raise anything, see `_loaded`
        return None


def further_pages(paths: Sequence[Path]) -> dict[Path, int]:
    """Return the files with several images, such as a scanned TIFF or an animated GIF, and how many follow the first.

    A preview or depth map inside a JPEG does not count.
    """
    with reject_decompression_bombs():
        counts = map_files(pages_after_first, paths)
    return {path: count for path, count in zip(paths, counts, strict=True) if count}


def pages_after_first(path: Path) -> int:
    """Return how many images follow a file's first; call it within `reject_decompression_bombs`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if not head.startswith(_PAGED) and head[4:12] != b"ftypavis" and b"acTL" not in head:
                return 0
        with Image.open(path, formats=_FORMATS) as image:
            return getattr(image, "n_frames", 1) - 1
    except Exception:  # noqa: BLE001 - decoders raise anything, see `_loaded`
        return 0


@contextmanager
def reject_decompression_bombs() -> Iterator[None]:
    """Refuse enormous images within the block; enter it before starting threads that call `decode`.

    The limit is Pillow's, 89 million pixels, or the number in $PIXELSCOPE_MAX_PIXELS.
    """
    # Pillow raises an error above twice its limit and warns above the limit; here both are errors. Warning filters and the
    # limit apply to the whole process, so this block encloses the threads.
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = _most_pixels(before)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            warnings.filterwarnings("ignore", module="pydicom")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _most_pixels(default: int | None) -> int | None:
    given = os.environ.get(MOST_PIXELS, "")
    if not given:
        return default
    try:
        most = int(float(given))
    except (ValueError, OverflowError):
        most = 0
    if most < 1:
        raise InputError(f"${MOST_PIXELS} is {given!r}; give the largest number of pixels of an image, for example 400000000.")
    return most


def _try_decode(path: Path, size: int | None, value_range: Range | None) -> Bytes | InputError:
    try:
        return decode(path, size, value_range)
    except InputError as error:
        return error


def decode(path: Path, size: int | None = None, value_range: Range | None = None, content: bytes | None = None) -> Bytes:
    """Read an image as `read_image` does; call it within `reject_decompression_bombs`.

    content: the file's content, if it is read already.
    """
    try:
        return _to_bytes(_prepare(_loaded(_source(path, content), size), size, value_range))
    except (_Damaged, *_UNREADABLE) as error:
        raise _unreadable(path, error) from None


def decode_halved(
    path: Path, least: int, value_range: Range | None = None, content: bytes | None = None
) -> tuple[Bytes, tuple[int, int]]:
    """Read an image as `decode` does, at half its size if it is a JPEG and its shorter side stays at least `least` pixels.

    The halves of odd sides are rounded up.

    Returns:
        The image, and the width and height of the whole one.
    """
    try:
        loaded = _loaded(_source(path, content), None, least=least)
        return _to_bytes(_prepare(loaded, None, value_range)), loaded.size
    except (_Damaged, *_UNREADABLE) as error:
        raise _unreadable(path, error) from None


def load_stored(path: Path, content: bytes | None = None) -> tuple[Image.Image | Values, Image.Transpose | None]:
    """Return an image as stored, and the transposition that turns it upright; a deep image as its values (H, W[, 3 or 4]).

    Call it within `reject_decompression_bombs`.

    Args:
        path: the file.
        content: its content, if it is read already.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        loaded = _loaded(_source(path, content), None)
    except _Damaged as error:
        raise _unreadable(path, error) from None
    return loaded.image if loaded.values is None else loaded.values, loaded.turn


def decode_bytes(
    content: bytes, size: int | None = None, most_pixels: int = 30_000_000, value_range: Range | None = None
) -> Bytes:
    """Read an image from memory as `read_image` does; its size is checked before it is decoded.

    Raises:
        InputError: it has no known format, has more than `most_pixels`, or is damaged.

    Example:
        >>> pixelscope.decode_bytes(Path("photo.jpg").read_bytes(), size=32).shape
        (32, 32, 3)
    """
    try:
        return _to_bytes(_prepare(_loaded(io.BytesIO(content), size, most_pixels), size, value_range))
    except InputError:
        raise
    except (_Damaged, *_UNREADABLE) as error:
        fix = "a smaller one" if _is_bomb(error) else "a PNG, JPEG or other photo"
        raise InputError(f"The file cannot be read: {_reason(error, most_pixels)}; give {fix}.") from None


def read_content(path: Path) -> bytes | None:
    """Return the content of a file; None if it cannot be read, which `decode` explains."""
    try:
        return None if path.is_fifo() else path.read_bytes()
    except OSError:
        return None


def _source(path: Path, content: bytes | None) -> Path | io.BytesIO:
    return path if content is None else io.BytesIO(content)


class _Damaged(Exception):
    """A decoder failed; the cause is its exception."""


@dataclass(frozen=True)
class _Loaded:
    """A decoded image."""

    image: Image.Image
    turn: Image.Transpose | None
    """Transposition that turns it upright."""
    values: Values | None
    """Values of an image deeper than 8 bits."""
    size: tuple[int, int]
    """Width and height of the whole image, upright."""


def _loaded(file: Path | io.BytesIO, size: int | None, most_pixels: int | None = None, least: int | None = None) -> _Loaded:
    """Decode an image.

    Decoders raise many exceptions on damaged files (TypeError, struct.error, OverflowError, MemoryError, ...). Only Pillow
    runs here, so that every exception is turned into `_Damaged`.
    """
    try:
        if isinstance(file, Path) and file.is_fifo():
            # Opening it would wait for a program that writes to it.
            raise ValueError("it is a pipe and no file")
        if _is_dicom(file):
            found = read_dicom(file, most_pixels or Image.MAX_IMAGE_PIXELS)
            return _Loaded(found, None, None, found.size)
        with open_image(file) as image:
            if most_pixels is None or image.width * image.height <= most_pixels:
                refuse_signed_bytes(image)
                width, height = _stored_size(image)
                if least is not None and min(width, height) >= 2 * least:
                    image.draft(None, (width // 2, height // 2))
                if size is not None:
                    # JPEG is decoded at a half, quarter or eighth, still at least twice what is needed.
                    image.draft(None, (2 * size, 2 * size))
                # OpenCV, which reads deep colours, turns a TIFF upright itself.
                done = image.format == "TIFF" and _is_deep_colour(image)
                turned = upright_turn(image) if image.format == "TIFF" else None
                values = deep_values(image, file) if is_deep(image) else None
                image.load()
                # Not before: reading the EXIF data of a PNG decodes it, and then its depth is unknown; and Pillow, since
                # version 11, turns a TIFF upright itself, which then has no orientation any more.
                turn = upright_turn(image)
                size_upright = (height, width) if (turn or turned) in _SIDEWAYS else (width, height)
                return _Loaded(image, None if done else turn, values, size_upright)
    except Exception as error:
        raise _Damaged from error
    limit = f"{most_pixels / 1e6:.0f} million pixels"
    raise InputError(f"The image is {image.width} x {image.height}, over {limit}; give a smaller one.")


def _is_dicom(file: Path | io.BytesIO) -> bool:
    """Return whether a .dcm file, or content in memory, begins as DICOM does."""
    if isinstance(file, io.BytesIO):
        return is_dicom(file.getbuffer()[:132].tobytes())
    if file.suffix.lower() != SUFFIX:
        return False
    with file.open("rb") as opened:
        return is_dicom(opened.read(132))


def _prepare(loaded: _Loaded, size: int | None, value_range: Range | None) -> Image.Image:
    transparent = loaded.image.info.get("transparency")
    image = to_srgb(loaded.image) if loaded.values is None else _scaled(loaded.values, value_range, transparent)
    upright = _eight_bit(image if loaded.turn is None else image.transpose(loaded.turn))
    return upright if size is None else _square(upright, size)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image as stored; newer versions of Pillow give those of the upright TIFF."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    return tags.get(_WIDTH, image.width), tags.get(_HEIGHT, image.height)


def upright_turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns an opened image upright, by its EXIF orientation; None if it needs none."""
    # ImageOps.exif_transpose would also rewrite the EXIF data, and fail on images with other damaged entries.
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return the image in mode L or RGB."""
    if "A" in image.mode.upper() or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        return flat.convert("L") if image.mode in ("L", "LA", "La", "1") else flat
    mode = "L" if image.mode in ("L", "1") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _scaled(values: Values, value_range: Range | None, transparent: object = None) -> Image.Image:
    """Return deep values as an 8-bit image; an alpha channel has 16 bits, and a grey value that is transparent is white."""
    colours, whole = values[..., :3] if values.ndim == 3 else values, values.dtype.kind != "f"
    shown = colours if values.ndim == 3 else _visible(values, transparent)
    lowest, highest = float(shown.min()), float(shown.max())
    low_high = value_range or type_range(lowest, highest, whole)
    if whole and low_high[1] <= 1 < highest:
        raise ValueError(f"its values are integers up to {highest:g}, and the range is one of floating-point values")
    scaled = to_eight_bits(colours, low_high)
    if values.ndim == 2 and isinstance(transparent, int):
        scaled[values == transparent] = 255
    if values.ndim == 3 and values.shape[2] == 4:
        scaled = np.concatenate([scaled, to_eight_bits(values[..., 3:], (0, 65535))], axis=2)
    return Image.fromarray(scaled)


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Not the `box` of resize(): with it the filter would include pixels outside the square.
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def _to_bytes(image: Image.Image) -> Bytes:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _size(image: Bytes) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _unreadable(path: Path, error: BaseException) -> InputError:
    if isinstance(error.__cause__, MissingExtra):
        return InputError(f"Cannot read the image {path}: {error.__cause__}")
    fix = "repair or remove it"
    if _is_bomb(error):
        fix = f"set {MOST_PIXELS} to a larger number if you trust its source, or remove it"
    elif isinstance(_cause(error), FileNotFoundError | IsADirectoryError):
        fix = "give an image file"
    return InputError(f"Cannot read the image {path}: {_reason(error)}; {fix}.")


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, _Damaged) and error.__cause__ is not None else error


def _is_bomb(error: BaseException) -> bool:
    """Return whether an image was refused because it has too many pixels."""
    return isinstance(_cause(error), (Image.DecompressionBombError, Image.DecompressionBombWarning))


def _reason(error: BaseException, most_pixels: int | None = None) -> str:
    error = _cause(error)
    text = " ".join(str(error).split())
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format"
    if _is_bomb(error):
        pixels = int(text.partition("(")[2].split()[0])  # Pillow's text: Image size (N pixels) exceeds ...
        return f"it has {pixels:,} pixels, over the limit of {most_pixels or Image.MAX_IMAGE_PIXELS or 0:,}"
    return getattr(error, "strerror", None) or text or type(error).__name__
