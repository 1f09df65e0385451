"""The centre view: where it lies, what it can never hold, and that every frame is resampled once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.frames import BOTTOM, LEFT, RIGHT, TOP, drawn, save, write_frames
from pixelscope.data.formats.decode import reject_decompression_bombs
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.preprocess import centre_box, cut_centre, prepare_frame, prepare_views
from pixelscope.data.frames.store import FrameStore
from pixelscope.data.phantom.frame import draw_frame
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.insets import Inset

SMALL = PrepareConfig(size=32)
SIZE = 224
WIDTH, HEIGHT = 400, 320
SIDE = HEIGHT - TOP - BOTTOM
CORNER = LEFT + (WIDTH - LEFT - RIGHT - SIDE) // 2, TOP
"""Left and top of the centre square of a drawn frame's content area, and its side."""
MARKER = (255, 0, 255)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def part(frame: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a part of the centre square of a drawn frame, given in fractions of its side."""
    x, y = CORNER
    return frame[y + round(top * SIDE) : y + round(bottom * SIDE), x + round(left * SIDE) : x + round(right * SIDE)]


def centre(frame: np.ndarray) -> np.ndarray:
    """Return what the centre view of a drawn frame shows, at its own size."""
    side = round(0.45 * SIDE)
    return part(frame, 0.5, 0.275, 1, 1)[:side, :side]


def resized(square: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def stored(folder: Path, **files: np.ndarray) -> FrameStore:
    for name, frame in files.items():
        save(folder / f"{name}.png", frame)
    return prepare([folder], config=SMALL)


def test_the_centre_is_cut_where_it_is_said_to_be(tmp_path: Path) -> None:
    frames = {str(i): drawn(i, WIDTH, HEIGHT) for i in range(3)}
    store = stored(tmp_path / "normal-a", **frames)
    view = store.view("centre")
    assert view.frames.shape == (3, SIZE, SIZE, 3)
    assert view.insets.shape == view.lesions.shape == (3, SIZE, SIZE)
    for found, frame in zip(view.frames, frames.values(), strict=True):
        np.testing.assert_array_equal(found, resized(centre(frame)))


def test_what_lies_at_border_and_insets_is_not_in_the_centre(tmp_path: Path) -> None:
    plain = drawn(1, WIDTH, HEIGHT)
    marked = plain.copy()
    for box in ((0, 0, 0.5, 1), (0, 0.73, 1, 1), (0, 0, 1, 0.27), (0.955, 0, 1, 1)):
        part(marked, *box)[:] = MARKER
    store = stored(tmp_path / "normal-a", marked=marked, plain=plain)
    assert not np.array_equal(store.frames[0], store.frames[1])
    np.testing.assert_array_equal(store.view("centre").frames[0], store.view("centre").frames[1])


@pytest.mark.parametrize("seed", range(12))
def test_the_centre_of_a_phantom_shows_only_what_the_camera_sees(seed: int) -> None:
    frame = draw_frame(seed, polyp=True)
    box = centre_box(frame.content.centre_square())
    assert Box(0, 0, *frame.image.shape[1::-1]).intersection(box) == box
    if frame.inset is not None:
        assert box.intersection(frame.inset).area == 0
    # The corners of the octagon are black.
    assert frame.image[box.slices].max(axis=2).min() > 0


@pytest.mark.parametrize(("width", "height", "name"), [(WIDTH, HEIGHT, "0.png"), (WIDTH, HEIGHT, "0.jpg"), (200, 160, "0.png")])
def test_lesions_lie_on_the_same_pixels_as_in_the_frame(tmp_path: Path, width: int, height: int, name: str) -> None:
    frame, lesion = drawn(3, width, height), np.zeros((height, width), np.uint8)
    box = slice(height * 2 // 5, height * 3 // 5), slice(width * 3 // 5, width * 3 // 4)
    frame[box], lesion[box] = (0, 0, 255), 255
    write_frames(tmp_path / "both", {"normal-a": 2})
    save(tmp_path / "both" / "polyps" / name, Image.fromarray(frame), **({"quality": 98} if name.endswith("jpg") else {}))
    save(tmp_path / "both" / "polyp-masks" / "0.png", lesion)
    store = prepare([tmp_path / "both"], config=SMALL)
    view = store.view("centre")
    seen = view.frames[2].astype(int)
    blue = seen[..., 2] - seen[..., 0] > 0
    assert 0.1 < view.lesions[2].mean() < 0.6
    # Where the outline crosses a pixel, colour and mask may be rounded to different sides.
    assert (blue != view.lesions[2].astype(bool)).mean() < 0.03
    assert not view.lesions[:2].any()


def test_a_frame_decoded_at_half_size_is_whole_in_the_centre(tmp_path: Path) -> None:
    """Of one store, small and large, PNG and JPEG: all are resampled once."""
    save(tmp_path / "normal-a" / "large.jpg", Image.fromarray(drawn(1, WIDTH, HEIGHT)), quality=90)
    save(tmp_path / "normal-a" / "large.png", drawn(2, WIDTH, HEIGHT))
    save(tmp_path / "normal-a" / "small.jpg", Image.fromarray(drawn(3, 240, 200)), quality=90)
    store = prepare([tmp_path / "normal-a"], config=SMALL)
    for name, content, found in zip(store.names, store.boxes, store.view("centre").frames, strict=True):
        whole = np.asarray(Image.open(tmp_path / name))
        left, top, width, height = content.tolist()
        side = min(width, height)
        x, y = left + (width - side) // 2 + round(0.5 * side), top + (height - side) // 2 + round(0.275 * side)
        cut = whole[y : y + round(0.45 * side), x : x + round(0.45 * side)]
        np.testing.assert_array_equal(found, resized(cut), err_msg=name)


def test_a_file_gives_the_views_of_the_store(tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / "normal-a" / f"{i}.jpg", Image.fromarray(drawn(i, WIDTH, HEIGHT)), quality=90)
    store = prepare([tmp_path / "normal-a"], config=SMALL)
    with reject_decompression_bombs():
        full, cut = prepare_views(tmp_path / "normal-a" / "1.jpg", SMALL)
    np.testing.assert_array_equal(full.frame, store.view("full").frames[1])
    np.testing.assert_array_equal(cut.frame, store.view("centre").frames[1])


def test_an_inset_within_the_centre_is_marked_and_filled() -> None:
    frame = drawn(5, WIDTH, HEIGHT)
    inset = Inset("black", Box(LEFT, round(0.6 * HEIGHT), round(0.6 * WIDTH), HEIGHT // 4))
    frame[inset.box.slices] = 0
    content = Box(LEFT, TOP, WIDTH - LEFT - RIGHT, SIDE)
    prepared = replace(prepare_frame(frame, None, SMALL), content=content, insets=(inset,))
    kept, filled = (cut_centre(frame, None, prepared, PrepareConfig(insets=how)) for how in ("keep", "inpaint"))
    inside = kept.inset > 0
    black = kept.frame.max(axis=2) == 0
    assert 0.05 < black.mean() < inside.mean() < 0.5
    assert inside[black].all()
    assert kept.frame[~inside].max(axis=1).min() > 40
    assert filled.frame[inside].max(axis=1).min() > 40
    np.testing.assert_array_equal(filled.frame[~inside], kept.frame[~inside])


def test_a_frame_too_small_for_the_centre_is_left_out(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", {"normal-a": 3})
    save(folder / "normal-a" / "tiny.png", np.full((7, 7, 3), (200, 120, 90), np.uint8))
    store = prepare([folder], config=SMALL)
    assert len(store) == 3
    assert store.notes == ("Left out 1 of 4 frames, too small for the centre view: normal-a/tiny.png.",)
    for attempt in (
        lambda: prepare([folder], config=PrepareConfig(size=32, strict=True)),
        lambda: prepare_views(folder / "normal-a" / "tiny.png", SMALL),
    ):
        with pytest.raises(InputError, match=r"7 x 7 pixels, of which the centre view shows 3 x 3"):
            attempt()


def test_a_class_without_a_centre_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", {"normal-a": 3})
    for i in range(2):
        save(tmp_path / "frames" / "polyps" / f"{i}.png", np.full((6, 7, 3), 100 + i, np.uint8))
    with pytest.raises(InputError, match=r"class 'polyps' .*0\.png has no centre view"):
        prepare([tmp_path / "frames"], config=SMALL)


def test_views_have_names(tmp_path: Path) -> None:
    store = stored(tmp_path / "normal-a", a=drawn(1), b=drawn(2))
    assert store.view("full").frames is store.frames
    assert [store.view(name).name for name in ("full", "centre")] == ["full", "centre"]
    with pytest.raises(InputError, match="no view 'middle'; choose full or centre"):
        store.view("middle")  # pyright: ignore[reportArgumentType]


def test_real_insets_never_reach_the_centre(real_frames: Path, tmp_path: Path) -> None:
    for folder in ("normal-cecum", "normal-cecum-720x576", "normal-colon"):
        (tmp_path / "some" / folder).mkdir(parents=True)
        for file in sorted((real_frames / folder).glob("*.jpg"))[:40]:
            (tmp_path / "some" / folder / file.name).symlink_to(file)
    store = prepare([tmp_path / "some"])
    assert store.insets.any(axis=(1, 2)).mean() > 0.5
    assert not store.view("centre").insets.any()
