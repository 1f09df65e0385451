"""MNIST's idx files: read back what was written, and a clear message for what is wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from fixtures.sources import IDX_FILES, idx_bytes, noise, write_idx, write_mnist
from pixelscope.data.sources.mnist import load_mnist, read_idx
from pixelscope.errors import InputError


@given(
    array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)),
    compressed=st.booleans(),
)
def test_idx_files_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, array: NDArray[np.uint8], compressed: bool
) -> None:
    path = write_idx(tmp_path_factory.mktemp("idx") / "images", array, compressed)
    np.testing.assert_array_equal(read_idx(path, array.ndim), array)


@given(keep=st.integers(min_value=0, max_value=7 + 16), compressed=st.booleans())
def test_any_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, keep: int, compressed: bool) -> None:
    whole = idx_bytes(noise((16,)))
    path = tmp_path_factory.mktemp("idx") / ("labels.gz" if compressed else "labels")
    path.write_bytes(gzip.compress(whole[:keep]) if compressed else whole[:keep])
    with pytest.raises(InputError, match=str(path)):
        read_idx(path, 1)


@given(keep=st.integers(min_value=0, max_value=40))
def test_a_cut_compressed_file_is_noticed(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    path = tmp_path_factory.mktemp("idx") / "labels.gz"
    path.write_bytes(gzip.compress(idx_bytes(noise((64,))))[:keep])
    with pytest.raises(InputError, match=str(path)):
        read_idx(path, 1)


def test_order_labels_names_and_split_are_mnists_own(tmp_path: Path) -> None:
    images = load_mnist(write_mnist(tmp_path, train=12, test=4), None)
    expected = np.concatenate([noise((12, 28, 28), 0), noise((4, 28, 28), 1)])
    np.testing.assert_array_equal(images.images[:, 0], expected)
    assert images.labels is not None
    assert images.labels.tolist() == [*range(10), 0, 1, 0, 1, 2, 3]
    assert images.test is not None
    assert images.test.tolist() == [False] * 12 + [True] * 4
    assert list(images.names) == [f"train/{i:05d}" for i in range(12)] + [f"test/{i:05d}" for i in range(4)]
    assert images.classes == tuple("0123456789")
    assert images.items is not None
    assert images.items.tolist() == list(range(len(images)))


def test_other_images_in_mnists_files_are_not_called_mnist(tmp_path: Path) -> None:
    origin = load_mnist(write_mnist(tmp_path)).provenance
    assert "MNIST's format" in origin.title
    assert (origin.licence, origin.citation) == ("unknown", "")
    assert any("not the images of MNIST" in note for note in origin.notes)


def test_mnist_itself_is_known_by_its_digest_and_not_by_its_file_names(shared_data: Path) -> None:
    origin = load_mnist(shared_data / "mnist").provenance
    assert origin.title.startswith("MNIST")
    assert (origin.licence, origin.notes) == ("CC BY-SA 3.0", ())
    assert "LeCun" in origin.citation


def test_compressed_dotted_and_plain_files_are_one(tmp_path: Path) -> None:
    plain = load_mnist(write_mnist(tmp_path / "plain"))
    compressed = load_mnist(write_mnist(tmp_path / "gz", compressed=True))
    dotted = write_mnist(tmp_path / "dotted")
    for file in list(dotted.iterdir()):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    assert plain.digest() == compressed.digest() == load_mnist(dotted).digest()


@pytest.mark.parametrize("name", [name for names in IDX_FILES.values() for name in names])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_mnist(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=rf"no {name} \(plain or \.gz\) in {tmp_path}"):
        load_mnist(tmp_path)


def test_wrong_magic_says_what_is_there(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", noise((12,)))
    with pytest.raises(InputError, match="00 00 08 01, not with the 00 00 08 03"):
        load_mnist(tmp_path)


def test_truncation_says_how_much_is_there(tmp_path: Path) -> None:
    file = write_mnist(tmp_path) / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte .*3131 of 3136 bytes"):
        load_mnist(tmp_path)


def test_a_header_of_terabytes_allocates_nothing(tmp_path: Path) -> None:
    file = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"abc")
    with pytest.raises(InputError, match=f"3 of {(2**32 - 1) ** 3} bytes"):
        load_mnist(tmp_path)


def test_bytes_too_many_are_noticed(tmp_path: Path) -> None:
    file = write_mnist(tmp_path) / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes() + b"abc")
    with pytest.raises(InputError, match="3 bytes more"):
        load_mnist(tmp_path)


def test_counts_must_match(tmp_path: Path) -> None:
    write_idx(write_mnist(tmp_path) / "train-labels-idx1-ubyte", noise((11,)) % 10)
    with pytest.raises(InputError, match="train-images-idx3-ubyte .* 12 images .*train-labels-idx1-ubyte 11 labels"):
        load_mnist(tmp_path)


def test_labels_must_be_digits(tmp_path: Path) -> None:
    write_idx(write_mnist(tmp_path) / "train-labels-idx1-ubyte", np.full(12, 10, np.uint8))
    with pytest.raises(InputError, match="the label 10, and MNIST's labels are 0 to 9; download it again"):
        load_mnist(tmp_path)


def test_a_file_of_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte has no images"):
        load_mnist(write_mnist(tmp_path, test=0))


def test_both_halves_must_be_of_one_size(tmp_path: Path) -> None:
    write_idx(write_mnist(tmp_path) / "t10k-images-idx3-ubyte", noise((4, 20, 28)))
    with pytest.raises(InputError, match="training digits are 28 x 28 and test digits 28 x 20"):
        load_mnist(tmp_path)


def test_a_gz_that_is_none_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is not a valid"):
        load_mnist(tmp_path)


def test_the_real_mnist(shared_data: Path) -> None:
    images = load_mnist(shared_data / "mnist")
    assert images.images.shape == (70_000, 1, 32, 32)
    assert images.class_counts() == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]
    assert images.test is not None
    assert images.labels is not None
    assert np.array_equal(images.test, np.arange(70_000) >= 60_000)
    assert images.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
