"""Downloads of MNIST, from a server on this machine."""

import gzip
import hashlib
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fixtures.sources import write_mnist
from pixelscope.data.sources import mnist
from pixelscope.data.sources.mnist import MNIST_FILES_SHA256, download_mnist, load_mnist
from pixelscope.errors import InputError


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "published", compressed=True)


@pytest.fixture
def sha256(published: Path) -> dict[str, str]:
    files = {name: published / f"{name}.gz" for name in MNIST_FILES_SHA256}
    return {name: hashlib.sha256(gzip.decompress(file.read_bytes())).hexdigest() for name, file in files.items()}


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def url(published: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(published))

        def log_message(self, format: str, *args: Any) -> None:
            asked.append(self.path)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_what_is_downloaded_is_mnist(tmp_path: Path, published: Path, url: str, sha256: dict[str, str]) -> None:
    folder = download_mnist(tmp_path / "root" / "mnist", url, sha256)
    assert load_mnist(folder).digest() == load_mnist(published).digest()


def test_what_is_there_is_not_fetched_again(tmp_path: Path, url: str, sha256: dict[str, str], asked: list[str]) -> None:
    folder = download_mnist(tmp_path / "mnist", url, sha256)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    asked.clear()
    download_mnist(folder, url, sha256)
    assert asked == ["/t10k-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize("content", [gzip.compress(b"something else", mtime=0), b"<html>", b""], ids=["other", "page", "empty"])
def test_other_bytes_are_refused_and_not_kept(
    tmp_path: Path, published: Path, url: str, sha256: dict[str, str], content: bytes
) -> None:
    (published / "train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz gave unexpected bytes"):
        download_mnist(tmp_path / "mnist", url, sha256)
    assert [file.name for file in (tmp_path / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_cut_download_is_not_kept(tmp_path: Path, published: Path, url: str, sha256: dict[str, str]) -> None:
    file = published / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="unexpected bytes"):
        download_mnist(tmp_path / "mnist", url, sha256)
    assert list((tmp_path / "mnist").iterdir()) == []


def test_an_absent_file_says_what_the_server_answers(tmp_path: Path, published: Path, url: str, sha256: dict[str, str]) -> None:
    (published / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"http.*404 File not found"):
        download_mnist(tmp_path / "mnist", url, sha256)


def test_an_unreachable_address_names_the_local_alternative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "mnist"
    with pytest.raises(InputError) as caught:
        download_mnist(folder, "http://127.0.0.1:9/")
    assert str(caught.value) == (
        "Cannot download http://127.0.0.1:9/train-images-idx3-ubyte.gz (no connection); try again later, or put MNIST's "
        f"four idx files into {folder} yourself, or name the folder that has them as mnist:DIR."
    )


def test_mnist_alone_is_downloaded_to_the_data_root(
    tmp_path: Path, url: str, sha256: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist.download_mnist, "__defaults__", (url, sha256))
    from pixelscope.data import load

    last = tmp_path / "root" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    assert len(load("mnist", data_root=tmp_path / "root")) == 16
    last.unlink()
    assert len(load("mnist", data_root=tmp_path / "root")) == 16
    assert last.is_file()


def test_the_hashes_are_those_of_mnist(shared_data: Path) -> None:
    for name, expected in MNIST_FILES_SHA256.items():
        unpacked = gzip.decompress((shared_data / "mnist" / f"{name}.gz").read_bytes())
        assert hashlib.sha256(unpacked).hexdigest() == expected
