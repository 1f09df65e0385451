"""Files through a stand-in for a model: order, errors, what is kept when it stops, how far it reads ahead."""

import csv
import errno
import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pixelscope import InputError, Interrupted
from pixelscope.data.formats.decode import decode
from pixelscope.files import atomic_file
from pixelscope.inference.files import (
    InputFile,
    batches,
    count_files,
    in_order,
    is_frame,
    iterate_files,
    label_of,
    require_distinct_names,
    skipped_notes,
)
from pixelscope.inference.pipeline import BATCH, ERROR, Steps, run_pipeline, unwritable
from pixelscope.inference.table import ResumableTable

WHO = {"model": "mean"}


def folder_of(path: Path, many: int) -> Path:
    for number in range(many):
        inner = path / f"class{number % 3}"
        inner.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number % 256).save(inner / f"{number:04d}.png")
    return path


def table(out: Path, resume: bool = False) -> ResumableTable:
    return ResumableTable(out, ("name", "mean", ERROR), WHO, resume)


def means(devices: int = 1, delay: float = 0.0, fail_after: int | None = None, error: BaseException | None = None) -> Steps:
    begun, done = itertools.count(), list[int]()

    def compute(items: Sequence[InputFile], images: Sequence[np.ndarray]) -> list[dict]:
        time.sleep(delay * (3 - next(begun) % 3))  # those begun first are ready last
        done.append(len(items))
        if fail_after is not None and sum(done) > fail_after:
            assert error is not None
            raise error
        return [{"mean": float(image.mean())} for image in images]

    return Steps(lambda item: decode(item.path), compute, devices)


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_come_sorted_folder_by_folder_and_hidden_ones_not(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a.png", "c/.hidden.png", ".git/x.png", "c/d/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    found = [item.path.relative_to(tmp_path).as_posix() for item in iterate_files([tmp_path])]
    assert found == ["a.png", "b/1.png", "b/2.png", "c/d/notes.txt"]
    assert count_files([tmp_path]) == 4
    several = [item.inner.as_posix() for item in iterate_files([tmp_path / "b", tmp_path / "a.png"])]
    assert several == ["b/1.png", "b/2.png", "a.png"]
    with pytest.raises(InputError, match="There is no .*nothing"):
        list(iterate_files([tmp_path / "nothing"]))
    with pytest.raises(InputError, match="No images are given"):
        list(iterate_files([]))


def test_folders_given_as_dots_are_named_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`..` led out of the folder of the maps, and frames of `.` could get the names of those of another folder."""
    for name in ("a/b/1.png", "a/2.png", "c/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "a" / "b")
    names = [item.inner.as_posix() for item in iterate_files([Path(".."), Path("../../c/b")])]
    assert names == ["a/2.png", "a/b/1.png", "b/1.png"]
    monkeypatch.chdir(tmp_path / "a")
    names = [item.inner.as_posix() for item in iterate_files([Path(), Path("../c/b")])]
    assert names == ["a/2.png", "a/b/1.png", "b/1.png"]
    with pytest.raises(InputError, match="called a"):
        require_distinct_names([Path(), tmp_path / "a"])


def test_frames_come_without_their_masks_and_without_other_files(tmp_path: Path) -> None:
    """As `prepare` finds them: a mask is named after a frame next to it, or is in a folder of masks."""
    for name in ("a/1.JPG", "a/1_mask.png", "a/1.json", "a/2_mask.png", "a/masks/1.png", "polyp-masks/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [item.path.relative_to(tmp_path).as_posix() for item in iterate_files([tmp_path], is_frame)]
    assert found == ["a/1.JPG", "a/2_mask.png"]
    assert count_files([tmp_path], is_frame) == 2
    others, masks = skipped_notes([tmp_path], tmp_path / "out.csv", is_frame)
    assert "1 file " in others and "1.json" in others
    assert "3 masks" in masks and "3.png" in masks
    given = [tmp_path / "a" / "1_mask.png"]
    assert [item.path for item in iterate_files(given, is_frame)] == given


def test_a_file_in_several_paths_is_read_once(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 4)
    files = sorted(images.rglob("*.png"))
    again = [images, files[1], images / ".." / "in" / files[2].relative_to(images), images / "class0"]
    (tmp_path / "link.png").symlink_to(files[0])
    (tmp_path / "alias").symlink_to(images)
    found = [item.path for item in iterate_files([*again, tmp_path / "alias", tmp_path / "link.png"])]
    assert found == [*files, tmp_path / "link.png"]
    written = run_pipeline(table(tmp_path / "out.csv"), again, means())
    assert written.rows == len(read(tmp_path / "out.csv")) == 4 and "4 files given more than once" in written.notes[0]
    assert "more than once" not in str(run_pipeline(table(tmp_path / "one.csv"), [images], means()).notes)


def test_files_that_a_link_tells_apart_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b" / "c")
    for folder in ("a", "b"):
        Image.new("L", (8, 8)).save(tmp_path / folder / "1.png")
    assert count_files([tmp_path / "a" / "1.png", tmp_path / "a" / "link" / ".." / "1.png"]) == 2


def test_a_complete_table_says_that_nothing_is_left_to_resume(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 3)
    run_pipeline(table(tmp_path / "out.csv"), [images], means())
    with pytest.raises(InputError, match="complete"):
        table(tmp_path / "out.csv", resume=True)
    with pytest.raises(InputError, match="exists already"):
        table(tmp_path / "out.csv")


@pytest.mark.parametrize("devices", [1, 3])
def test_rows_are_in_the_order_of_the_files(tmp_path: Path, devices: int) -> None:
    images = folder_of(tmp_path / "in", 3 * BATCH + 5)
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out.csv"
    written = run_pipeline(table(out), [images], means(devices, delay=0.01), lambda done, total: seen.append((done, total)))
    assert [row["name"] for row in read(out)] == [item.name for item in iterate_files([images])]
    assert all(float(row["mean"]) == int(Path(row["name"]).stem) % 256 for row in read(out))
    assert (written.rows, written.failed) == (3 * BATCH + 5, 0)
    assert seen[-1] == (3 * BATCH + 5, 3 * BATCH + 5) and seen == sorted(seen)


@pytest.mark.parametrize(("files", "expected"), [(8, [8]), (40, [8, 16, 16]), (60, [20, 20, 20]), (200, [8, 64, 64, 64])])
def test_few_files_are_divided_among_the_devices(tmp_path: Path, files: int, expected: list[int]) -> None:
    counts: list[int] = []

    def compute(items: Sequence[InputFile], images: Sequence[np.ndarray]) -> list[dict]:
        counts.append(len(items))
        return [{"mean": 0.0} for _ in images]

    run_pipeline(table(tmp_path / "out.csv"), [folder_of(tmp_path / "in", files)], Steps(lambda item: 0, compute, 3))
    assert sorted(counts) == expected


def test_what_is_no_image_broken_or_enormous_is_a_row_with_its_error(tmp_path: Path, monkeypatch) -> None:
    images = folder_of(tmp_path / "in", 4)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    (images / "notes.txt").write_text("hello")
    (images / "README").write_text("hello")
    (images / "page.png").write_text("<html>")
    Image.new("1", (400, 400)).save(images / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    written = run_pipeline(table(tmp_path / "out.csv"), [images], means())
    errors = {Path(row["name"]).name: row[ERROR] for row in read(tmp_path / "out.csv") if row[ERROR]}
    assert errors.keys() == {"broken.jpg", "notes.txt", "README", "page.png", "vast.png"}
    assert "its suffix is .txt" in errors["notes.txt"]
    assert "no suffix" in errors["README"]
    assert "image of a known format" in errors["page.png"]
    assert "over the limit" in errors["vast.png"]
    assert (written.rows, written.failed) == (9, 5)
    assert "5 of them with an error" in written.to_text()


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    images, out = folder_of(tmp_path / "in", 4 * BATCH), tmp_path / "out.csv"
    run_pipeline(table(tmp_path / "whole.csv"), [images], means())
    with pytest.raises(Interrupted, match=f"{2 * BATCH} rows are kept in .*out.csv.part; .*--resume"):
        run_pipeline(table(out), [images], means(fail_after=2 * BATCH, error=KeyboardInterrupt()))
    assert not out.exists()
    computed: list[str] = []
    stages = means()
    spied = Steps(stages.prepare, lambda items, values: computed.extend(i.name for i in items) or stages.compute(items, values))
    run_pipeline(table(out, resume=True), [images], spied)
    assert len(computed) == 2 * BATCH
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_full_disk_keeps_the_rows_and_says_how_to_go_on(tmp_path: Path) -> None:
    images, out = folder_of(tmp_path / "in", 3 * BATCH), tmp_path / "out.csv"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match=f"disk is full; {BATCH} rows"):
        run_pipeline(table(out), [images], means(fail_after=BATCH, error=full))
    run_pipeline(table(out, resume=True), [images], means())
    assert len(read(out)) == 3 * BATCH


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full_is_no_stack_trace(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 3)
    filling = table(tmp_path / "out.csv")
    filling._file.close()
    filling._file = Path("/dev/full").open("ab")  # noqa: SIM115
    with pytest.raises(InputError, match="The disk is full; 0 rows are kept"):
        run_pipeline(filling, [images], means())


def test_other_files_than_before_are_not_mixed_in(tmp_path: Path) -> None:
    images, out = folder_of(tmp_path / "in", 3 * BATCH), tmp_path / "out.csv"
    with pytest.raises(Interrupted):
        run_pipeline(table(out), [images], means(fail_after=BATCH, error=KeyboardInterrupt()))
    (images / "class0" / "0003.png").unlink()
    with pytest.raises(InputError, match=r"Row 2 of .*class0/0003.png, .*class0/0006.png"):
        run_pipeline(table(out, resume=True), [images], means())


def test_several_rows_of_an_item_are_kept_or_made_anew_together(tmp_path: Path) -> None:
    images, out = folder_of(tmp_path / "in", BATCH + 10), tmp_path / "out.csv"

    def both(fail: bool = False) -> Steps:
        def compute(items: Sequence[InputFile], values: Sequence[np.ndarray]) -> list[list[dict]]:
            if fail and len(items) < BATCH // 2:
                raise KeyboardInterrupt
            return [[{"mean": float(value.mean() + k)} for k in range(2)] for value in values]

        return Steps(lambda item: decode(item.path), compute)

    def made(path: Path, resume: bool = False) -> ResumableTable:
        return ResumableTable(path, ("source", "mean", ERROR), WHO, resume, several=True)

    (images / "broken.png").write_bytes(b"x")
    (images / "class0" / "0000.png").write_bytes(b"x")
    whole = run_pipeline(made(tmp_path / "whole.csv"), [images], both())
    assert (whole.rows, whole.failed) == (2 * (BATCH + 9) + 2, 2)
    broken = ("broken.png", "0000.png")
    expected = [item.name for item in iterate_files([images]) for _ in range(1 if item.path.name in broken else 2)]
    assert [row["source"] for row in read(tmp_path / "whole.csv")] == expected
    with pytest.raises(Interrupted, match=f"{2 * (BATCH - 2) + 2} rows are kept"):
        run_pipeline(made(out), [images], both(fail=True))
    part = out.with_name("out.csv.part")
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:-1]))
    again = made(out, resume=True)
    assert again.items == BATCH - 1
    seen: list[tuple[int, int]] = []
    run_pipeline(again, [images], both(), lambda done, total: seen.append((done, total)))
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert seen[-1] == (BATCH + 11, BATCH + 11)


@pytest.mark.parametrize("name", ["گ" * 127, "a" * 251 + ".png", "b." + "c" * 253, "d" * 238 + ".safetensors.json"])
def test_whatever_name_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic_file(tmp_path / name) as temporary:
        temporary.write_bytes(b"here")
    assert (tmp_path / name).read_bytes() == b"here" and [path.name for path in tmp_path.iterdir()] == [name]


def test_a_temporary_name_has_the_ending_that_writers_go_by(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "model.safetensors") as temporary:
        assert temporary.suffix == ".safetensors" and temporary.parent == tmp_path and temporary.name.startswith(".")
        temporary.write_bytes(b"")


def test_a_result_that_cannot_be_written_is_said_and_a_full_disk_stops(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "a", lambda: (tmp_path / "a").write_text("x") and None) is None
    (tmp_path / "folder").mkdir()
    found = unwritable(tmp_path / "folder", lambda: (tmp_path / "folder").write_text("x") and None)
    assert found == f"{tmp_path / 'folder'} cannot be written: Is a directory."

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        unwritable(tmp_path / "b", full)


@pytest.mark.parametrize(
    ("inner", "label"),
    [
        ("1.png", ""),
        ("a/1.png", "a"),
        ("a/b/1.png", "a"),
        ("train/a/1.png", "a"),
        ("Testing/a b/x/1.png", "a b"),
        ("val/1.png", ""),
    ],
)
def test_the_label_of_an_image_is_its_class_folder(inner: str, label: str) -> None:
    assert label_of(InputFile(Path("given") / inner, Path(inner))) == label


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(images / name)
    run_pipeline(table(tmp_path / "out.csv"), [images], means())
    assert read(tmp_path / "out.csv")[0]["name"].endswith("caf\\udce9.png")


def test_it_reads_no_further_ahead_than_agreed() -> None:
    running, most, lock = [0], [0], threading.Lock()

    def items():
        for number in range(100):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            yield number

    found = []
    for number in in_order(lambda value: value * value, items(), workers=3, ahead=7):
        found.append(number)
        with lock:
            running[0] -= 1
    assert found == [value * value for value in range(100)]
    assert most[0] <= 7
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_results_inside_the_folder_are_no_inputs(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 5)
    (images / "notes.txt").touch()
    (images / "__MACOSX").mkdir()
    first = run_pipeline(table(images / "first.csv"), [images], means())
    assert [row["name"] for row in read(images / "first.csv")] == [item.name for item in iterate_files([images])]
    assert (first.rows, first.failed) == (6, 1)
    second = run_pipeline(table(images / "second.jsonl"), [images], means())
    assert (second.rows, second.failed) == (6, 1)
    third = run_pipeline(table(images / "drawn" / "manifest.csv"), [images], means())
    (images / "drawn" / "0.png").write_bytes((images / "class0" / "0000.png").read_bytes())
    assert third.rows == 6
    assert [item.inner.as_posix() for item in iterate_files([images])] == [
        "class0/0000.png", "class0/0003.png", "class1/0001.png", "class1/0004.png", "class2/0002.png", "notes.txt",
    ]  # fmt: skip
    assert count_files([images]) == 6
    skipped, own = skipped_notes([images], tmp_path / "out.csv")
    assert skipped.endswith(": 1 folder, 0 files.")
    assert own.endswith(f"3 ({images}/drawn/, {images}/first.csv, {images}/second.jsonl).")
    assert first.notes[:-1] == (skipped,)
    assert third.notes[:-1] == (skipped, own.replace("3 (", "2 (").replace(f"{images}/drawn/, ", ""))
    assert f"note: {skipped}" in first.to_text()


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_resumed_table_counts_the_errors_of_all_its_rows(tmp_path: Path, ending: str) -> None:
    images, out = folder_of(tmp_path / "in", 2 * BATCH), tmp_path / f"out{ending}"
    for folder in ("class0", "class2"):  # the first and the last batch
        (images / folder / "00.png").write_bytes(b"no image")
    with pytest.raises(Interrupted):
        run_pipeline(table(out), [images], means(fail_after=BATCH, error=KeyboardInterrupt()))
    written = run_pipeline(table(out, resume=True), [images], means())
    assert (written.rows, written.failed) == (2 * BATCH + 2, 2)


def test_a_table_that_was_left_is_no_input_of_the_next(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 2 * BATCH)
    with pytest.raises(RuntimeError):
        run_pipeline(table(images / "left.csv"), [images], means(fail_after=BATCH, error=RuntimeError("stop")))
    assert (images / "left.csv.part").exists()
    assert run_pipeline(table(images / "other.csv"), [images], means()).rows == 2 * BATCH
    assert run_pipeline(table(images / "left.csv", resume=True), [images], means()).failed == 0


def test_flat_images_and_further_pages_are_named_at_the_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(2))
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "a.png")
    first.save(tmp_path / "in" / "b.tif", save_all=True, append_images=[second, first])
    white = np.full((8, 8, 4), 255, np.uint8)
    white[:4, :, 3] = 0
    Image.fromarray(white).save(tmp_path / "in" / "c.png")
    stages = Steps(lambda item: decode(item.path), means().compute)
    notes = run_pipeline(table(tmp_path / "out.csv"), [tmp_path / "in"], stages).notes
    assert [note.split(": ", 1)[1] for note in notes] == [f"{tmp_path}/in/b.tif (2).", f"1 ({tmp_path}/in/c.png)."]


@pytest.mark.parametrize(("value_range", "named"), [(None, 3), ((0.0, 4095.0), 0)])
def test_images_of_more_than_8_bits_are_named_if_their_range_is_not_known(
    tmp_path: Path, value_range: tuple[float, float] | None, named: int
) -> None:
    """Of 12 bits in 16, a white image would be nearly black."""
    (tmp_path / "in").mkdir()
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65
    names = [f"{tmp_path}/in/{name}" for name in ("a.png", "b.tif", "c.png")]
    Image.fromarray(ramp).save(names[0])
    Image.fromarray(ramp.astype(np.float32)).save(names[1])
    cv2.imwrite(names[2], np.stack([ramp, ramp, ramp], 2))
    Image.fromarray((ramp // 16).astype(np.uint8)).save(tmp_path / "in" / "d.png")
    stages = Steps(lambda item: decode(item.path, value_range=value_range), means().compute, value_range=value_range)
    notes = run_pipeline(table(tmp_path / "out.csv"), [tmp_path / "in"], stages).notes
    assert [f"{named} files ({', '.join(names)})" in note for note in notes] == [True] * min(named, 1)


def test_a_pipe_is_a_row_with_an_error_and_nothing_waits_for_it(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "in", 2)
    os.mkfifo(images / "class0" / "pipe.png")
    written = run_pipeline(table(tmp_path / "out.csv"), [images], means())
    assert (written.rows, written.failed) == (3, 1)
    assert "pipe" in read(tmp_path / "out.csv")[1][ERROR]
