"""MATLAB files are read as SciPy reads them; damaged ones end in an error, whatever the damage."""

import struct
import tracemalloc
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import loadmat, savemat
from scipy.sparse import eye

from pixelscope.data.sources.mat import read_mat
from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?")
SHAPES = ((3,), (0, 4), (2, 3), (5, 4, 3), (2, 3, 3, 4))


def _numbers(kind: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    return (np.random.default_rng(0).normal(size=shape) * 100).astype(kind)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_type_and_shape_is_read_as_it_was_stored(tmp_path: Path, compressed: bool) -> None:
    values = {f"{'abcdefghijk'[TYPES.index(kind)]}{len(shape)}": _numbers(kind, shape) for kind in TYPES for shape in SHAPES}
    path = tmp_path / "a.mat"
    savemat(path, values, do_compression=compressed)
    found, expected = read_mat(path), loadmat(path)
    assert found.keys() == values.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype and array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(("stored", "least"), [("u1", 0), ("i1", -100), ("u2", 0), ("i2", -9), ("i4", -9)])
@pytest.mark.parametrize("kind", ["f8", "f4", "u2", "i8"])
def test_numbers_stored_as_a_smaller_type_have_the_type_of_their_class(
    tmp_path: Path, kind: str, stored: str, least: int
) -> None:
    values = np.arange(least if kind[0] != "u" else 0, 90).astype(stored).reshape(-1, 1)
    codes = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5}, {"f8": 6, "f4": 7, "u2": 11, "i8": 14}
    parts = [(6, struct.pack("<II", codes[1][kind], 0)), (5, struct.pack("<ii", *values.shape)), (1, b"x")]
    array = b"".join(_element("<", *part) for part in (*parts, (codes[0][stored], values.tobytes("F"))))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    (tmp_path / "a.mat").write_bytes(header + _element("<", 14, array))
    found, expected = read_mat(tmp_path / "a.mat")["x"], loadmat(tmp_path / "a.mat", mat_dtype=True)["x"]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype.kind == expected.dtype.kind == np.dtype(kind).kind
    assert found.dtype == expected.dtype or (np.dtype(stored).itemsize < 4 and kind[0] == "f")


@pytest.mark.parametrize("form", ["4", "5"])
def test_characters_are_strings_of_the_last_axis(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"labels": np.array(["cat ", "dog ", "bird"]), "one": "Zürich"}, format=form)  # pyright: ignore[reportArgumentType]
    found, expected = read_mat(path), loadmat(path)
    assert found["labels"].tolist() == ["cat ", "dog ", "bird"]
    assert found["one"].tolist() == ["Zürich"] == expected["one"].tolist()


def test_version_4_is_read(tmp_path: Path) -> None:
    values = {f"a{kind}": _numbers(kind, (3, 5)) for kind in ("f8", "f4", "i4", "i2", "u2", "u1")}
    savemat(tmp_path / "a.mat", values | {"complex": np.array([[1j]])}, format="4")
    found = read_mat(tmp_path / "a.mat")
    assert found.keys() == values.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, values[name])
        assert array.dtype.kind == "f"  # MATLAB has doubles alone in it, however they are stored


def _element(order: str, kind: int, content: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")


def _small_element(order: str, kind: int, content: bytes) -> bytes:
    return struct.pack(order + "I", len(content) << 16 | kind) + content.ljust(4, b"\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path: Path, order: str) -> None:
    numbers = np.arange(6).reshape(2, 3)
    array = (
        _element(order, 6, struct.pack(order + "II", 10, 0))
        + _element(order, 5, struct.pack(order + "ii", *numbers.shape))
        + _small_element(order, 1, b"x")
        + _element(order, 3, numbers.astype(order + "i2").tobytes("F"))
    )
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    old = struct.pack(order + "Iiiii", 20 + 1_000 * (order == ">"), *numbers.shape, 0, 2) + b"x\0"
    (tmp_path / "version5.mat").write_bytes(head + _element(order, 14, array))
    (tmp_path / "version4.mat").write_bytes(old + numbers.astype(order + "i4").tobytes("F"))
    for name in ("version5.mat", "version4.mat"):
        assert read_mat(tmp_path / name)["x"].tolist() == numbers.tolist() == loadmat(tmp_path / name)["x"].tolist()


def test_what_is_no_array_of_numbers_is_passed_over(tmp_path: Path) -> None:
    other = {"cell": np.array([1, "a"], object), "structure": {"a": 1}, "sparse": eye(3).tocsc(), "complex": np.array([1j])}
    savemat(tmp_path / "a.mat", {**other, "x": np.arange(3)})
    assert read_mat(tmp_path / "a.mat").keys() == {"x"}


def test_a_file_may_end_anywhere(tmp_path: Path) -> None:
    for form, compressed in (("5", False), ("5", True), ("4", False)):
        savemat(tmp_path / "a.mat", {"x": np.arange(12.0).reshape(3, 4)}, do_compression=compressed, format=form)  # pyright: ignore[reportArgumentType]
        content = (tmp_path / "a.mat").read_bytes()
        for end in range(len(content)):
            (tmp_path / "b.mat").write_bytes(content[:end])
            if end == 128 and form == "5":
                assert read_mat(tmp_path / "b.mat") == {}
            else:
                with pytest.raises(UNREADABLE):
                    read_mat(tmp_path / "b.mat")


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**32 - 8])
def test_a_length_that_the_file_does_not_have_takes_no_memory(tmp_path: Path, length: int) -> None:
    savemat(tmp_path / "a.mat", {"x": np.arange(12.0)})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content[:132] + struct.pack("<I", length) + content[136:])
    tracemalloc.start()
    with pytest.raises(ValueError, match="ends early"):
        read_mat(tmp_path / "a.mat")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000


@hypothesis.settings(max_examples=500, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([("5", False), ("5", True), ("4", False)]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_damage_is_read_or_an_error(tmp_path: Path, kind: tuple[str, bool], changes: list[tuple[int, int]]) -> None:
    path = tmp_path / "a.mat"
    values = {"x": np.arange(12.0).reshape(3, 4), "labels": np.array(["a", "bc"])}
    savemat(path, values, format=kind[0], do_compression=kind[1])  # pyright: ignore[reportArgumentType]
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place * len(content) >> 16 if place < 2**16 else 0] = value
    path.write_bytes(content)
    try:
        found = read_mat(path)
    except (InputError, *UNREADABLE):
        return
    assert all(array.dtype.kind in "iufU" for array in found.values())


@pytest.mark.parametrize("kind", [0, 8, 11, 14, 20, 48, 120, 255, 2**16 - 1])
def test_a_type_of_numbers_that_there_is_not_is_an_error(tmp_path: Path, kind: int) -> None:
    """SciPy's reader ends the process here."""
    savemat(tmp_path / "a.mat", {"x": np.arange(12.0)})
    content = (tmp_path / "a.mat").read_bytes()
    place = content.index(np.arange(12.0).tobytes()) - 8
    assert content[place : place + 8] == struct.pack("<II", 9, 96)
    (tmp_path / "a.mat").write_bytes(content[:place] + struct.pack("<I", kind) + content[place + 4 :])
    with pytest.raises(ValueError, match="unknown type"):
        read_mat(tmp_path / "a.mat")
