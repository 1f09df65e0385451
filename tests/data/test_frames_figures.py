"""What a store says of itself: the summary, the stages of preprocessing, the gallery."""

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.frames import BOTTOM, LEFT, RIGHT, TOP, drawn, save, write_frames
from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box, otsu_stages


def with_inset(frame: np.ndarray) -> np.ndarray:
    frame[200 : 320 - BOTTOM, LEFT : LEFT + 120] = 0
    return frame


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Prepare three classes: two normal ones, and one of four frames of four sizes, with a mask and an inset."""
    folder = write_frames(tmp_path_factory.mktemp("frames"), {"normal-a": 7, "normal-b": 2})
    for i in range(4):
        frame = drawn(50 + i, 400 + i, 320)
        if i == 2:
            frame[:, 300:] //= 8
        save(folder / "polyps" / f"{i}.png", with_inset(frame) if i == 1 else frame)
    save(folder / "polyps" / "black.png", np.zeros((320, 400, 3), np.uint8))
    save(folder / "polyp-masks" / "3.png", np.zeros((320, 403), np.uint8))
    return prepare([folder], config=PrepareConfig(size=16), out=folder.parent / "store")


def test_the_summary_counts_by_class_and_kind(store: FrameStore) -> None:
    summary = store.summary()
    assert summary.count == 13
    assert [(one.name, one.kind, one.count, one.masks) for one in (*summary.classes, *summary.kinds)] == [
        ("normal-a", "normal", 7, 0), ("normal-b", "normal", 2, 0), ("polyps", "abnormal", 4, 1),
        ("all normal", "normal", 9, 0), ("all abnormal", "abnormal", 4, 1),
    ]  # fmt: skip
    assert summary.classes[2].sizes == {"400 x 320": 1, "401 x 320": 1, "402 x 320": 1, "403 x 320": 1}
    assert summary.kinds[0].sizes == {"80 x 60": 9}
    assert [one.insets for one in summary.classes] == [{}, {}, {"black": 1}]
    assert summary.notes == ("Left out 1 of 14 frames, black all over: polyps/black.png.",)


def test_the_summary_is_a_table(store: FrameStore) -> None:
    lines = store.summary().to_text().splitlines()
    assert lines[0] == f"{store.path}: 13 frames of 16 x 16 pixels, content area by 'robust'"
    assert lines[2:] == [
        "class         kind      frames  masks  insets   original sizes",
        "normal-a      normal         7      0           7 at 80 x 60",
        "normal-b      normal         2      0           2 at 80 x 60",
        "polyps        abnormal       4      1  1 black  1 at 400 x 320, 1 at 401 x 320, 1 at 402 x 320, 1 at 1 other size",
        "",
        "all normal    normal         9      0           9 at 80 x 60",
        "all abnormal  abnormal       4      1  1 black  1 at 400 x 320, 1 at 401 x 320, 1 at 402 x 320, 1 at 1 other size",
        "note: Left out 1 of 14 frames, black all over: polyps/black.png.",
    ]


def test_the_summary_is_plain_values(store: FrameStore) -> None:
    values = store.summary().to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["classes"][0] == {
        "name": "normal-a", "kind": "normal", "count": 7, "sizes": {"80 x 60": 7}, "masks": 0, "insets": {},
    }  # fmt: skip
    assert {"store", "size", "method", "count", "kinds", "notes"} < values.keys()


def test_stages_of_three_frames_a_class_are_kept(store: FrameStore) -> None:
    chosen = {"normal-a": (0, 2, 4), "normal-b": (0, 1), "polyps": (0, 1, 2)}
    expected = [f"{name}/{i}.png" for name, numbers in chosen.items() for i in numbers]
    assert [store.names[one.position] for one in store.figures] == expected


def test_stages_of_a_small_frame_are_those_of_otsu(store: FrameStore) -> None:
    stages, expected = store.figures[0], otsu_stages(drawn(0))
    np.testing.assert_array_equal(stages.original, drawn(0))
    np.testing.assert_array_equal(stages.grey, expected.grey)
    np.testing.assert_array_equal(stages.mask, expected.mask)
    np.testing.assert_array_equal(stages.contour, expected.contour)
    assert stages.threshold == expected.threshold
    assert stages.otsu_box.tolist() == [expected.box.left, expected.box.top, expected.box.width, expected.box.height]
    assert stages.box.tolist() == [LEFT, TOP, 80 - LEFT - RIGHT, 60 - TOP - BOTTOM]


def test_stages_of_a_large_frame_are_scaled_together(store: FrameStore) -> None:
    stages = store.figures[6]
    expected = otsu_stages(with_inset(drawn(51, 401, 320)))
    height, width = stages.original.shape[:2]
    assert (width, height) == (320, round(320 * 320 / 401))
    assert stages.grey.shape == stages.mask.shape == (height, width)
    assert stages.mask.mean() == pytest.approx(expected.mask.mean(), abs=0.01)
    np.testing.assert_allclose(stages.contour, expected.contour * (320 / 401), rtol=1e-6)
    assert Box(*np.rint(stages.box * (401 / 320)).astype(int).tolist()) == Box(*store.boxes[stages.position].tolist())


def test_stages_have_the_box_that_was_used(store: FrameStore) -> None:
    # A dim side is border for Otsu's method and content for the robust one, which was used.
    stages = store.figures[7]
    np.testing.assert_allclose(stages.box, store.boxes[stages.position] * (320 / 402), rtol=1e-6)
    assert stages.otsu_box[2] < 0.8 * stages.box[2]


def test_the_gallery_is_spread_over_each_class(store: FrameStore) -> None:
    gallery = store.gallery(3)
    assert {name: positions.tolist() for name, positions in gallery.items()} == {
        "normal-a": [0, 2, 4], "normal-b": [7, 8], "polyps": [9, 10, 11],
    }  # fmt: skip
    assert store.gallery()["normal-a"].tolist() == list(range(7))


def test_spread_takes_equal_distances() -> None:
    assert evenly_spaced(np.arange(100), 5).tolist() == [0, 20, 40, 60, 80]
    assert evenly_spaced(np.arange(3), 5).tolist() == [0, 1, 2]


def test_opening_again_gives_the_same(store: FrameStore) -> None:
    again = FrameStore.open(Path(store.path))
    assert again.index == store.index
    assert again.summary() == store.summary()
