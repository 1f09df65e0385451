"""Preparing frames: what is stored, what is left out or refused, and that nothing is lost or done twice."""

import json
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.endoscope import inset_mask
from fixtures.frames import BOTTOM, LEFT, RIGHT, TOP, drawn, save, write_frames
from fixtures.sources import tiff_with_pixels_at_a_float
from pixelscope.data.formats.decode import read_image
from pixelscope.data.frames import prepare as preparation
from pixelscope.data.frames.duplicates import perceptual_hash
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import VERSION, FrameStore
from pixelscope.data.sources.masks import read_mask
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box, find_content_area
from pixelscope.imaging.insets import find_insets

SMALL = PrepareConfig(size=16)
STRICT = PrepareConfig(size=16, strict=True)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation, "_CHUNK", 4)


@pytest.fixture
def kvasir(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "kvasir", {"normal-cecum": 5, "polyps": 4})


def shrunk(square: np.ndarray, size: int = 16) -> np.ndarray:
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def with_inset(seed: int) -> np.ndarray:
    """Return a frame of 400 x 320 with a blacked-out box at the lower left of its picture."""
    frame = drawn(seed, 400, 320)
    frame[200 : 320 - BOTTOM, LEFT : LEFT + 120] = 0
    return frame


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_store_holds_the_squares_of_the_content(kvasir: Path) -> None:
    store = prepare([kvasir], config=SMALL)
    assert store.path.parent == Path("stores")
    assert store.path.name == f"kvasir-{store.key[:12]}"
    assert len(store) == 9
    assert store.frames.shape == (9, 16, 16, 3)
    assert isinstance(store.frames, np.memmap)
    for i, name in enumerate(store.names):
        original = np.asarray(Image.open(kvasir / name))
        box = find_content_area(original)
        assert box == Box(LEFT, TOP, 80 - LEFT - RIGHT, 60 - TOP - BOTTOM)
        np.testing.assert_array_equal(store.frames[i], shrunk(original[box.centre_square().slices]))
        assert Box(*store.boxes[i].tolist()) == box
        assert int(store.hashes[i]) == perceptual_hash(store.frames[i])


def test_a_store_knows_its_frames(kvasir: Path) -> None:
    save(kvasir / "polyps" / "wide.png", drawn(7, 100, 60))
    store = prepare([kvasir], config=SMALL)
    assert store.classes == ("normal-cecum", "polyps")
    assert store.kinds == ("normal", "abnormal")
    assert store.names == (
        *(f"normal-cecum/{i}.png" for i in range(5)),
        *(f"polyps/{i}.png" for i in range(4)),
        "polyps/wide.png",
    )
    assert store.labels.tolist() == [0] * 5 + [1] * 5
    assert store.abnormal.tolist() == [False] * 5 + [True] * 5
    assert store.sizes.tolist() == [[80, 60]] * 9 + [[100, 60]]
    assert store.settings == SMALL
    assert store.notes == ()
    assert not store.insets.any()
    assert not store.lesions.any()
    assert not store.has_lesion.any()


def test_a_store_travels_to_another_process_without_its_arrays(kvasir: Path) -> None:
    store = prepare([kvasir], config=PrepareConfig(size=64))
    sent = pickle.dumps(store)
    assert len(sent) < 1000 < store.frames.nbytes
    arrived = pickle.loads(sent)
    assert arrived.names == store.names
    assert np.array_equal(arrived.frames, store.frames)


def test_both_methods_are_those_of_the_content_area(tmp_path: Path) -> None:
    frame = drawn(1, 200, 160)
    frame[:, 150:] //= 8
    files = [save(tmp_path / "normal-a" / f"{i}.png", np.roll(frame, i, axis=2)) for i in range(2)]
    boxes = {}
    for method in ("robust", "otsu"):
        store = prepare([tmp_path / "normal-a"], config=PrepareConfig(size=16, method=method))
        boxes[method] = store.boxes.tolist()
        expected = [find_content_area(np.asarray(Image.open(file)), method) for file in files]
        assert [Box(*box) for box in boxes[method]] == expected
    assert boxes["robust"] != boxes["otsu"]


def test_every_pixel_that_an_inset_touches_is_marked(tmp_path: Path) -> None:
    folder = tmp_path / "normal-a"
    for i in range(2):
        save(folder / f"{i}.png", with_inset(i))
    store = prepare([folder], config=SMALL)
    original = with_inset(0)
    content = find_content_area(original)
    insets = find_insets(original, content)
    assert [inset.kind for inset in insets] == ["black"]
    assert [(one.kind, Box(*one.box)) for one in store.index.frames[0].insets] == [(one.kind, one.box) for one in insets]
    square = content.centre_square()
    inside = inset_mask(original.shape[:2], insets)[square.slices]
    # White where the inset is: any grey left is drawn in part from it.
    white = shrunk(np.where(inside, np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(store.insets[0], white > 0)
    assert 0 < store.insets[0].mean() < 0.5
    # A change inside the inset changes marked pixels only.
    changed = original[square.slices].copy()
    changed[inside] = 255
    different = (shrunk(changed) != store.frames[0]).any(axis=2)
    assert different.any()
    assert not different[store.insets[0] == 0].any()


def test_insets_are_filled_from_what_lies_around_them(tmp_path: Path) -> None:
    folder = tmp_path / "normal-a"
    for i in range(2):
        save(folder / f"{i}.png", with_inset(i))
    kept, masked, filled = (
        prepare([folder], config=PrepareConfig(size=16, insets=kind)) for kind in ("keep", "mask", "inpaint")
    )
    inside = kept.insets[0] > 0
    np.testing.assert_array_equal(filled.frames[0][~inside], kept.frames[0][~inside])
    assert kept.frames[0][inside].max(axis=1).min() < 20
    assert filled.frames[0][inside].max(axis=1).min() > 40, "nothing is left of the black box"
    np.testing.assert_array_equal(masked.frames, kept.frames)
    np.testing.assert_array_equal(filled.insets, kept.insets)
    assert len({kept.key, masked.key, filled.key}) == 3


def test_masks_become_lesions(kvasir: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 30:50] = 255
    save(kvasir / "polyp-masks" / "1.png", mask)
    save(kvasir / "polyp-masks" / "2.png", Image.fromarray(mask > 0))
    save(kvasir / "polyp-masks" / "3.jpg", mask, quality=90)
    store = prepare([kvasir], config=SMALL)
    assert store.has_lesion.tolist() == [False] * 6 + [True] * 3
    square = Box(*store.boxes[6].tolist()).centre_square()
    expected = shrunk((mask[square.slices] > 0).astype(np.float32)) > 0.5
    assert expected.sum() > 20
    for position in (6, 7, 8):
        np.testing.assert_array_equal(store.lesions[position], expected)
    assert not store.lesions[:6].any()


def test_the_ripples_of_jpeg_make_no_third_value(tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :300]
    marked = np.hypot(y - 90, x - 140) < 63
    path = save(tmp_path / "mask.jpg", np.where(marked, np.uint8(255), np.uint8(0)), quality=50)
    mask = read_image(path)
    assert ((mask > 32) & (mask < 223)).any()
    assert (read_mask(path) == marked).mean() > 0.999


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((60, 79), np.uint8), r"The mask .*1\.png is 79 x 60 and its frame 80 x 60; give a mask of the frame's size"),
        (drawn(3)[..., 0], r"The mask .*1\.png has more than two values .* white inside"),
        (None, r"Cannot read the image .*masks/1\.png"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(kvasir: Path, mask: np.ndarray | None, message: str) -> None:
    path = save(kvasir / "polyp-masks" / "1.png", np.zeros((60, 80), np.uint8) if mask is None else mask)
    if mask is None:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=message):
        prepare([kvasir], config=SMALL)


def test_every_mode_of_image_is_prepared(tmp_path: Path) -> None:
    frame = drawn(1)
    grey = frame[..., 0]
    folder = tmp_path / "normal-a"
    for name, image in {
        "alpha.png": Image.fromarray(np.dstack([frame, np.full((60, 80), 255, np.uint8)])),
        "cmyk.tif": Image.fromarray(frame).convert("CMYK"),
        "grey.png": Image.fromarray(grey),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
    }.items():
        save(folder / name, image)
    store = prepare([folder], config=SMALL)
    colour = shrunk(frame[find_content_area(frame).centre_square().slices])
    expected = shrunk(grey[find_content_area(np.dstack([grey] * 3)).centre_square().slices])
    by_name = {name.split("/")[1]: array for name, array in zip(store.names, store.frames, strict=True)}
    np.testing.assert_array_equal(by_name["alpha.png"], colour)
    np.testing.assert_array_equal(by_name["cmyk.tif"], colour)
    np.testing.assert_array_equal(by_name["grey.png"], np.dstack([expected] * 3))
    np.testing.assert_array_equal(by_name["sixteen.png"], np.dstack([expected] * 3))


def test_rotation_by_exif_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "normal-a" / "turned.png", np.rot90(drawn(1)).copy(), exif=exif)
    save(tmp_path / "normal-b" / "straight.png", drawn(1))
    store = prepare([tmp_path / "normal-a", tmp_path / "normal-b"], config=SMALL)
    assert store.sizes.tolist() == [[80, 60], [80, 60]]
    np.testing.assert_array_equal(store.frames[0], store.frames[1])


def test_a_file_that_cannot_be_opened_is_skipped_and_counted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", {"normal-x": 3})
    (folder / "normal-x" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "normal-x" / "away.png").symlink_to(tmp_path / "nowhere.png")
    store = prepare([folder], stores=tmp_path / "stores")
    assert len(store) == 3
    assert store.notes == ("Skipped 2 unreadable of 5 frames: normal-x/away.png, normal-x/gone.png.",)


def test_a_damaged_tiff_is_skipped_and_further_pages_are_noted(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", {"normal-x": 2}) / "normal-x"
    pages = [Image.fromarray(drawn(50 + i)) for i in range(3)]
    pages[0].save(folder / "scan.tif", save_all=True, append_images=pages[1:])
    (folder / "broken.tif").write_bytes(tiff_with_pixels_at_a_float())
    (folder / ".DS_Store").touch()
    store = prepare([folder.parent], stores=tmp_path / "stores")
    assert len(store) == 3
    assert store.notes[0] == "Skipped 1 unreadable of 4 frames: normal-x/broken.tif."
    assert any("1 file, of 2 further pages: normal-x/scan.tif" in note for note in store.notes)
    assert any(note.endswith(": 0 folders, 1 file.") for note in store.notes)
    (folder / "Thumbs.db").touch()
    assert prepare([folder.parent], stores=tmp_path / "stores").key == store.key


def test_unreadable_files_are_skipped_named_and_counted(kvasir: Path) -> None:
    (kvasir / "polyps" / "1.png").write_bytes(b"")
    (kvasir / "normal-cecum" / "2.png").write_bytes(b"no image")
    whole = (kvasir / "polyps" / "2.png").read_bytes()
    (kvasir / "polyps" / "2.png").write_bytes(whole[: len(whole) // 2])
    store = prepare([kvasir], config=SMALL)
    assert store.notes == ("Skipped 3 unreadable of 9 frames: normal-cecum/2.png, polyps/1.png, polyps/2.png.",)
    assert store.names == (*(f"normal-cecum/{i}.png" for i in (0, 1, 3, 4)), "polyps/0.png", "polyps/3.png")
    np.testing.assert_array_equal(store.frames[5], prepare([kvasir / "polyps"], config=SMALL).frames[1])


def test_strict_refuses_what_is_left_out_prepared_or_not(kvasir: Path) -> None:
    (kvasir / "polyps" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"Cannot read the image .*polyps/1\.png"):
        prepare([kvasir], config=STRICT)
    prepare([kvasir], config=SMALL)
    with pytest.raises(InputError, match=r"Cannot read the image .*polyps/1\.png"):
        prepare([kvasir], config=STRICT)


def test_a_decompression_bomb_is_left_out(kvasir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(kvasir / "polyps" / "bomb.png", np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    assert prepare([kvasir], config=SMALL).notes == ("Skipped 1 unreadable of 10 frames: polyps/bomb.png.",)


def test_black_frames_are_left_out_and_counted(kvasir: Path) -> None:
    save(kvasir / "polyps" / "black.png", np.full((60, 80, 3), 9, np.uint8))
    store = prepare([kvasir], config=SMALL)
    assert len(store) == 9
    assert store.notes == ("Left out 1 of 10 frames, black all over: polyps/black.png.",)
    with pytest.raises(InputError, match=r"polyps/black\.png is black"):
        prepare([kvasir], config=STRICT)


def test_a_class_without_a_usable_frame_is_named(kvasir: Path) -> None:
    for i in range(4):
        save(kvasir / "polyps" / f"{i}.png", np.full((60, 80), i, np.uint8))
    with pytest.raises(InputError, match=r"class 'polyps' .*0\.png is black"):
        prepare([kvasir], config=SMALL)


def test_one_frame_only_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, {"lot": 1})
    (tmp_path / "lot" / "x.png").touch()
    with pytest.raises(InputError, match=r"lot/0\.png; give at least two"):
        prepare([tmp_path / "lot"], config=SMALL)


def test_a_file_in_two_classes_is_refused(kvasir: Path) -> None:
    save(kvasir / "polyps" / "9.png", drawn(0))
    with pytest.raises(InputError, match=r"normal-cecum/0\.png and .*polyps/9\.png are the same file in two classes"):
        prepare([kvasir], config=SMALL)


def test_notes_of_files_and_of_frames_are_both_kept(kvasir: Path) -> None:
    save(kvasir / "polyps" / "9.png", drawn(1000))
    (kvasir / "polyps" / "1.png").write_bytes(b"")
    assert prepare([kvasir], config=SMALL).notes == (
        "Left out 1 of 10 files, the same as others of their class: polyps/9.png.",
        "Skipped 1 unreadable of 9 frames: polyps/1.png.",
    )


def test_a_second_call_opens_the_store(kvasir: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = prepare([kvasir], config=SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 9), (8, 9), (9, 9)]
    before = {file: file.stat().st_mtime_ns for file in first.path.iterdir()}
    again = prepare([kvasir], config=STRICT, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 3
    assert again.path == first.path
    assert {file: file.stat().st_mtime_ns for file in first.path.iterdir()} == before
    assert sorted(file.name for file in Path("stores").iterdir()) == [first.path.name]


def test_a_store_is_found_whatever_it_is_called(kvasir: Path) -> None:
    first = prepare([kvasir], config=SMALL)
    kvasir.rename("moved")
    assert prepare([Path("moved")], config=SMALL).path == first.path


def test_the_same_frames_give_the_same_bytes(kvasir: Path) -> None:
    first, again = (prepare([kvasir], config=SMALL, out=Path(name)) for name in ("a", "b"))
    assert contents(first.path) == contents(again.path)


def test_out_is_used_as_it_is(kvasir: Path) -> None:
    Path("mine").mkdir()
    store = prepare([kvasir], config=SMALL, out=Path("mine"))
    assert store.path == Path("mine")
    assert not Path("stores").exists()
    arrays = [f"{view}{name}.npy" for view in ("", "centre_") for name in ("insets", "lesions")]
    assert sorted(contents(store.path)) == sorted(["centre.npy", "figures.npz", "frames.npy", "index.json", *arrays])
    assert prepare([kvasir], config=SMALL, out=Path("mine")).key == store.key


def test_out_with_something_else_is_refused(kvasir: Path) -> None:
    prepare([kvasir], config=SMALL, out=Path("mine"))
    before = contents(Path("mine"))
    with pytest.raises(InputError, match="store of other frames"):
        prepare([kvasir], config=PrepareConfig(size=24), out=Path("mine"))
    assert contents(Path("mine")) == before
    (kvasir / "notes.txt").touch()
    for place in (kvasir, kvasir / "notes.txt"):
        with pytest.raises(InputError, match="not a store of frames"):
            prepare([kvasir], config=SMALL, out=place)


def test_a_store_of_another_version_is_refused(kvasir: Path) -> None:
    store = prepare([kvasir], config=SMALL, out=Path("mine"))
    index = json.loads((store.path / "index.json").read_bytes())
    (store.path / "index.json").write_text(json.dumps({**index, "version": VERSION + 1, "new": "field"}))
    for attempt in (lambda: FrameStore.open(store.path), lambda: prepare([kvasir], config=SMALL, out=store.path)):
        with pytest.raises(InputError, match=f"mine was prepared by version {VERSION + 1}"):
            attempt()


@pytest.mark.parametrize(
    "name", ["frames.npy", "insets.npy", "lesions.npy", "centre.npy", "centre_insets.npy", "centre_lesions.npy", "index.json"]
)
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_cut_off_store_is_refused(kvasir: Path, name: str, keep: float) -> None:
    store = prepare([kvasir], config=SMALL)
    whole = (store.path / name).read_bytes()
    (store.path / name).write_bytes(whole[: int(keep * len(whole))])
    for attempt in (lambda: FrameStore.open(store.path), lambda: prepare([kvasir], config=SMALL)):
        with pytest.raises(InputError, match="stores/kvasir-.* is damaged"):
            attempt()


def test_a_damaged_index_is_refused(kvasir: Path) -> None:
    store = prepare([kvasir], config=SMALL)
    file = store.path / "index.json"
    index = json.loads(file.read_bytes())
    frame = index["frames"][0]
    for change in (
        {"frames": index["frames"][1:]},
        {"frames": None},
        {"frames": [{**frame, "label": 2}, *index["frames"][1:]]},
        {"frames": [{**frame, "size": [2**63, 8]}, *index["frames"][1:]]},
    ):
        file.write_text(json.dumps({**index, **change}))
        with pytest.raises(InputError, match="is damaged"):
            FrameStore.open(store.path)


def test_damaged_figures_are_refused_when_they_are_asked_for(kvasir: Path) -> None:
    store = prepare([kvasir], config=SMALL)
    (store.path / "figures.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="is damaged"):
        _ = FrameStore.open(store.path).figures


def test_encrypted_figures_are_refused_like_damaged_ones(kvasir: Path) -> None:
    file = prepare([kvasir], config=SMALL).path / "figures.npz"
    content = bytearray(file.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 1)
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="is damaged"):
        _ = FrameStore.open(file.parent).figures


@pytest.mark.parametrize("name", ["nowhere", "kvasir"])
def test_a_folder_that_is_no_store_is_refused(kvasir: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is not a frame store"):
        FrameStore.open(Path(name))


def test_a_killed_preparation_leaves_no_store_and_can_be_done_again(kvasir: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from pixelscope.data.frames import prepare as preparation
from pixelscope.data.frames.prepare import prepare
from pixelscope.imaging.config import PrepareConfig
preparation._CHUNK = 4
def progress(done, total):
    if done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
prepare([Path("kvasir")], config=PrepareConfig(size=16), out=Path("out"), progress=progress)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert not Path("out").exists()
    store = prepare([kvasir], config=SMALL, out=Path("out"))
    assert not list(Path().glob(".out-*"))
    assert contents(store.path) == contents(prepare([kvasir], config=SMALL, out=Path("whole")).path)


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "many", {"normal-cecum": 100, "polyps": 10})
    save(frames / "polyp-masks" / "9.png", np.zeros((9, 9), np.uint8))
    done: list[int] = []
    with pytest.raises(InputError, match="9 x 9"):
        prepare([frames], config=SMALL, progress=lambda count, total: done.append(count))
    assert done[0] == 4
    assert list(Path("stores").iterdir()) == []


def test_an_interrupted_assembly_is_done_again(kvasir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pixelscope.data.frames.prepare._write_figures", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare([kvasir], config=SMALL, out=Path("out"))
    assert not Path("out").exists()
    store = prepare([kvasir], config=SMALL, out=Path("out"))
    assert contents(store.path) == contents(prepare([kvasir], config=SMALL, out=Path("whole")).path)


def test_two_preparations_at_once_make_one_store(kvasir: Path) -> None:
    reports: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(prepare, [kvasir], config=SMALL, progress=lambda done, total: reports.append((done, total)))
            for _ in range(2)
        ]
        stores = [one.result() for one in made]
    assert stores[0].path == stores[1].path
    assert reports == [(4, 9), (8, 9), (9, 9)]
    assert sorted(Path("stores").iterdir()) == [stores[0].path]
    np.testing.assert_array_equal(stores[0].frames, stores[1].frames)


def test_real_frames_of_every_class(real_frames: Path, tmp_path: Path) -> None:
    for folder in ("normal-cecum-720x576", "polyps", "polyp-masks"):
        (tmp_path / "few" / folder).mkdir(parents=True)
        for file in sorted((real_frames / folder).iterdir())[:12]:
            (tmp_path / "few" / folder / file.name).symlink_to(file)
    store = prepare([tmp_path / "few"])
    assert store.frames.shape == (24, 96, 96, 3)
    assert store.has_lesion.tolist() == [False] * 12 + [True] * 12
    assert (store.lesions[12:].any(axis=(1, 2))).all()
    # Wide black margins are cut away: the middle row and column of a square are lit from side to side.
    lit = store.frames[:12].max(axis=3) > 30
    assert lit[:, 48].mean() > 0.9
    assert lit[:, :, 48].mean() > 0.9
