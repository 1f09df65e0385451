"""Which files are kept, which mask goes with which frame, and what a store's key depends on."""

from pathlib import Path

import pytest

from fixtures.frames import write_frames
from pixelscope.data.frames.discovery import find_classes
from pixelscope.data.frames.listing import Listing, list_frames
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig


def write(folder: Path, **contents: str) -> Path:
    """Write files `class/name`, given as class__name="content"."""
    for name, content in contents.items():
        file = folder / f"{name.replace('__', '/').replace('_', '-')}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def listed(folder: Path, strict: bool = False) -> Listing:
    return list_frames(find_classes([folder]), strict)


def test_frames_come_by_class_and_name(tmp_path: Path) -> None:
    listing = listed(write(tmp_path, polyps__b="1", polyps__a="2", normal_cecum__z="3", cecum__y="4"))
    assert [(frame.name, frame.label) for frame in listing.frames] == [
        ("cecum/y.png", 0), ("normal-cecum/z.png", 1), ("polyps/a.png", 2), ("polyps/b.png", 2),
    ]  # fmt: skip
    assert listing.notes == ()


def test_a_file_twice_in_one_class_is_kept_once(tmp_path: Path) -> None:
    listing = listed(write(tmp_path, polyps__b="same", polyps__a="same", polyps__c="same", polyps__d="other"))
    assert [frame.name for frame in listing.frames] == ["polyps/a.png", "polyps/d.png"]
    assert listing.notes == ("Left out 2 of 4 files, the same as others of their class: polyps/b.png, polyps/c.png.",)


def test_a_frame_keeps_the_mask_of_a_copy_that_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, polyps__a="same", polyps__b="same", polyps__c="other", polyp_masks__b="m")
    masks = {frame.name: frame.mask and frame.mask.name for frame in listed(tmp_path).frames}
    assert masks == {"polyps/a.png": "b.png", "polyps/c.png": None}


def test_a_file_in_two_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, polyps__b="same", cecum__a="same")
    with pytest.raises(InputError, match=r"cecum/a\.png and .*polyps/b\.png .*, 'cecum' and"):
        listed(tmp_path)


def test_empty_files_are_not_the_same(tmp_path: Path) -> None:
    assert len(listed(write(tmp_path, polyps__a="", polyps__b="", cecum__a="")).frames) == 3


def test_masks_match_by_path_and_else_by_name(tmp_path: Path) -> None:
    write(tmp_path, polyps__one__x="1", polyps__two__x="2", polyps__y="3", polyps__z="4")
    write(tmp_path, polyp_masks__one__x="m1", polyp_masks__two__x="m2", polyp_masks__deep__y="m3")
    masks = {frame.name: frame.mask and frame.mask.relative_to(tmp_path).as_posix() for frame in listed(tmp_path).frames}
    assert masks == {
        "polyps/one/x.png": "polyp-masks/one/x.png",
        "polyps/two/x.png": "polyp-masks/two/x.png",
        "polyps/y.png": "polyp-masks/deep/y.png",
        "polyps/z.png": None,
    }


def test_the_suffix_of_a_mask_is_no_part_of_its_name(tmp_path: Path) -> None:
    write(tmp_path, polyps__x="1", polyps__y="2", polyps__y_mask="m2", polyp_masks__x_mask="m1")
    masks = {frame.name: frame.mask and frame.mask.relative_to(tmp_path).as_posix() for frame in listed(tmp_path).frames}
    assert masks == {"polyps/x.png": "polyp-masks/x-mask.png", "polyps/y.png": "polyps/y-mask.png"}


def test_a_mask_that_could_be_of_two_frames_is_refused(tmp_path: Path) -> None:
    write(tmp_path, polyps__one__x="1", polyps__two__x="2", polyp_masks__x="m")
    with pytest.raises(InputError, match=r"masks/x\.png could be of polyps/one/x\.png and polyps/two/x\.png"):
        listed(tmp_path)


def test_a_frame_with_two_masks_is_refused(tmp_path: Path) -> None:
    write(tmp_path, polyps__x="1", polyp_masks__x="m")
    (tmp_path / "polyp-masks" / "x.jpg").write_text("n")
    with pytest.raises(InputError, match=r"polyps/x\.png has two masks, .*x\.jpg and .*x\.png"):
        listed(tmp_path)


def test_a_mask_without_a_frame_is_counted_or_refused(tmp_path: Path) -> None:
    write(tmp_path, polyps__x="1", polyp_masks__x="m", polyp_masks__y="n")
    assert listed(tmp_path).notes == ("Left out 1 of 2 masks, without a frame: y.png.",)
    with pytest.raises(InputError, match=r"masks/y\.png has no frame in the class 'polyps'"):
        listed(tmp_path, strict=True)


def test_masks_none_of_which_matches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class 'polyps', for example .*y.png"):
        listed(write(tmp_path, polyps__x="1", polyp_masks__y="n"))


def test_a_note_names_ten_and_counts_the_rest(tmp_path: Path) -> None:
    note = listed(write(tmp_path, **{f"polyps__{i:02d}": "same" for i in range(14)})).notes[0]
    assert note.startswith("Left out 13 of 14 files")
    assert note.endswith("polyps/10.png and 3 more.")


def test_the_key_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    contents = {"polyps__x": "1", "polyps__y": "2", "polyp_masks__x": "m", "normal_a__z": "3"}
    key = listed(write(tmp_path / "a", **contents)).key(1, {"size": 96})
    assert len(key) == 64
    assert listed(write(tmp_path / "b", **contents)).key(1, {"size": 96}) == key
    others = [
        listed(tmp_path / "a").key(2, {"size": 96}),
        listed(tmp_path / "a").key(1, {"size": 64}),
        *(listed(write(tmp_path / f"c{name}", **{**contents, name: "new"})).key(1, {"size": 96}) for name in contents),
        listed(write(tmp_path / "d", **contents, normal_a__new="4")).key(1, {"size": 96}),
    ]
    renamed = write(tmp_path / "c", polyps__x="1", polyps__z="2", polyp_masks__x="m", normal_a__z="3")
    others.append(listed(renamed).key(1, {"size": 96}))
    (tmp_path / "b" / "normal-a").rename(tmp_path / "b" / "normal-b")
    others.append(listed(tmp_path / "b").key(1, {"size": 96}))
    others.append(list_frames(find_classes([tmp_path / "a"], normal=["polyps"])).key(1, {"size": 96}))
    assert len({key, *others}) == 1 + len(others)


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", {"normal-\udcff": 3, "polyps": 3})
    (frames / "polyps" / "2.png").rename(frames / "polyps" / "\udcfe.png")
    (frames / "polyps" / "cut\udcfd.png").write_bytes(b"no image")
    index = prepare([frames], out=tmp_path / "store", normal=["normal-\udcff"], config=PrepareConfig(size=16)).index
    assert list(index.kinds) == ["normal-\\udcff", "polyps"]
    assert [frame.name for frame in index.frames][-1] == "polyps/\\udcfe.png"
    assert [file.name for file in index.left_out] == ["polyps/cut\\udcfd.png"]
    assert FrameStore.open(tmp_path / "store").index == index
