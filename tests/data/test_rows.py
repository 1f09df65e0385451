"""Rows on disk: the same values as in memory, and nothing read but what is asked for."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelscope.data.disk_array import DiskArray, sample_positions
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.loader import DeviceImages, ShuffledStream
from pixelscope.errors import InputError
from pixelscope.rng import StepContext

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def path(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "images.npy"
    np.save(file, images)
    return file


@settings(deadline=None, max_examples=50)
@given(positions=st.lists(st.integers(0, 39), max_size=60), chosen=st.lists(st.integers(0, 39), min_size=1, max_size=40))
def test_any_rows_of_any_rows_are_those_in_memory(
    path: Path, images: np.ndarray, positions: list[int], chosen: list[int]
) -> None:
    rows = DiskArray(path)
    wanted = np.array(positions, np.int64)
    assert np.array_equal(rows[wanted], images[positions])
    some = rows.select(np.array(chosen))
    assert some.shape == (len(chosen), 3, 8, 8)
    inside = wanted % len(chosen)
    assert np.array_equal(some[inside], images[chosen][inside])
    assert np.array_equal(some[1:-1], images[chosen][1:-1])
    assert np.array_equal(some[-1], images[chosen][-1])


def test_positions_outside_are_refused(path: Path) -> None:
    rows = DiskArray(path).select(np.arange(5))
    for position in (5, -1):
        with pytest.raises(IndexError):
            rows[np.array([position])]


def test_they_travel_to_another_process(path: Path, images: np.ndarray) -> None:
    rows = DiskArray(path)
    rows[0]
    assert np.array_equal(pickle.loads(pickle.dumps(rows))[:], images)


def test_what_is_no_array_of_bytes_is_refused(tmp_path: Path, path: Path) -> None:
    for name, content in (("float", np.zeros((3, 2, 2))), ("scalar", np.array(3, np.uint8))):
        np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(InputError, match="not rows of bytes"):
            DiskArray(tmp_path / f"{name}.npy")
    (tmp_path / "cut.npy").write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cut.npy cannot be read"):
        DiskArray(tmp_path / "cut.npy")


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / "images.npy"
    copy.write_bytes(path.read_bytes())
    rows = DiskArray(copy)
    os.truncate(copy, 1000)
    with pytest.raises(InputError, match="has become shorter while it was read"):
        rows[:]


def test_small_sets_are_brought_to_the_device_and_large_ones_stay(path: Path, images: np.ndarray) -> None:
    rows = DiskArray(path)
    assert isinstance(DeviceImages(rows, CPU, limit=images.nbytes).images, torch.Tensor)
    assert DeviceImages(rows, CPU, limit=images.nbytes - 1).images is rows
    positions = torch.tensor([7, 3, 3])
    held = DeviceImages(rows, CPU, limit=0)
    assert torch.equal(held.take(held.read(positions)), torch.from_numpy(images[positions.numpy()]))


class Watched(DiskArray):
    """Rows that remember which of them were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[int] = []

    def _read(self, rows: np.ndarray) -> np.ndarray:
        self.read += rows.tolist()
        return super()._read(rows)


def test_each_rank_reads_its_part_alone_and_every_image_once_an_epoch(path: Path) -> None:
    read: list[list[int]] = []
    for rank in range(2):
        rows = Watched(path)
        stream = ShuffledStream(ImageSet(rows, Provenance("rows", "rows")), 0, "source", CPU, limit=0)
        for step in range(5):
            stream.take(stream.read(StepContext(step * 8, step, 8, seed=0, rank=rank, ranks=2)))
        read.append(rows.read)
    assert [len(mine) for mine in read] == [20, 20]
    assert sorted(read[0] + read[1]) == list(range(40))


def test_batches_do_not_depend_on_where_images_lie(path: Path, images: np.ndarray) -> None:
    labels = np.arange(40) % 4
    there = ImageSet(DiskArray(path), Provenance("disk", "disk"), labels, tuple("abcd"))
    here = ImageSet(images, Provenance("memory", "memory"), labels, tuple("abcd"))
    assert there.digest() == here.digest()
    some = np.array([5, 1, 9, 30, 31, 32, 2, 0, 17])
    assert there.select(some).digest() == here.select(some).digest()
    for images_limit in (0, None):
        streams = [ShuffledStream(one, 0, "s", CPU, limit=images_limit) for one in (there, here)]
        pairs = [stream.take(stream.read(StepContext(16, 2, 8, 0))) for stream in streams]
        assert torch.equal(pairs[0][0], pairs[1][0])
        assert pairs[0][1] is not None
        assert pairs[1][1] is not None
        assert torch.equal(pairs[0][1], pairs[1][1])


@settings(deadline=None, max_examples=200)
@given(length=st.integers(0, 3000), count=st.integers(1, 400))
def test_a_sample_has_one_of_each_block_and_all_of_a_small_set(length: int, count: int) -> None:
    found, block = sample_positions(length, count), max(1, -(-length // count))
    assert np.array_equal(found // block, np.arange(-(-length // block))), "one of each block, in order"
    assert len(found) <= count and (not length or found[-1] < length)
    assert np.array_equal(found, sample_positions(length, count)), "always the same"


def test_a_sample_of_alternating_images_has_all_kinds() -> None:
    kinds = np.bincount(sample_positions(20_000, 2_000) % 10)
    assert len(kinds) == 10 and kinds.min() > 150, "every tenth would be of one kind"
