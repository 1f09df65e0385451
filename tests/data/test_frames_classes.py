"""Folders to classes, kinds and masks, by their names."""

from pathlib import Path

import pytest

from pixelscope.data.frames.discovery import KINDS, Found, find_classes
from pixelscope.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def frames(found: Found) -> list[str]:
    return [f"{file.owner}: {file.within}" for file in found.frames]


def masks(found: Found) -> list[str]:
    return [f"{file.owner}: {file.within}" for file in found.masks]


def test_the_classes_of_kvasir_are_known(tmp_path: Path) -> None:
    names = ["polyps", "normal-z-line", "normal-pylorus", "dyed-lifted-polyps", "esophagitis", "ulcerative-colitis"]
    found = find_classes([touch(tmp_path, *(f"{name}/1.jpg" for name in names))])
    assert list(found.kinds.items()) == [
        ("normal-pylorus", "normal"), ("normal-z-line", "normal"), ("dyed-lifted-polyps", "abnormal"),
        ("esophagitis", "abnormal"), ("polyps", "abnormal"), ("ulcerative-colitis", "abnormal"),
    ]  # fmt: skip
    assert frames(found) == [f"{name}: 1.jpg" for name in sorted(names)]


def test_the_23_classes_of_hyperkvasir_are_known_however_deep(tmp_path: Path) -> None:
    lower, upper = tmp_path / "labeled-images" / "lower-gi-tract", tmp_path / "labeled-images" / "upper-gi-tract"
    found = find_classes(
        [touch(tmp_path, *(f"{(lower if i % 2 else upper).relative_to(tmp_path)}/x/{n}/1.jpg" for i, n in enumerate(KINDS)))]
    )
    assert found.kinds == KINDS
    assert {name for name, kind in found.kinds.items() if kind == "normal"} == {
        "normal", "healthy", "bbps-2-3", "cecum", "ileum", "pylorus", "retroflex-rectum", "retroflex-stomach", "z-line",
    }  # fmt: skip


def test_case_spaces_and_underscores_do_not_matter(tmp_path: Path) -> None:
    found = find_classes([touch(tmp_path, "Normal_Cecum/1.jpg", "Ulcerative Colitis/1.jpg")])
    assert found.kinds == {"Normal_Cecum": "normal", "Ulcerative Colitis": "abnormal"}


def test_frames_lie_at_any_depth_of_a_known_class(tmp_path: Path) -> None:
    found = find_classes([touch(tmp_path, "polyps/2020/may/a.jpg", "polyps/b.jpg", "normal-cecum/x/c.jpg")])
    assert frames(found) == ["normal-cecum: x/c.jpg", "polyps: 2020/may/a.jpg", "polyps: b.jpg"]


def test_a_folder_may_be_a_class_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "polyps/1.jpg", "normal-colon/1.jpg")
    assert frames(find_classes([tmp_path / "polyps", tmp_path / "normal-colon"])) == ["normal-colon: 1.jpg", "polyps: 1.jpg"]
    monkeypatch.chdir(tmp_path / "polyps")
    assert find_classes([Path()]).kinds == {"polyps": "abnormal"}


def test_other_classes_are_named_by_hand(tmp_path: Path) -> None:
    touch(tmp_path, "clean/1.jpg", "bleeding/1.jpg", "polyps/1.jpg")
    found = find_classes([tmp_path], normal=["clean"], abnormal=["bleeding"])
    assert found.kinds == {"clean": "normal", "bleeding": "abnormal", "polyps": "abnormal"}
    assert find_classes([tmp_path], normal=["clean", "polyps"], abnormal=["bleeding"]).kinds["polyps"] == "normal"


def test_a_class_named_by_hand_may_hold_folders_only(tmp_path: Path) -> None:
    touch(tmp_path, "clean/patient1/1.jpg", "clean/patient2/1.jpg")
    assert frames(find_classes([tmp_path], normal=["clean"])) == ["clean: patient1/1.jpg", "clean: patient2/1.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("clean/1.jpg", "polyps/1.jpg"), "The class 'clean' is not known; .* --normal clean or --abnormal clean"),
        (("b/1.jpg", "a/1.jpg"), "The classes 'a', 'b' are not known; .* --normal a or --abnormal a"),
        (("images/1.jpg", "masks/1.jpg"), "The class 'images' is not known"),
        (tuple(f"c{i:02d}/1.jpg" for i in range(12)), "'c09' and 2 more are not known"),
    ],
)
def test_an_unknown_class_is_named_with_the_flags(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_classes([touch(tmp_path, *files)])


@pytest.mark.parametrize("files", [("1.jpg", "2.jpg"), ("mine/1.jpg",), ("1.jpg", "more/2.jpg")])
def test_one_unknown_class_and_nothing_else_is_what_is_to_be_learnt(tmp_path: Path, files: tuple[str, ...]) -> None:
    found = find_classes([touch(tmp_path / "lot", *files)])
    assert list(found.kinds.values()) == ["normal"]
    assert len(found.frames) == len(files)


def test_folders_of_masks_are_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "polyps/a.jpg", "polyp-masks/a.png", "normal-cecum/b.jpg", "normal-cecum/masks/b.png")
    found = find_classes([tmp_path])
    assert found.kinds == {"normal-cecum": "normal", "polyps": "abnormal"}
    assert frames(found) == ["normal-cecum: b.jpg", "polyps: a.jpg"]
    assert masks(found) == ["normal-cecum: b.png", "polyps: a.png"]


def test_masks_alone_belong_to_the_one_abnormal_class(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/a.png", "normal-cecum/b.jpg")
    assert masks(find_classes([tmp_path], abnormal=["images"])) == ["images: a.png"]
    touch(tmp_path, "polyps/c.jpg")
    with pytest.raises(InputError, match="could be of images or polyps"):
        find_classes([tmp_path], abnormal=["images"])


def test_masks_of_a_class_that_is_not_given_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "normal-cecum/b.jpg", "polyp-masks/a.png")
    with pytest.raises(InputError, match="'polyp' .* belong to no class"):
        find_classes([tmp_path])


def test_masks_of_any_folder_may_be_given_by_class(tmp_path: Path) -> None:
    touch(tmp_path, "Original/a.png", "Ground Truth/a.png")
    found = find_classes([tmp_path], abnormal=["Original"], masks={"Original": tmp_path / "Ground Truth"})
    assert frames(found) == ["Original: a.png"]
    assert masks(found) == ["Original: a.png"]
    assert found.masks[0].path == tmp_path / "Ground Truth" / "a.png"


def test_files_named_as_a_frame_and_mask_are_masks(tmp_path: Path) -> None:
    touch(
        tmp_path, "polyps/a.jpg", "polyps/a_mask.png", "polyps/b.png", "polyps/b_Segmentation.png", "normal-cecum/face_mask.jpg"
    )
    found = find_classes([tmp_path])
    assert frames(found) == ["normal-cecum: face_mask.jpg", "polyps: a.jpg", "polyps: b.png"]
    assert masks(found) == ["polyps: a_mask.png", "polyps: b_Segmentation.png"]


def test_masks_given_by_hand_for_no_class_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "polyps/a.png", "other/a.png")
    with pytest.raises(InputError, match="'typo' .* belong to no class"):
        find_classes([tmp_path], masks={"typo": tmp_path / "other"})


@pytest.mark.parametrize("files", [("1.jpg", "polyps/1.jpg"), ("polyps/1.jpg", "polyps/normal-cecum/2.jpg")])
def test_a_class_within_another_is_an_unknown_layout(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="contains another, "):
        find_classes([touch(tmp_path / "lot", *files)])


@pytest.mark.parametrize(
    ("files", "what"), [((), "no images"), (("a/notes.txt",), "no images"), (("masks/1.png",), "only masks")]
)
def test_a_folder_without_frames_is_refused(tmp_path: Path, files: tuple[str, ...], what: str) -> None:
    with pytest.raises(InputError, match=f"There are {what} in {tmp_path}"):
        find_classes([touch(tmp_path, *files)])


@pytest.mark.parametrize("name", ["nowhere", "file.jpg"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(InputError, match=f"There is no folder {tmp_path / name}"):
        find_classes([tmp_path / name])


def test_a_flag_that_names_nothing_suggests_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "clean-colon/1.jpg", "polyps/1.jpg")
    with pytest.raises(InputError, match="'clean' with frames; the folders have clean-colon"):
        find_classes([tmp_path], normal=["clean"])


def test_a_class_is_not_of_both_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a' is given as normal and as abnormal"):
        find_classes([touch(tmp_path, "a/1.jpg")], normal=["a"], abnormal=["a"])


@pytest.mark.parametrize("name", ["all", "abnormal"])
def test_a_healthy_class_is_not_called_as_all_frames_of_a_kind_are(tmp_path: Path, name: str) -> None:
    folder = touch(tmp_path, f"{name}/1.jpg", "polyps/1.jpg")
    with pytest.raises(InputError, match=f"'{name}'; rename the class folder"):
        find_classes([folder], normal=[name])
    assert find_classes([folder / name], normal=[name]).kinds == {name: "normal"}


def test_folders_given_twice_count_once(tmp_path: Path) -> None:
    touch(tmp_path, "polyps/1.jpg", "polyp-masks/1.png")
    found = find_classes([tmp_path, tmp_path, tmp_path / "polyps"])
    assert frames(found) == ["polyps: 1.jpg"]
    assert masks(found) == ["polyps: 1.png"]


def test_one_class_may_come_from_two_folders_but_not_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/polyps/1.jpg", "b/polyps/2.jpg")
    assert frames(find_classes([tmp_path])) == ["polyps: 1.jpg", "polyps: 2.jpg"]
    touch(tmp_path, "b/polyps/1.jpg")
    with pytest.raises(InputError, match="name polyps/1.jpg: .*a/polyps/1.jpg and .*b/polyps/1.jpg"):
        find_classes([tmp_path])


@pytest.mark.parametrize("halves", [("train", "test"), ("Training", "Testing"), ("Train", "val")])
def test_parts_of_a_split_are_no_classes(tmp_path: Path, halves: tuple[str, str]) -> None:
    one, two = halves
    found = find_classes([touch(tmp_path, f"{one}/polyps/1.jpg", f"{two}/polyps/1.jpg", f"{one}/normal-cecum/2.jpg")])
    assert frames(found) == [
        f"normal-cecum: {one}/2.jpg", *(f"polyps: {half}/1.jpg" for half in sorted((one, two))),
    ]  # fmt: skip
    assert any(", ".join(sorted(halves)) in note for note in found.notes)


def test_parts_with_frames_in_them_are_one_class(tmp_path: Path) -> None:
    found = find_classes([touch(tmp_path / "colon", "train/1.jpg", "test/1.jpg")])
    assert found.kinds == {"colon": "normal"}
    assert frames(found) == ["colon: test/1.jpg", "colon: train/1.jpg"]


def test_parts_that_are_given_one_by_one_keep_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/polyps/1.jpg", "test/polyps/1.jpg")
    assert frames(find_classes([tmp_path / "train", tmp_path / "test"])) == ["polyps: test/1.jpg", "polyps: train/1.jpg"]
    assert frames(find_classes([tmp_path / "train"])) == ["polyps: 1.jpg"]


def test_a_part_that_is_named_as_a_class_is_one(tmp_path: Path) -> None:
    found = find_classes([touch(tmp_path, "test/1.jpg", "polyps/1.jpg")], normal=["test"])
    assert found.kinds == {"test": "normal", "polyps": "abnormal"}


def test_masks_are_those_of_their_part(tmp_path: Path) -> None:
    names = [f"{half}/{folder}/1.jpg" for half in ("train", "test") for folder in ("polyps", "polyp-masks")]
    found = find_classes([touch(tmp_path, *names, "polyps/val/2.jpg", "polyps/val/masks/2.png")])
    assert frames(found) == ["polyps: test/1.jpg", "polyps: train/1.jpg", "polyps: val/2.jpg"]
    assert masks(found) == ["polyps: test/1.jpg", "polyps: train/1.jpg", "polyps: val/2.png"]


def test_files_of_other_programs_are_no_frames_and_are_noted(tmp_path: Path) -> None:
    names = ["normal-x/1.jpg", "normal-x/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/normal-x/._1.jpg", "normal-x/2.doc"]
    found = find_classes([touch(tmp_path, *names)])
    assert frames(found) == ["normal-x: 1.jpg"]
    assert found.notes[0].endswith("1 file (1 .doc): normal-x/2.doc.")
    assert found.notes[1].endswith(": 2 folders, 0 files.")


def test_parts_of_a_split_behind_a_common_beginning(tmp_path: Path) -> None:
    names = [f"seg_{part}/{folder}/0.png" for part in ("train", "test") for folder in ("normal-a", "polyps")]
    found = find_classes([touch(tmp_path, *names)])
    assert sorted(f"{frame.owner}: {frame.within}" for frame in found.frames) == [
        f"{folder}: seg_{part}/0.png" for folder in ("normal-a", "polyps") for part in ("test", "train")
    ]
    assert any("seg_test, seg_train" in note for note in found.notes)
