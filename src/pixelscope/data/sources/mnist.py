"""MNIST from its four idx files, plain or compressed, downloaded if absent."""

import gzip
import hashlib
import logging
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.errors import InputError, MissingExtra
from pixelscope.imaging.resize import resize
from pixelscope.runs.progress import ProgressBar, ProgressCallback

if TYPE_CHECKING:
    from requests import RequestException

CLASSES = tuple("0123456789")
LICENCE = "CC BY-SA 3.0"
CITATION = "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998"

MNIST_SHA256 = "1934b35f0e63b63d9aa4885cee58aab705a6fb58d24c643a28acbe7f073b4b0a"
"""`ImageSet.digest` of MNIST, 28 x 28 with labels; the collection whose items the distributed MNIST-M shows."""

TITLE = "MNIST, handwritten digits"
OTHER_TITLE = "Digits or other images in MNIST's format"
OTHER_NOTE = (
    "These are not the images of MNIST (their digest differs), although the files have its names; the classes are the numbers "
    "0 to 9 of the label files."
)

Bytes = NDArray[np.uint8]

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def load_mnist(folder: Path, size: int | None = 32) -> ImageSet:
    """Read MNIST in its canonical order: the 60,000 training digits, then the 10,000 test digits.

    Args:
        folder: folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
            each plain or .gz.
        size: side in pixels to which the digits (28 x 28) are resized; None keeps it.

    Returns:
        Grey images (N, 1, H, W), with MNIST's own split as test flags. The collection is the digest of the digits before
        resizing, so that other images in this format (Fashion-MNIST) are another collection. Title, licence and citation are
        MNIST's if this digest is.

    Raises:
        InputError: a file is missing, truncated or of another format, or counts differ.
    """
    parts = [_read_pair(folder, *names) for names in _FILES.values()]
    (train, _), (test, _) = parts
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"{folder}: training digits are {_size(train)} and test digits {_size(test)}; use four files of one set."
        )
    own_size = ImageSet(
        images=np.concatenate([train, test])[:, None],
        provenance=Provenance(f"mnist:{folder}", OTHER_TITLE, notes=(OTHER_NOTE,)),
        labels=np.concatenate([labels for _, labels in parts]).astype(np.int64),
        classes=CLASSES,
        names=[f"{part}/{i:05d}" for part, count in (("train", len(train)), ("test", len(test))) for i in range(count)],
        test=np.arange(len(train) + len(test)) >= len(train),
    )
    images, digest = own_size.in_memory(), own_size.digest()
    return replace(
        own_size,
        images=images if size is None else resize(images, size),
        provenance=_origin(folder) if digest == MNIST_SHA256 else own_size.provenance,
        collection=digest,
        items=np.arange(len(images)),
    )


def _origin(folder: Path) -> Provenance:
    return Provenance(f"mnist:{folder}", TITLE, LICENCE, CITATION)


def with_known_digits(images: ImageSet) -> ImageSet:
    """Return MNIST from another format (arrays) as items of MNIST's collection; other images are returned unchanged."""
    if images.collection is not None or tuple(images.images.shape) != (70_000, 1, 28, 28) or images.digest() != MNIST_SHA256:
        return images
    return replace(images, collection=MNIST_SHA256, items=np.arange(len(images)))


def is_mnist(folder: Path) -> bool:
    """Return whether `folder` has any of MNIST's four files."""
    return any(_find(folder, name) for names in _FILES.values() for name in names)


def folder_in(root: Path) -> Path:
    """Return the folder of MNIST in a data root, downloaded if absent."""
    folder = root / "mnist"
    complete = all(_find(folder, name) for names in _FILES.values() for name in names)
    return folder if complete else download_mnist(folder)


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an idx file of bytes with `dimensions` dimensions, plain or .gz.

    Raises:
        InputError: the file is truncated, too long, or not an idx file of bytes.
    """
    content = _read_bytes(path)
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise InputError(
            f"{path} starts with {content[:4].hex(' ') or 'nothing'}, not with the {magic.hex(' ')} of an idx file of "
            f"{dimensions}-dimensional bytes; put the original file there."
        )
    if len(content) < header:
        raise InputError(f"{path} is truncated within its header; download it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected, found = math.prod(shape), len(content) - header
    if found < expected:
        raise InputError(f"{path} is truncated: it has {found} of {expected} bytes of data; download it again.")
    if found > expected:
        raise InputError(f"{path} has {found - expected} bytes more than its header states; download it again.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_pair(folder: Path, images_name: str, labels_name: str) -> tuple[Bytes, Bytes]:
    images_file, labels_file = _require(folder, images_name), _require(folder, labels_name)
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels):
        raise InputError(
            f"{images_file.name} has {len(images)} images but {labels_file.name} {len(labels)} labels; "
            f"use two files of one set ({folder})."
        )
    if not images.size:
        raise InputError(f"{images_file} has no images; put the original file there.")
    if labels.max() > 9:
        raise InputError(f"{labels_file} has the label {labels.max()}, and MNIST's labels are 0 to 9; download it again.")
    return images, labels


def _require(folder: Path, name: str) -> Path:
    file = _find(folder, name)
    if file is None:
        raise InputError(f"There is no {name} (plain or .gz) in {folder}; put MNIST's four idx files there.")
    return file


def _find(folder: Path, name: str) -> Path | None:
    # Some mirrors write train-images.idx3-ubyte, with a dot.
    stems = (name, name.replace("-idx", ".idx"))
    candidates = [folder / f"{stem}{suffix}" for suffix in ("", ".gz") for stem in stems]
    return next((file for file in candidates if file.is_file()), None)


def _read_bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except EOFError:
        raise InputError(f"{path} is truncated: its compressed data has no end; download it again.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is not a valid .gz file ({error}); download it again.") from None


def _size(images: Bytes) -> str:
    return f"{images.shape[2]} x {images.shape[1]}"


MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

MNIST_FILES_SHA256: Mapping[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of MNIST's files, uncompressed: mirrors compress the same bytes differently."""

_TIMEOUT = 30
"""Seconds without a response after which an address is unreachable."""


def download_mnist(folder: Path, base_url: str = MNIST_URL, sha256: Mapping[str, str] = MNIST_FILES_SHA256) -> Path:
    """Download the four compressed files of MNIST into `folder`; existing files are kept.

    Args:
        folder: folder to make.
        base_url: prefix of the addresses.
        sha256: hash of each uncompressed file.

    Returns:
        `folder`.

    Raises:
        InputError: the address is unreachable, or a file differs; it is not kept.
    """
    alternative = f"put MNIST's four idx files into {folder} yourself, or name the folder that has them as mnist:DIR"
    for name, digest in sha256.items():
        fetch(f"{base_url}{name}.gz", folder / f"{name}.gz", digest, alternative)
    return folder


def fetch(url: str, file: Path, sha256: str, alternative: str) -> Path:
    """Download a .gz `url` to `file`, unless it exists; the file appears only if its uncompressed bytes have the hash
    `sha256`.

    Raises:
        InputError: the address is unreachable, or the bytes differ; the message ends with `alternative`.
    """
    try:
        import pooch
        from requests import RequestException
    except ImportError:
        raise MissingExtra("Downloads", "train") from None
    # pooch logs the hash of a downloaded file; this is not shown, because the hash is verified here.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, known_hash=None, fname=file.name, path=file.parent, downloader=_verified(sha256))
    except RequestException as error:
        raise InputError(f"Cannot download {url} ({_reason(error)}); try again later, or {alternative}.") from None
    except _OtherBytesError:
        raise InputError(f"{url} gave unexpected bytes, which were discarded; try again later, or {alternative}.") from None
    return file


class _OtherBytesError(Exception):
    """The downloaded bytes have another hash."""


def _verified(sha256: str) -> Any:
    """Return a downloader for pooch that fails if the uncompressed bytes differ, before the file is put in place."""
    import pooch

    def download(url: str, output: str, manager: object) -> None:
        with ProgressBar(f"downloading {url.rpartition('/')[2]} (KiB)") as progress:
            shown = _KibibytesDone(progress)  # pooch takes a bar as well as a bool; its annotation names the bool alone
            pooch.HTTPDownloader(timeout=_TIMEOUT, progressbar=shown)(url, output, manager)  # pyright: ignore[reportArgumentType]
        if _unpacked_sha256(Path(output)) != sha256:
            raise _OtherBytesError

    return download


class _KibibytesDone:
    """Progress bar with pooch's interface that updates ours."""

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress, self._done, self.total = progress, 0, 0

    def update(self, size: int) -> None:
        self._done += size
        self._progress(self._done // 1024, self.total // 1024)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Do nothing: the bar ends with its block."""


def _unpacked_sha256(file: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with gzip.open(file) as unpacked:
            while chunk := unpacked.read(1 << 20):
                digest.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def _reason(error: "RequestException") -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    return "no connection" if "Connection" in type(error).__name__ else type(error).__name__
