"""Folders of images: what their structure says, what is skipped, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.made import noise, write_classes
from pixelscope.data import load
from pixelscope.data.folder import load_folder
from pixelscope.errors import InputError


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise((12, 12, 3), seed)).save(path)


def test_classes_are_the_sub_folders(tmp_path: Path) -> None:
    images = load_folder(write_classes(tmp_path, {"polyp": 3, "normal": 2}), None)
    assert images.classes == ("normal", "polyp")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 1]
    assert list(images.names) == ["normal/0.png", "normal/1.png", "polyp/0.png", "polyp/1.png", "polyp/2.png"]
    np.testing.assert_array_equal(images.images[3].permute(1, 2, 0).numpy(), noise((12, 12, 3), 1))
    assert images.test is None
    assert images.collection is None


def test_images_may_lie_deeper_in_a_class(tmp_path: Path) -> None:
    for name in ("cat/2020/may/a.png", "cat/b.png", "dog/x/y.png"):
        write_image(tmp_path / name)
    images = load_folder(tmp_path)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "names",
    [("a.png", "b.png"), ("only/a.png", "only/b.png"), ("a.png", "x/b.png", "y/c.png"), ("deep/x/a.png", "deep/y/b.png")],
)
def test_other_layouts_are_unlabelled(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_image(tmp_path / name)
    images = load_folder(tmp_path)
    assert images.labels is None
    assert images.classes == ()
    assert list(images.names) == sorted(names)
    assert "unlabelled" in images.provenance.title


def test_train_and_test_are_a_split_and_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 1})
    write_classes(tmp_path / "val", {"b": 1})
    write_classes(tmp_path / "test", {"b": 2, "c": 1})
    images = load_folder(tmp_path)
    assert images.classes == ("a", "b", "c")
    assert images.labels is not None
    assert images.test is not None
    split = {name: (int(label), bool(test)) for name, label, test in zip(images.names, images.labels, images.test, strict=True)}
    assert split == {
        "test/b/0.png": (1, True), "test/b/1.png": (1, True), "test/c/0.png": (2, True), "train/a/0.png": (0, False),
        "train/a/1.png": (0, False), "train/b/0.png": (1, False), "val/b/0.png": (1, False),
    }  # fmt: skip


def test_an_unlabelled_split_is_kept(tmp_path: Path) -> None:
    for name in ("train/a.png", "train/b.png", "test/c.png"):
        write_image(tmp_path / name)
    images = load_folder(tmp_path)
    assert images.labels is None
    assert images.test is not None
    assert images.test.tolist() == [True, False, False]


def test_an_unreadable_image_is_skipped_counted_and_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 2})
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    images = load_folder(tmp_path)
    assert images.provenance.notes == ("Skipped 1 unreadable of 5 images: a/1.png.",)
    assert list(images.names) == ["a/0.png", "a/2.png", "b/0.png", "b/1.png"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1]
    whole = load_folder(write_classes(tmp_path / "again", {"a": 3, "b": 2}))
    assert images.images[1].equal(whole.images[2])


def test_the_note_names_ten_and_counts_the_rest(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / f"z{i}.png")
    for i in range(12):
        (tmp_path / f"{i:02d}.png").touch()
    note = load_folder(tmp_path).provenance.notes[0]
    assert note.startswith("Skipped 12 unreadable of 14 images: 00.png, ")
    assert note.endswith("09.png and 2 more.")


def test_strict_refuses_an_unreadable_image(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 2})
    (tmp_path / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"Cannot read the image .*b/0\.png"):
        load(str(tmp_path), strict=True)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2, "empty": 0})
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=rf"The class folder {tmp_path}/empty has no images; add some, or remove the folder\."):
        load_folder(tmp_path)


def test_a_class_of_a_split_without_images_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "test", {"a": 2, "b": 0})
    with pytest.raises(InputError, match=rf"The class folder {tmp_path}/test/b has no images"):
        load_folder(tmp_path)


def test_an_empty_half_of_a_split_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match=rf"The folder {tmp_path}/test has no images"):
        load_folder(tmp_path)


def test_a_class_none_of_whose_images_can_be_read_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="No image of the class 'b' in .* can be read"):
        load_folder(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=f"There are no images in {tmp_path}; put .png or .jpg files there"):
        load_folder(tmp_path)


def test_a_folder_of_damaged_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"None of the 2 images in .* can be read; the first: Cannot read the image .*a\.png"):
        load_folder(tmp_path)


def test_one_image_only_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match=r"has one readable image only, a\.png; a set needs at least two"):
        load_folder(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        load_folder(tmp_path / "nowhere")


def test_sizes_and_modes_are_brought_to_one(tmp_path: Path) -> None:
    Image.new("L", (100, 40), 200).save(tmp_path / "wide.jpg")
    Image.new("RGBA", (9, 31), (10, 20, 30, 255)).save(tmp_path / "tall.png")
    images = load_folder(tmp_path, 16)
    assert images.images.shape == (2, 3, 16, 16)
    assert images.images[0, :, 8, 8].tolist() == [10, 20, 30]
    assert images.images[1, :, 8, 8].tolist() == [200, 200, 200]


def test_grey_folders_stay_grey(tmp_path: Path) -> None:
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    assert load_folder(tmp_path, None).images.shape == (2, 1, 8, 8)


def test_loading_twice_gives_the_same(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 20, "b": 20})
    first, again = load_folder(tmp_path), load_folder(tmp_path)
    assert first.digest() == again.digest()
    assert first.names == again.names


def test_real_frames_of_every_size(shared_data: Path) -> None:
    images = load(str(shared_data / "kvasir" / "normal-cecum-720x576"), size=64)
    assert images.images.shape == (151, 3, 64, 64)
    assert images.labels is None
