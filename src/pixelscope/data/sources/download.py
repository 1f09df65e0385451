"""Downloads: verified by SHA-256 before they are put in place, with a local folder as the alternative."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pooch
from requests import RequestException

from pixelscope.errors import InputError
from pixelscope.progress import ProgressBar, ProgressCallback

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

MNIST_SHA256: Mapping[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of MNIST's files unpacked: mirrors compress the same bytes differently."""

_TIMEOUT = 30
"""Seconds without an answer after which an address counts as unreachable."""


def download_mnist(folder: Path, base_url: str = MNIST_URL, sha256: Mapping[str, str] = MNIST_SHA256) -> Path:
    """Download the four files of MNIST, compressed, into `folder`, which is made; those already there are kept.

    Args:
        folder: where they go.
        base_url: what the files' names are appended to.
        sha256: hash of each file, unpacked.

    Returns:
        `folder`.

    Raises:
        InputError: the address cannot be reached or gives something else; nothing of it is kept.
    """
    alternative = f"put MNIST's four idx files into {folder} yourself, or name the folder that has them as mnist:DIR"
    for name, digest in sha256.items():
        fetch(f"{base_url}{name}.gz", folder / f"{name}.gz", digest, alternative)
    return folder


def fetch(url: str, file: Path, sha256: str, alternative: str) -> Path:
    """Download a .gz `url` to `file`, unless that exists; it appears only once its unpacked bytes have the hash `sha256`.

    Raises InputError, which ends with the `alternative`, where the address cannot be reached or gives other bytes.
    """
    # pooch tells the hash of what it fetched, which is no news to the user: it is verified here.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, known_hash=None, fname=file.name, path=file.parent, downloader=_verified(sha256))
    except RequestException as error:
        raise InputError(f"Cannot download {url} ({_reason(error)}); try again later, or {alternative}.") from None
    except _OtherBytesError:
        raise InputError(
            f"{url} gave other bytes than expected and none were kept; try again later, or {alternative}."
        ) from None
    return file


class _OtherBytesError(Exception):
    """What was downloaded is not what it should be."""


def _verified(sha256: str) -> Any:
    """Return a downloader for pooch that fails, before the file is put in place, where its unpacked bytes differ."""

    def download(url: str, output: str, manager: object) -> None:
        with ProgressBar(f"downloading {url.rpartition('/')[2]} (KiB)") as progress:
            pooch.HTTPDownloader(timeout=_TIMEOUT, progressbar=_KibibytesDone(progress))(url, output, manager)
        if _unpacked_sha256(Path(output)) != sha256:
            raise _OtherBytesError

    return download


class _KibibytesDone:
    """What pooch asks of a progress bar; shows each update on ours."""

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


def _reason(error: RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    return "no connection" if "Connection" in type(error).__name__ else type(error).__name__
