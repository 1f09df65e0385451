"""Folders of images: what their structure says, what is skipped, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.sources import noise, write_classes
from pixelscope.data import load
from pixelscope.data.pack import pack
from pixelscope.data.sources.folder import load_folder
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
    np.testing.assert_array_equal(images.images[3].transpose(1, 2, 0), noise((12, 12, 3), 1))
    assert images.test is None
    assert images.collection is None


def test_a_link_that_leads_back_is_not_called_hidden_alone(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "set", {"polyp": 3, "normal": 2})
    (folder / "polyp" / "back").symlink_to(folder)
    images = load_folder(folder)
    assert len(images) == 5
    assert any("link to a folder around it: 1 folder" in note for note in images.provenance.notes)


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
    assert np.array_equal(images.images[1], whole.images[2])


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
    with pytest.raises(InputError, match=rf"{tmp_path}/empty has no images"):
        load_folder(tmp_path)


def test_a_class_of_a_split_without_images_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "test", {"a": 2, "b": 0})
    with pytest.raises(InputError, match=rf"{tmp_path}/test/b has no images"):
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
    with pytest.raises(InputError, match=f"no images in {tmp_path}"):
        load_folder(tmp_path)


def test_a_folder_of_damaged_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"None of the 2 images .*a\.png"):
        load_folder(tmp_path)


def test_one_image_only_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match=r"one readable image only, a\.png"):
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


def test_real_frames_of_every_size(real_frames: Path) -> None:
    images = load(str(real_frames / "normal-cecum-720x576"), size=64)
    assert images.images.shape == (151, 3, 64, 64)
    assert images.labels is None


def write_split(folder: Path, *halves: str) -> Path:
    for seed, half in enumerate(halves):
        for i in range(4):
            write_image(folder / half / ("ants", "bees")[i % 2] / f"{i}.png", 10 * seed + i)
    return folder


@pytest.mark.parametrize(
    ("halves", "held"),
    [
        (("train", "test"), "test"), (("Training", "Testing"), "Testing"), (("TRAIN", "Test"), "Test"),
        (("train", "validation", "test"), "test"), (("train", "valid", "test"), "test"),
        (("train_set", "test_set"), "test_set"),
        (("Train", "Val"), "Val"), (("train", "validation"), "validation"), (("val", "test"), "test"),
    ],
)  # fmt: skip
def test_parts_of_a_split_are_known_in_any_case(tmp_path: Path, halves: tuple[str, ...], held: str) -> None:
    images = load_folder(write_split(tmp_path, *halves))
    assert images.classes == ("ants", "bees")
    assert images.test is not None
    assert {name.split("/")[0] for name, test in zip(images.names, images.test, strict=True) if test} == {held}
    training = ", ".join(sorted(set(halves) - {held}))
    assert images.provenance.notes == (f"Taken for a split, not for classes: {training} for training, {held} for the test.",)


def test_one_part_alone_has_classes_and_no_split(tmp_path: Path) -> None:
    images = load_folder(write_split(tmp_path, "Train"))
    assert images.classes == ("ants", "bees")
    assert images.test is None
    assert "Train" in images.provenance.notes[0]


def test_a_class_called_test_beside_others_is_a_class(tmp_path: Path) -> None:
    images = load_folder(write_classes(tmp_path, {"bus": 2, "test": 2, "tram": 1}))
    assert images.classes == ("bus", "test", "tram")
    assert images.test is None
    (note,) = images.provenance.notes
    assert "bus, tram" in note and note.endswith(": test.")


def test_a_split_beside_other_images_is_refused(tmp_path: Path) -> None:
    write_image(write_split(tmp_path, "train", "test") / "extra" / "1.png")
    with pytest.raises(InputError, match=r"test, train, and also extra"):
        load_folder(tmp_path)


@pytest.mark.parametrize("parts", [("val", "test"), ("train", "training")])
def test_folders_beside_a_class_are_a_split_only_with_training_and_another_part(tmp_path: Path, parts: tuple[str, str]) -> None:
    found = load_folder(_touch(tmp_path, *(f"{name}/{number}.png" for name in (*parts, "cats") for number in "12")))
    assert found.classes == tuple(sorted((*parts, "cats")))
    assert any("Read as a class" in note for note in found.provenance.notes)


def test_a_split_beside_folders_without_images_is_one(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "train", "test")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "a.xml").touch()
    images = load_folder(folder)
    assert images.classes == ("ants", "bees")
    assert "1 file (1 .xml): annotations/a.xml" in images.provenance.notes[1]


@pytest.mark.parametrize("name", ["preview.png", "test/preview.png"])
def test_a_note_says_why_folders_are_no_classes(tmp_path: Path, name: str) -> None:
    write_image(write_split(tmp_path, "train", "test") / name)
    images = load_folder(tmp_path)
    assert images.labels is None
    assert any("Unlabelled" in note and name in note for note in images.provenance.notes)


def test_names_with_braces_are_names(tmp_path: Path) -> None:
    write_classes(tmp_path, {"{a}": 2, "{}": 2})
    (tmp_path / "x.{0}").touch()
    write_image(tmp_path / "loose.png")
    notes = load_folder(tmp_path).provenance.notes
    assert "folders {a}, {}: loose.png" in notes[0]
    assert notes[1].endswith("1 file (1 .{0}): x.{0}.")


def test_a_note_says_where_the_only_folder_is(tmp_path: Path) -> None:
    write_classes(tmp_path / "photos", {"a": 2, "b": 2})
    images = load_folder(tmp_path)
    assert images.labels is None
    assert f"give {tmp_path}/photos." in images.provenance.notes[0]


def test_folders_of_other_programs_are_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    write_image(tmp_path / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "a" / "Thumbs.db").touch()
    images = load_folder(tmp_path)
    assert images.classes == ("a", "b")
    assert len(images) == 4
    assert images.provenance.notes[0].endswith(": 2 folders, 1 file.")


def test_results_inside_the_folder_are_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    for name in ("runs/00001-x/run.json", "runs/00001-x/config.yaml", "drawn/manifest.csv.part", "drawn/a/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = load_folder(tmp_path)
    assert images.classes == ("a", "b")
    assert "2 (drawn/, runs/00001-x/)" in images.provenance.notes[0]


def test_further_pages_are_counted(tmp_path: Path) -> None:
    pages = [Image.fromarray(noise((12, 12), seed)) for seed in range(4)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.gif", save_all=True, append_images=pages[1:3])
    pages[0].save(tmp_path / "moving.png", save_all=True, append_images=pages[1:2])
    pages[0].save(tmp_path / "still.tif")
    pages[0].save(tmp_path / "still.png")
    (tmp_path / "broken.tif").write_bytes((tmp_path / "scan.tif").read_bytes()[:60])
    images = load_folder(tmp_path)
    assert len(images) == 5
    assert images.provenance.notes[0].startswith("Skipped 1 unreadable of 6")
    assert images.provenance.notes[1].startswith("Read only the first page of 3 files, of 6 further pages: moving.gif, ")
    assert images.provenance.notes[2] == "The 6 images are files of several kinds: 3 .tif, 2 .png, 1 .gif."


def test_a_folder_of_other_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "a.doc").touch()
    with pytest.raises(InputError, match=r"There are no images in .*1 \.doc"):
        load_folder(tmp_path)


def write_labels(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    for i in range(4):
        write_image(folder / f"{i}.png", i)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("head", ["name,label\n", "", "\ufeffFilename,Class\r\n", '"filepath", "diagnosis"\n'])
@pytest.mark.parametrize("name", ["labels.csv", "Labels.CSV"])
def test_labels_lie_beside_the_images(tmp_path: Path, head: str, name: str) -> None:
    write_image(tmp_path / "deep" / "a, b.png", 9)
    images = load_folder(write_labels(tmp_path, head + '3.png,cat\n\n"deep/a, b.png","dog, ""big"""\n0.png,cat\n', name), None)
    assert images.classes == ("cat", 'dog, "big"')
    assert images.labels is not None
    assert dict(zip(images.names, images.labels.tolist(), strict=True)) == {"0.png": 0, "3.png": 0, "deep/a, b.png": 1}
    np.testing.assert_array_equal(images.images[1].transpose(1, 2, 0), noise((12, 12, 3), 3))
    assert images.provenance.notes == (
        f"Labels are from {name}, for 3 images.",
        f"Left out 2 of 5 images, which {name} does not list: 1.png, 2.png.",
    )


def test_quotes_after_a_comma_and_a_blank_are_no_part_of_a_label(tmp_path: Path) -> None:
    images = load_folder(write_labels(tmp_path, '"0.png", "007"\n"1.png", "dog, big"\n'))
    assert images.classes == ("007", "dog, big")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1]


def test_whole_numbers_are_sorted_as_such(tmp_path: Path) -> None:
    assert load_folder(write_labels(tmp_path, "0.png,10\n1.png,9\n2.png,0\n")).classes == ("0", "9", "10")


def test_lines_without_an_image_are_counted(tmp_path: Path) -> None:
    images = load_folder(write_labels(tmp_path, "0.png,a\n1.png,b\ngone.png,c\n"))
    assert images.classes == ("a", "b")
    assert "1 of 3 lines of labels.csv name no image that is there: gone.png." in images.provenance.notes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("label,name\na,0.png\nb,1.png\n", "has the labels first"),
        ("a,0.png\nb,1.png\n", "has the labels first"),
        ("0.png,a\n1.png,b\n0.png,a\n", r"lists 0\.png twice, the second time in line 3"),
        ("0.png;a\n1.png;b\n", "has 1 value in line 1, not 2.*comma"),
        ("0.png,a,b\n", "has 3 values in line 1"),
        ("0.png,a\n1.png,\n", "has no label for 1.png in line 2"),
        ('0.png,"a\n', "cannot be read as CSV"),
        (b"0.png,\xff\n", "cannot be read as CSV"),
        ("x.png,a\ny.png,b\n", r"lists no image of .*for example x\.png"),
        ("", "lists no image of"),
    ],
)
def test_a_label_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path}/labels\.csv.*{reason}"):
        load_folder(write_labels(tmp_path, text))


def test_each_part_of_a_split_may_have_labels_of_its_own(tmp_path: Path) -> None:
    write_labels(tmp_path / "train", "0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    write_labels(tmp_path / "Test", "0.png,b\n1.png,a\n2.png,a\n3.png,a\n")
    images = load_folder(tmp_path)
    assert images.classes == ("a", "b")
    assert images.labels is not None
    assert images.test is not None
    assert images.labels.tolist() == [1, 0, 0, 0, 0, 1, 0, 1]
    assert images.test.tolist() == [True] * 4 + [False] * 4


def test_a_table_of_results_is_no_label_file(tmp_path: Path) -> None:
    head = "name,label,probability,runner_up,runner_up_probability,error\n"
    images = load_folder(write_labels(tmp_path, f"{head}0.png,a,1,b,0,\n"))
    assert images.labels is None
    assert len(images) == 4


def _touch(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise((12, 12, 3), number)).save(folder / name)
    return folder


def test_parts_of_a_split_may_share_a_beginning(tmp_path: Path) -> None:
    names = [f"seg_{part}/{name}/{number}.png" for part in ("train", "test") for name in "ab" for number in "12"]
    found = load_folder(_touch(tmp_path / "all", *names))
    assert found.classes == ("a", "b")
    assert found.test is not None
    assert found.test.tolist() == [name.startswith("seg_test") for name in found.names]
    trains = load_folder(_touch(tmp_path / "trains", "night_train/1.png", "night_train/2.png", "freight_train/3.png"))
    assert trains.classes == ("freight_train", "night_train")


def test_a_split_inside_each_class_is_kept(tmp_path: Path) -> None:
    names = [f"{name}/{part}/{number}.png" for name in ("ants", "bees") for part in ("Train", "Test") for number in "12"]
    found = load_folder(_touch(tmp_path / "all", *names))
    assert found.classes == ("ants", "bees")
    assert found.test is not None
    assert found.test.tolist() == ["/Test/" in name for name in found.names]
    assert any("In each class" in note for note in found.provenance.notes)
    mixed = load_folder(_touch(tmp_path / "mixed", *names, "ants/3.png"))
    assert mixed.test is None
    assert any("Not read as a split" in note for note in mixed.provenance.notes)


def test_two_domains_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = _touch(tmp_path, *(f"{part}{end}/{number}.png" for part in ("train", "test") for end in "AB" for number in "12"))
    with pytest.raises(InputError, match="two domains; .*trainA and .*trainB"):
        load_folder(folder)


def test_classes_that_differ_in_case_are_named(tmp_path: Path) -> None:
    found = load_folder(_touch(tmp_path, "Ants/1.png", "ants/2.png", "bees/3.png"))
    assert found.classes == ("Ants", "ants", "bees")
    assert [note for note in found.provenance.notes if "case alone" in note and "Ants and ants" in note]


@pytest.mark.parametrize("packed", [False, True])
def test_images_that_show_nothing_are_named(tmp_path: Path, packed: bool) -> None:
    """A white drawing on transparent ground is lost on white; a black one is not."""
    drawing = np.zeros((12, 12), np.uint8)
    drawing[3:9, 5:7] = 255
    for name, ink in (("white", 255), ("black", 0)):
        layers = np.dstack([np.full((12, 12, 3), ink, np.uint8), drawing])
        Image.fromarray(layers).save(tmp_path / f"{name}.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    found = pack(str(tmp_path), tmp_path / "pack", size=12) if packed else load(str(tmp_path), size=12)
    (note,) = [note for note in found.provenance.notes if "flat colour" in note]
    assert "white.png" in note
    assert "black.png" not in note
    assert "1 of 3 images" in note
