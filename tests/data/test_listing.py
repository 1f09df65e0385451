"""What lies below a folder: images, other files, what is passed over."""

import json
from pathlib import Path

import pytest

from pixelscope.data.sources.listing import Contents, contents, mark_as_own, part_of


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_every_file_is_an_image_another_file_or_passed_over(tmp_path: Path) -> None:
    found = contents(
        touch(tmp_path, "b/1.PNG", "b/scan.doc", "b-c/1.jpg", "notes.txt", ".DS_Store", "b/._1.PNG", "Thumbs.db", "b/~$x.docx")
    )
    assert found.names == ["b-c/1.jpg", "b/1.PNG"]
    assert found.images == [tmp_path / name for name in found.names]
    assert found.folders == ["b", "b-c"]
    assert found.others == ["b/scan.doc", "notes.txt"]
    assert found.skipped == [".DS_Store", "Thumbs.db", "b/._1.PNG", "b/~$x.docx"]
    assert found.own == []


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "@eadir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".cache"]
)
def test_folders_of_other_programs_are_not_entered(tmp_path: Path, name: str) -> None:
    found = contents(touch(tmp_path, "a/1.png", f"{name}/a/1.png", f"a/{name}/1.png"))
    assert found.names == ["a/1.png"]
    assert found.skipped == sorted([f"{name}/", f"a/{name}/"])
    assert found.folders == ["a"]


def test_a_folder_of_such_a_name_that_is_given_is_listed(tmp_path: Path) -> None:
    assert contents(touch(tmp_path / "@eaDir", "1.png")).names == ["1.png"]


def written(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def with_results(folder: Path) -> Path:
    touch(
        folder, "a/1.png", "x.csv.part", "x.csv.part.json", "x.csv.part.lock", "half/1.png", "half/manifest.csv.part", "a.part"
    )
    touch(folder, "run/run.json", "run/config.yaml", "run/1.png", "deep/pack/pack.json", "deep/pack/images.npy")
    written(folder, "labels.csv", "name,label,probability,runner_up,runner_up_probability,error\n")
    written(folder, "scores.jsonl", json.dumps({"name": "a/1.png", "score": 1, "error": None}) + "\n")
    written(folder, "drawn/manifest.csv", "source,file,label,style\n")
    touch(folder, "drawn/a/1.png", "maps/1.png")
    mark_as_own(folder / "maps")
    return folder


def test_results_of_ours_are_no_inputs(tmp_path: Path) -> None:
    found = contents(with_results(tmp_path))
    assert found.names == ["a/1.png"]
    assert found.others == ["a.part"]
    assert found.own == [
        "deep/pack/", "drawn/", "half/", "labels.csv", "maps/", "run/", "scores.jsonl", "x.csv.part", "x.csv.part.json",
        "x.csv.part.lock",
    ]  # fmt: skip
    assert found.children() == ["a"]


def test_results_that_are_given_are_inputs(tmp_path: Path) -> None:
    assert contents(with_results(tmp_path) / "drawn").names == ["a/1.png"]


def test_tables_of_others_are_other_files(tmp_path: Path) -> None:
    written(tmp_path, "labels.csv", "name,label\n1.png,a\n")
    written(tmp_path, "manifest.csv", "file,class\n1.png,a\n")
    written(tmp_path, "odd.csv", "\x00\xff,")
    written(tmp_path, "odd.jsonl", "[]\n")
    written(tmp_path, "empty.csv", "")
    assert contents(tmp_path).own == []


def test_children_are_folders_with_their_emptiness(tmp_path: Path) -> None:
    found = contents(touch(tmp_path, "a/x/1.png", "b/notes.txt", "c/.hidden"))
    assert found.children() == ["a", "b", "c"]
    assert found.children("a") == ["x"]
    assert [found.holds_images(name) for name in ("a", "a/x", "b")] == [True, True, False]


def test_notes_count_by_kind(tmp_path: Path) -> None:
    found = contents(touch(tmp_path, "1.png", "2.doc", "3.doc", "4.heic", "README", "__MACOSX/x", ".a"))
    others, skipped = found.notes()
    assert "4 files (2 .doc, 1 .heic, 1 without an ending): 2.doc, 3.doc, 4.heic, README." in others
    assert skipped.endswith(": 1 folder, 1 file.")
    assert found.notes(used=["2.doc", "3.doc", "4.heic", "README"]) == (skipped,)
    assert Contents([], [], [], [], [], []).notes() == ()


def test_a_note_on_a_file_whose_name_has_a_line_break_is_one_line(tmp_path: Path) -> None:
    (note,) = contents(touch(tmp_path, "1.png", "a\nb\x1b[31m.doc")).notes()
    assert "a\\nb\\x1b[31m.doc" in note and note.isprintable()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("train_set", "train"), ("train2017", "train"),
        ("val", "validation"), ("Valid", "validation"), ("validation", "validation"), ("test", "test"), ("Testing", "test"),
        ("test-images", "test"), ("trainee", None), ("contest", None), ("testis", None), ("valley", None), ("", None),
    ],
)  # fmt: skip
def test_parts_are_known_by_name_in_any_case(name: str, part: str | None) -> None:
    assert part_of(name) == part
