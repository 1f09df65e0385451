"""Arrays in .mat, .npz and .npy: shapes, ranges, labels, splits, and what is ambiguous."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import savemat

from fixtures.sources import noise
from pixelscope.data import load
from pixelscope.data.sources.arrays import load_arrays, to_bytes
from pixelscope.errors import InputError

COUNT, SIDE = 7, 8
GREY = noise((COUNT, SIDE, SIDE))
COLOUR = noise((COUNT, SIDE, SIDE, 3))
DIGITS = np.arange(COUNT)


def written(tmp_path: Path, **values: NDArray[np.generic]) -> Path:
    np.savez(tmp_path / "a.npz", **values)
    return tmp_path / "a.npz"


def listed(labels: np.ndarray | None) -> list[int]:
    assert labels is not None
    return labels.tolist()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (GREY.reshape(COUNT, -1), GREY[:, None]),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
    ],
    ids=["NHW", "N1HW", "NHW1", "NP", "NHWC", "NCHW"],
)
def test_the_first_axis_counts_images(
    tmp_path: Path, stored: NDArray[np.uint8], expected: NDArray[np.uint8], labelled: bool
) -> None:
    images = load_arrays(written(tmp_path, images=stored, **({"labels": DIGITS} if labelled else {})), None)
    np.testing.assert_array_equal(images.images, expected)
    assert (images.labels is not None) == labelled


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("stored", "layout", "expected"),
    [
        (GREY.transpose(1, 2, 0), "H-W-N", GREY[:, None]),
        (COLOUR.transpose(1, 2, 3, 0), "H-W-C-N", COLOUR.transpose(0, 3, 1, 2)),
        (GREY.reshape(COUNT, -1).T, "HW-N", GREY[:, None]),
    ],
)
def test_other_orders_of_axes_are_settings(
    tmp_path: Path, stored: NDArray[np.uint8], layout: str, expected: NDArray[np.uint8], labelled: bool
) -> None:
    path = written(tmp_path, images=stored, **({"labels": DIGITS} if labelled else {}))
    with pytest.raises(InputError, match=f"@{layout}"):
        load_arrays(path, None)
    np.testing.assert_array_equal(load_arrays(path, None, layout).images, expected)


def test_one_row_per_class_in_matlabs_order(tmp_path: Path) -> None:
    images = load_arrays(written(tmp_path, x=GREY.transpose(1, 2, 0), y=np.eye(10)[DIGITS]), settings="H-W-N")
    assert listed(images.labels) == DIGITS.tolist()


def test_labels_must_agree_with_the_order_of_the_axes(tmp_path: Path) -> None:
    cube = noise((9, 9, 4))
    assert len(load_arrays(written(tmp_path, x=cube, y=np.arange(4)), None, "H-W-N")) == 4
    with pytest.raises(InputError, match="has 4 images as H-W-N, but 9 labels"):
        load_arrays(written(tmp_path, x=cube, y=np.arange(9)), None, "H-W-N")


def test_arrays_of_any_name_are_read_where_settings_name_them(tmp_path: Path) -> None:
    path = written(tmp_path, arr_0=GREY.transpose(1, 2, 0), arr_1=DIGITS, images=COLOUR)
    spec = f"{path}@images=arr_0,labels=arr_1,axes=H-W-N"
    images = load(spec, size=None)
    np.testing.assert_array_equal(images.images[:, 0], GREY)
    assert listed(images.labels) == DIGITS.tolist()
    assert images.provenance.source == f"arrays:{spec}"
    assert load(f"{path}@images=arr_0,axes=H-W-N", size=None).labels is None


@pytest.mark.parametrize(
    "settings",
    ["images=", "labels=arr_1", "names=arr_0", "images=nowhere", "images=arr_0,labels=none", "images=arr_0,images=arr_1"],
)
def test_settings_that_name_no_array_are_refused(tmp_path: Path, settings: str) -> None:
    with pytest.raises(InputError, match="images=NAME,labels=NAME"):
        load(f"{written(tmp_path, arr_0=GREY, arr_1=DIGITS)}@{settings}")


@given(st.integers(0, 255))
def test_values_come_back_from_every_range(value: int) -> None:
    images = np.array([[[[0, value, 255]]]])
    for scaled in (images / 255, images / 127.5 - 1, images.astype(np.float64), images * 257, images.astype(np.uint8)):
        np.testing.assert_array_equal(to_bytes(scaled, Path("a.npz")), images)


def test_binary_images_are_black_and_white(tmp_path: Path) -> None:
    binary = GREY > 127
    for stored in (binary, binary.astype(np.uint8)):
        np.testing.assert_array_equal(load_arrays(written(tmp_path, images=stored), None).images[:, 0], binary * 255)


def test_both_parts_share_one_range(tmp_path: Path) -> None:
    train, test = np.linspace(-1, 1, 2 * 64).reshape(2, 8, 8), np.zeros((1, 8, 8))
    images = load_arrays(written(tmp_path, x_train=train, x_test=test), None)
    assert np.unique(images.images[2]).tolist() == [128]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 4, 4), 300.5), "values from 300.5 to 300.5.*@range=LOW:HIGH"),
        (np.full((2, 4, 4), -5), "values from -5 to -5"),
        (np.full((2, 4, 4), 70_000), "values from 70000 to 70000"),
        (np.full((2, 4, 4), np.nan), "values that are not finite"),
        (np.empty((0, 4, 4)), "The array images of .* is empty"),
        (np.zeros((2, 5)), r"The array images of shape \(2, 5\) cannot be read as images; reshape it to \(N, H, W, C\)"),
        (np.zeros((2, 3, 4, 5, 6)), r"\(2, 3, 4, 5, 6\) cannot be read as images"),
        (np.zeros((2, 4, 4, 2)), r"\(2, 4, 4, 2\) cannot be read as images"),
    ],
)
def test_values_and_shapes_that_make_no_sense(tmp_path: Path, values: NDArray[np.generic], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_arrays(written(tmp_path, images=values))


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(7, 8, 8\) with 6 labels"):
        load_arrays(written(tmp_path, images=GREY, labels=DIGITS[:6]))


@pytest.mark.parametrize(
    ("name", "labels", "expected", "classes"),
    [
        ("labels", np.array([0, 9, 1, 0, 0, 0, 0]), [0, 2, 1, 0, 0, 0, 0], ("0", "1", "9")),
        ("y", np.array([1, 2, 3, 1, 1, 1, 1]), [0, 1, 2, 0, 0, 0, 0], ("1", "2", "3")),
        ("targets", np.array(["cat", "dog", "cat", "cat", "cat", "cat", "ant"]), [1, 2, 1, 1, 1, 1, 0], ("ant", "cat", "dog")),
        ("labels", np.eye(10)[[3, 1, 3, 3, 3, 3, 3]], [1, 0, 1, 1, 1, 1, 1], ("1", "3")),
        ("labels", np.eye(8)[[3, 1, 3, 3, 3, 3, 3]], [1, 0, 1, 1, 1, 1, 1], ("1", "3")),
        ("labels", 2 * np.eye(10)[[3, 1, 3, 3, 3, 3, 3]].T - 1, [1, 0, 1, 1, 1, 1, 1], ("1", "3")),
    ],
    ids=["0-9", "other", "names", "one column a class", "as many classes as pixels", "one row a class"],
)
def test_labels_of_every_kind(
    tmp_path: Path, name: str, labels: NDArray[np.generic], expected: list[int], classes: tuple[str, ...]
) -> None:
    images = load_arrays(written(tmp_path, images=GREY, **{name: labels}))
    assert listed(images.labels) == expected
    assert images.classes == classes


@pytest.mark.parametrize("name", ["y", "gnd"])
@pytest.mark.parametrize(
    ("zero", "expected", "classes"),
    [
        ("10", [1, 0, 2, 1, 1, 1, 1], ("0", "1", "2")),
        ("1", [0, 2, 1, 0, 0, 0, 0], ("0", "1", "9")),
        ("none", [0, 2, 1, 0, 0, 0, 0], ("1", "2", "10")),
    ],
)
def test_labels_from_1_to_10_need_a_setting(
    tmp_path: Path, name: str, zero: str, expected: list[int], classes: tuple[str, ...]
) -> None:
    path = written(tmp_path, x=GREY, **{name: np.array([[1.0], [10.0], [2], [1], [1], [1], [1]])})
    with pytest.raises(InputError, match=f"@digit-0={zero}"):
        load(str(path))
    images = load(f"{path}@digit-0={zero}")
    assert (listed(images.labels), images.classes) == (expected, classes)
    assert len(images.provenance.notes) == (zero != "none")
    assert load(images.provenance.source).digest() == images.digest()


@pytest.mark.parametrize("labels", [DIGITS, DIGITS + 5])
def test_a_digit_0_that_the_labels_do_not_have_is_refused(tmp_path: Path, labels: NDArray[np.int64]) -> None:
    path = written(tmp_path, x=GREY, y=labels)
    for zero in ("10", "1"):
        with pytest.raises(InputError, match="leave out digit-0"):
            load(f"{path}@digit-0={zero}")


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int64])
def test_a_range_after_the_path_holds_for_every_type(tmp_path: Path, kind: type) -> None:
    stored = np.array([0, 8, 16]).repeat(9).reshape(3, 3, 3)
    path = written(tmp_path, images=stored.astype(kind))
    images = load(f"{path}@range=0:16", size=None)
    assert images.images[:, 0, 0, 0].tolist() == [0, 128, 255]
    assert images.provenance.value_range == (0, 16)
    assert load(f"{path}@N-H-W,range=0:16", size=None, value_range=(0, 99)).digest() == images.digest()


@pytest.mark.parametrize("stored", [GREY - 300.0, GREY / 100.0, GREY.astype(int) - 1000, GREY.astype(int) * 300])
def test_values_in_no_usual_range_need_a_setting(tmp_path: Path, stored: NDArray[np.generic]) -> None:
    path = written(tmp_path, images=stored)
    with pytest.raises(InputError, match="@range=LOW:HIGH"):
        load(str(path))
    images = load(f"{path}@range={float(stored.min())}:{float(stored.max())}", size=None)
    assert (images.images.min(), images.images.max()) == (0, 255)


@pytest.mark.parametrize(
    "setting", ["range=1", "range=2:1", "range=1:1", "range=a:b", "range=0:inf", "range=0:1:2", "digit-0=2"]
)
def test_settings_without_a_meaning_are_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InputError, match=setting):
        load(f"{written(tmp_path, images=GREY)}@{setting}")


def test_svhn_is_recognised(tmp_path: Path) -> None:
    digits = noise((20, 32, 32, 3))
    labels = np.arange(20)[:, None] % 10 + 1
    savemat(tmp_path / "train_32x32.mat", {"X": digits.transpose(1, 2, 3, 0), "y": labels})
    images = load(str(tmp_path / "train_32x32.mat"), size=None)
    np.testing.assert_array_equal(images.images, digits.transpose(0, 3, 1, 2))
    assert listed(images.labels) == (labels[:, 0] % 10).tolist()
    assert any("SVHN" in note for note in images.provenance.notes)
    given = load(f"{tmp_path / 'train_32x32.mat'}@digit-0=none", size=None)
    assert given.classes == tuple(str(number) for number in range(1, 11))


@pytest.mark.parametrize(("width", "first"), [(16, 1), (8, 1), (16, 0)])
def test_usps_of_cai_is_recognised(tmp_path: Path, width: int, first: int) -> None:
    digits = noise((20, width, width))
    savemat(tmp_path / "USPS.mat", {"fea": digits.reshape(20, -1) / 127.5 - 1, "gnd": np.arange(20)[:, None] % 10 + first})
    if width != 16:
        with pytest.raises(InputError, match="@digit-0"):
            load(str(tmp_path / "USPS.mat"), size=None)
        return
    images = load(str(tmp_path / "USPS.mat"), size=None)
    np.testing.assert_array_equal(images.images[:, 0], digits)
    assert listed(images.labels) == [*range(10), *range(10)]
    assert images.classes == tuple("0123456789")


def test_labels_of_no_matching_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"array labels of shape \(5, 6\)"):
        load_arrays(written(tmp_path, images=GREY, labels=np.eye(5, 6)))


def test_labels_must_be_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are not whole numbers"):
        load_arrays(written(tmp_path, images=GREY, labels=DIGITS + 0.5))


@pytest.mark.parametrize("pattern", ["x_{}", "{}_images", "{}-X", "images {}", "{}X", "Data{}"])
def test_train_and_test_arrays_give_the_split(tmp_path: Path, pattern: str) -> None:
    values = {
        pattern.format("test"): GREY[:2], pattern.format("train"): GREY[2:], "y_train": DIGITS[2:], "y_test": DIGITS[:2],
    }  # fmt: skip
    images = load_arrays(written(tmp_path, **values), None)
    np.testing.assert_array_equal(images.images[:, 0], np.concatenate([GREY[2:], GREY[:2]]))
    assert listed(images.test) == [False] * 5 + [True] * 2
    assert listed(images.labels) == [2, 3, 4, 5, 6, 0, 1]


def test_one_part_alone_has_no_split(tmp_path: Path) -> None:
    assert load_arrays(written(tmp_path, x_train=GREY, y_train=DIGITS)).test is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"images": GREY, "data": GREY},
            r"images and data; it has data \(7, 8, 8\), images \(7, 8, 8\)",
        ),
        (
            {"images": GREY, "y": DIGITS, "labels": DIGITS},
            r"y and labels; it has images \(7, 8, 8\), labels \(7,\)",
        ),
        ({"foo": GREY, "bar": DIGITS}, "images=NAME,labels=NAME"),
        (
            {"X_src": GREY.reshape(7, -1), "X_tar": GREY.reshape(7, -1)},
            r"no array that is named like images; it has X_src \(7, 64\)",
        ),
        ({"images": GREY, "images_train": GREY}, "with and without `train` or `test`"),
        ({"images_train": GREY, "images_test": GREY, "labels_train": DIGITS}, "images and labels of different parts"),
        ({"images_train": GREY, "images_test": GREY[:, :4, :4]}, r"training images of shape \(1, 8, 8\) and test images of"),
        ({}, "it has no arrays"),
    ],
)
def test_what_is_ambiguous_is_listed(tmp_path: Path, values: dict[str, NDArray[np.generic]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_arrays(written(tmp_path, **values))


def test_matlab_files_read_like_usps(tmp_path: Path) -> None:
    flat = GREY.reshape(COUNT, -1) / 127.5 - 1
    savemat(tmp_path / "usps.mat", {"fea": flat, "gnd": DIGITS[:, None] + 1})
    images = load(str(tmp_path / "usps.mat"), size=None)
    np.testing.assert_array_equal(images.images[:, 0], GREY)
    assert images.classes == ("1", "2", "3", "4", "5", "6", "7")


def test_matlab_structures_are_passed_over(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"images": GREY, "meta": {"who": "me"}})
    assert len(load_arrays(tmp_path / "a.mat")) == COUNT


@pytest.mark.parametrize("labels", ["labels.npy", "y.npy", "digits_labels.npy"])
def test_npy_finds_its_labels_beside_it(tmp_path: Path, labels: str) -> None:
    np.save(tmp_path / "digits.npy", GREY)
    np.save(tmp_path / labels, DIGITS)
    assert listed(load(str(tmp_path / "digits.npy")).labels) == DIGITS.tolist()


def test_npy_alone_is_unlabelled(tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", GREY)
    assert load_arrays(tmp_path / "digits.npy").labels is None


def test_a_folder_of_npy_files_is_one_set_of_arrays(tmp_path: Path) -> None:
    for name, array in {"x_train": GREY[2:], "x_test": GREY[:2], "y_train": DIGITS[2:], "y_test": DIGITS[:2]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    assert listed(load(f"arrays:{tmp_path}").test) == [False] * 5 + [True] * 2


def test_images_are_resized(tmp_path: Path) -> None:
    assert load_arrays(written(tmp_path, images=COLOUR), 16).images.shape == (COUNT, 3, 16, 16)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"a\.npz cannot be read"):
        load_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.mat"])
@pytest.mark.parametrize("content", [b"", b"hello world, this is no array at all" * 9])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} cannot be read"):
        load(str(tmp_path / name))


def test_an_archive_with_a_damaged_list_of_members_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, images=GREY, labels=DIGITS)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02")] ^= 1
    path.write_bytes(content)
    for spec in (str(path), f"arrays:{path}"):
        with pytest.raises(InputError, match=r"a\.npz cannot be read"):
            load(spec)


def test_matlab_7_3_says_how_to_save(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(header + bytes(512))
    with pytest.raises(InputError, match=r"save it with -v7, or as \.npz"):
        load_arrays(tmp_path / "a.mat")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    with pytest.raises(InputError, match=r"a\.h5 is not \.mat, \.npz or \.npy"):
        load_arrays(tmp_path / "a.h5")


# What a shape, a label or a name does not say is refused or noted.


@pytest.mark.parametrize(
    ("shape", "layout", "count"),
    [
        ((6, 6, 5), "H-W-N", 5),
        ((6, 6, 5), "N-H-W", 6),
        ((8, 8, 3), "H-W-C", 1),
        ((5, 3 * 64), "N-CHW", 5),
        ((2, 3, 8, 3), "N-C-H-W", 2),
    ],
)
def test_a_shape_that_can_be_read_in_two_ways_is_refused_until_one_is_named(
    tmp_path: Path, shape: tuple[int, ...], layout: str, count: int
) -> None:
    path = written(tmp_path, images=noise(shape))
    with pytest.raises(InputError, match=rf"could be .*\({layout}\).* arrays:.*a\.npz@"):
        load(str(path), size=None)
    images = load(f"arrays:{path}@{layout}", size=None)
    assert len(images) == len(load(f"{path}@{layout}", size=None)) == count
    assert load(images.provenance.source, size=None).digest() == images.digest()


def test_the_letters_of_a_layout_say_how_pixels_are_ordered(tmp_path: Path) -> None:
    colour = COLOUR.transpose(0, 3, 1, 2)
    stored = {
        "N-CHW": colour.reshape(COUNT, -1),
        "N-HWC": COLOUR.reshape(COUNT, -1),
        "HWC-N": COLOUR.reshape(COUNT, -1).T,
        "N-WH": GREY.transpose(0, 2, 1).reshape(COUNT, -1),
        "W-H-N": GREY.transpose(2, 1, 0),
        "C-W-H-N": COLOUR.transpose(3, 2, 1, 0),
    }
    for layout, array in stored.items():
        expected = colour if "C" in layout else GREY[:, None]
        images = load(f"{written(tmp_path, images=array)}@{layout}", size=None)
        np.testing.assert_array_equal(images.images, expected, err_msg=layout)


@pytest.mark.parametrize("layout", ["NHW", "N-H-X", "N-H", "N-H-W-C", "N-H-H", "N--HW", ""])
def test_a_layout_that_is_none_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(InputError, match=r"not an order of axes|cannot be read as"):
        load(f"arrays:{written(tmp_path, images=GREY)}@{layout}")


@pytest.mark.parametrize(
    "row", [[0, 0, 0], [1, 1, 0], [0.3, 0.7, 0], [2, 0, 0], [1, 0, -1]], ids=["none", "two", "shares", "two of one", "signs"]
)
def test_labels_that_are_not_one_class_per_image_are_refused(tmp_path: Path, row: list[float]) -> None:
    labels = np.eye(3)[[0, 1, 2, 0, 1, 2, 0]]
    labels[4] = row
    for stored in (labels, labels.T, labels[..., None]):
        with pytest.raises(InputError, match=r"Row 4 of the array labels .* is not one-hot"):
            load_arrays(written(tmp_path, images=GREY, labels=stored))


def test_one_hot_labels_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    square, turned = noise((3, 8, 8)), np.eye(3)[[1, 2, 0]]
    with pytest.raises(InputError, match=r"one-hot by rows and by columns"):
        load_arrays(written(tmp_path, images=square, labels=turned))
    assert listed(load_arrays(written(tmp_path, images=square, labels=np.eye(3))).labels) == [0, 1, 2]


def test_labels_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are not whole numbers"):
        load_arrays(written(tmp_path, images=GREY, labels=np.where(DIGITS == 2, np.nan, DIGITS)))


@pytest.mark.parametrize("name", ["val_{}", "{}_valid", "validation {}", "{}Val"])
def test_validation_arrays_are_training_images_and_noted(tmp_path: Path, name: str) -> None:
    values = {
        "training_images": GREY[:3],
        "training_labels": DIGITS[:3],
        "Testing_images": GREY[5:],
        "Testing_labels": DIGITS[5:],
    }
    values |= {name.format("images"): GREY[3:5], name.format("labels"): DIGITS[3:5]}
    images = load_arrays(written(tmp_path, **values), None)
    np.testing.assert_array_equal(images.images[:, 0], GREY)
    assert listed(images.labels) == DIGITS.tolist()
    assert listed(images.test) == [False] * 5 + [True] * 2
    (note,) = images.provenance.notes
    assert "2 images" in note
    assert "training" in note


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    (note,) = load_arrays(written(tmp_path, images=GREY, extra_images=COLOUR, labels=DIGITS)).provenance.notes
    assert note == "Not read: extra_images (7, 8, 8, 3)."


def usps_as_roweis_has_it(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return digits as (256, digits per class, 10): pixels column by column, classes 1, 2, ..., 9, 0."""
    by_class = [images[labels == digit] for digit in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)]
    return np.stack([[image.ravel(order="F") for image in images] for images in by_class]).transpose(2, 1, 0)


def test_usps_as_roweis_distributes_it(tmp_path: Path) -> None:
    digits, labels = noise((30, 16, 16)), np.arange(30) % 10
    savemat(tmp_path / "usps_all.mat", {"data": usps_as_roweis_has_it(digits, labels)})
    with pytest.raises(InputError, match=r"\(usps\)"):
        load(str(tmp_path / "usps_all.mat"))
    images = load(f"{tmp_path}/usps_all.mat@usps", size=None)
    assert images.classes == tuple("0123456789")
    for digit in range(10):
        np.testing.assert_array_equal(images.images[images.labels == digit][:, 0], digits[labels == digit])


def test_usps_of_roweis_is_recognised_at_its_size(tmp_path: Path) -> None:
    digits, labels = noise((11_000, 16, 16)), np.arange(11_000) % 10
    savemat(tmp_path / "usps_all.mat", {"data": usps_as_roweis_has_it(digits, labels)})
    images = load(str(tmp_path / "usps_all.mat"), size=None)
    assert len(images) == 11_000
    np.testing.assert_array_equal(images.images[images.labels == 3][:, 0], digits[labels == 3])


def test_real_usps_digits_come_back_from_roweis_layout(tmp_path: Path, shared_data: Path) -> None:
    with np.load(shared_data / "usps_sample.npz") as file:
        digits, labels = file["images"], file["labels"]
    savemat(tmp_path / "usps_all.mat", {"data": usps_as_roweis_has_it(digits, labels)})
    images = load(f"{tmp_path}/usps_all.mat@usps", size=None)
    assert len(images) == 2000
    for digit in range(10):
        mean = images.images[images.labels == digit].mean(0).ravel()
        assert np.corrcoef(mean, digits[labels == digit].mean(0).ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.uint8([0, 255]), np.float32([0, 1])),
        (np.uint8([0, 255]), np.uint16([0, 65535])),
        (np.float64([0, 1]), np.float64([0, 255])),
        (np.int64([0, 1]), np.int64([0, 255])),
    ],
)
def test_parts_of_different_ranges_are_refused_unless_one_is_given(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> None:
    parts = {f"{name}_images": np.broadcast_to(part, (4, 2, 2)) for name, part in (("train", train), ("test", test))}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(InputError, match=r"train_images .* test_images .*@range=LOW:HIGH"):
        load_arrays(tmp_path / "a.npz")
    assert len(load_arrays(tmp_path / "a.npz", value_range=(0, 255))) == 8
    assert len(load_arrays(tmp_path / "a.npz", settings="range=0:255")) == 8


def test_parts_whose_greatest_values_differ_by_chance_are_one_set(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", train_images=np.full((4, 3, 3), 4000, np.uint16), test_images=np.full((4, 3, 3), 900, np.uint16)
    )
    assert load_arrays(tmp_path / "a.npz", size=None).provenance.value_range == (0, 4095)


def test_values_that_are_no_real_numbers_are_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images + 1j)
    with pytest.raises(InputError, match="complex128"):
        load_arrays(tmp_path / "a.npz")
    for labels in (np.array([1j, 0, 0, 0]), np.array(["2020-01-01"] * 4, dtype="datetime64[D]")):
        np.savez(tmp_path / "b.npz", images=images, labels=labels)
        with pytest.raises(InputError, match=str(labels.dtype).replace("[", r"\[")):
            load_arrays(tmp_path / "b.npz")


def test_flat_images_in_arrays_are_named(tmp_path: Path) -> None:
    images = noise((4, 3, 3))
    images[2] = 7
    np.savez(tmp_path / "a.npz", images=images)
    assert any(
        "1 of 4 images" in note and "00002" in note for note in load_arrays(tmp_path / "a.npz", size=None).provenance.notes
    )
