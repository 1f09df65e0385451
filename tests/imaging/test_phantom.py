"""The drawn endoscopy frames: exact masks, the same frame from the same seed, folders written whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelscope.data.formats.decode import read_image
from pixelscope.data.frames.discovery import find_classes
from pixelscope.data.phantom import PhantomFrame, draw_frame, write_phantom
from pixelscope.data.phantom import frame as phantom_folder
from pixelscope.data.phantom.colon import draw_mucosa, draw_polyp, draw_tint, draw_wall, find_place
from pixelscope.data.sources.listing import contents as listed
from pixelscope.data.sources.masks import frame_mask
from pixelscope.errors import InputError
from pixelscope.imaging.content_area import Box, find_content_area
from pixelscope.imaging.insets import find_insets

SEEDS = range(24)


@pytest.fixture(scope="module")
def normal() -> list[PhantomFrame]:
    return [draw_frame(seed, polyp=False) for seed in SEEDS]


@pytest.fixture(scope="module")
def diseased() -> list[PhantomFrame]:
    return [draw_frame(seed, polyp=True) for seed in SEEDS]


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union."""
    shared = one.intersection(other).area
    return shared / (one.area + other.area - shared)


def inset_kind(frame: PhantomFrame) -> str:
    if frame.inset is None:
        return "none"
    return "green" if frame.image[frame.inset.slices].max() > 100 else "black"


# --- masks ------------------------------------------------------------------------------------------------------------


def test_outside_the_mask_a_polyp_changes_nothing(normal: list[PhantomFrame], diseased: list[PhantomFrame]) -> None:
    for without, with_polyp in zip(normal, diseased, strict=True):
        np.testing.assert_array_equal(with_polyp.image[~with_polyp.lesion], without.image[~with_polyp.lesion])
        assert (with_polyp.content, with_polyp.inset) == (without.content, without.inset)


def test_inside_the_mask_a_polyp_shows(normal: list[PhantomFrame], diseased: list[PhantomFrame]) -> None:
    for without, with_polyp in zip(normal, diseased, strict=True):
        change = np.abs(with_polyp.image.astype(int) - without.image)[with_polyp.lesion]
        assert (change.max(axis=1) > 0).mean() > 0.9
        assert change.mean() > 3


def test_frames_without_polyp_have_an_empty_mask(normal: list[PhantomFrame]) -> None:
    assert not any(frame.lesion.any() for frame in normal)


def test_polyps_are_of_many_sizes_and_in_one_piece(diseased: list[PhantomFrame]) -> None:
    widths = []
    for frame in diseased:
        count, _, stats, _ = cv2.connectedComponentsWithStats(frame.lesion.astype(np.uint8))
        assert count == 2
        widths.append(stats[1, cv2.CC_STAT_WIDTH : cv2.CC_STAT_HEIGHT + 1].max() / 360)
    assert 0.1 < min(widths) < 0.2
    assert 0.35 < max(widths) < 0.46


def test_polyps_keep_off_border_text_and_inset(diseased: list[PhantomFrame]) -> None:
    for frame in diseased:
        inside = np.zeros(frame.lesion.shape, bool)
        inside[frame.content.slices] = True
        if frame.inset is not None:
            inside[frame.inset.slices] = False
        assert not (frame.lesion & ~inside).any()


@pytest.mark.parametrize("seed", range(6))
def test_polyps_keep_out_of_the_lumen_and_of_what_is_taken(seed: int) -> None:
    random = np.random.default_rng(seed)
    wall = draw_wall(random, (100, 120))
    image = np.zeros((100, 120, 3), np.float32)
    free = np.arange(120)[None] > np.full((100, 1), 40)
    mask = draw_polyp(random, image, wall, draw_mucosa(random, wall), draw_tint(random), free, 40)
    assert mask.any()
    assert wall.radius[mask].min() > 0.25
    assert free[mask].all()
    # All of the silhouette was drawn, and nothing else.
    np.testing.assert_array_equal(image.any(axis=2), mask)


def test_a_polyp_without_room_for_its_size_is_smaller() -> None:
    free = np.zeros((60, 60), bool)
    free[20:41, 10:31] = True
    place = find_place(np.random.default_rng(0), free, 30)
    assert (place.x, place.y) == (20, 30)
    assert 8 <= place.reach <= 10
    assert free[place.slices].all()


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_frame() -> None:
    one, again, other = (draw_frame(seed, polyp=True) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.lesion, again.lesion)
    assert (one.image != other.image).mean() > 0.3


@settings(max_examples=15)
@given(seed=st.integers(0, 2**64), width=st.integers(96, 200), height=st.integers(96, 200), polyp=st.booleans())
def test_frames_of_any_size_are_drawn(seed: int, width: int, height: int, polyp: bool) -> None:
    frame = draw_frame(seed, polyp=polyp, width=width, height=height)
    assert frame.image.shape == (height, width, 3)
    assert frame.image.dtype == np.uint8
    assert frame.lesion.shape == (height, width)
    assert frame.lesion.dtype == bool
    assert frame.lesion.any() == polyp
    assert frame.content.intersection(Box(0, 0, width, height)) == frame.content
    if frame.inset is not None:
        assert frame.content.intersection(frame.inset) == frame.inset


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"seed": 0, "width": 95}, {"seed": 0, "height": 95}])
def test_frames_that_cannot_be_drawn_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="width and height of 96"):
        draw_frame(**arguments, polyp=False)


def test_the_content_area_is_found(normal: list[PhantomFrame]) -> None:
    for frame in normal:
        assert overlap(find_content_area(frame.image), frame.content) >= 0.95


def test_insets_of_each_kind_are_found(normal: list[PhantomFrame]) -> None:
    kinds = [inset_kind(frame) for frame in normal]
    assert set(kinds) == {"green", "black", "none"}
    for frame, kind in zip(normal, kinds, strict=True):
        found = find_insets(frame.image, frame.content)
        assert [inset.kind for inset in found] == [kind] * (frame.inset is not None)
        assert all(frame.inset is not None and overlap(inset.box, frame.inset) >= 0.9 for inset in found)


def test_the_border_is_black_but_for_its_text(normal: list[PhantomFrame]) -> None:
    for frame in normal:
        outside = frame.image.copy()
        outside[frame.content.slices] = 0
        # Text is grey, and only at the left.
        assert np.ptp(outside.astype(int), axis=2).max() == 0
        assert outside[:, 120:].max() == 0
        assert outside[:, :120].max() > 100


def test_tissue_has_the_colours_of_real_tissue(normal: list[PhantomFrame], real_frames: Path) -> None:
    files = sorted((real_frames / "normal-cecum").glob("*.jpg"))[::34]
    real = [np.median(middle(read_image(file)), axis=(0, 1)) for file in files]
    drawn = [np.median(middle(frame.image), axis=(0, 1)) for frame in normal]
    ratio = np.mean(drawn, axis=0) / np.mean(real, axis=0)
    assert ((ratio > 0.67) & (ratio < 1.5)).all()


def middle(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return image[height // 5 : height * 3 // 5, width // 3 : width * 3 // 4]


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_phantom(tmp_path / "phantom", normal=2, polyps=3, seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def test_the_folder_is_laid_out_as_the_package_reads_it(written: Path) -> None:
    found = find_classes([written])
    assert found.kinds == {"normal-phantom": "normal", "polyps": "abnormal"}
    assert [(frame.owner, frame.within) for frame in found.frames] == [
        ("normal-phantom", "0000.jpg"), ("normal-phantom", "0001.jpg"),
        ("polyps", "0000.jpg"), ("polyps", "0001.jpg"), ("polyps", "0002.jpg"),
    ]  # fmt: skip
    assert [(mask.owner, mask.within) for mask in found.masks] == [("polyps", f"000{i}.png") for i in range(3)]


def test_written_masks_are_those_of_their_frames(written: Path) -> None:
    for seed, mask in zip(own_seeds(1, kind=1, count=3), sorted((written / "polyp-masks").iterdir()), strict=True):
        frame = draw_frame(seed, polyp=True)
        np.testing.assert_array_equal(frame_mask(mask, frame.lesion.shape), frame.lesion)
        # JPEG changes a little.
        stored = read_image(written / "polyps" / f"{mask.stem}.jpg")
        assert np.abs(stored.astype(int) - frame.image).mean() < 4


def own_seeds(seed: int, kind: int, count: int) -> list[int]:
    return [int(one) for one in np.random.SeedSequence([seed, kind]).generate_state(count, np.uint64)]


def test_a_seed_is_a_folder_byte_for_byte(written: Path, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "deep" / "again", normal=2, polyps=3, seed=1)
    assert contents(again) == contents(written)
    other = write_phantom(tmp_path / "other", normal=2, polyps=3, seed=2)
    assert contents(other)["polyps/0000.jpg"] != contents(written)["polyps/0000.jpg"]


def test_every_frame_is_another_view(written: Path) -> None:
    frames = [image for name, image in contents(written).items() if name.endswith(".jpg")]
    assert len(set(frames)) == 5


def test_more_frames_begin_with_the_same(written: Path, tmp_path: Path) -> None:
    more = contents(write_phantom(tmp_path / "more", normal=3, polyps=4, seed=1))
    assert all(more[name] == stored for name, stored in contents(written).items() if name != "phantom.json")


def test_a_class_without_frames_has_no_folder(tmp_path: Path) -> None:
    written = write_phantom(tmp_path / "phantom", normal=1, polyps=0, seed=0)
    assert {path.name for path in written.iterdir()} == {"normal-phantom", "phantom.json"}


def test_the_same_frames_are_not_written_again(written: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in written.rglob("*")}
    assert write_phantom(written, normal=2, polyps=3, seed=1) == written
    assert {file: file.stat().st_mtime_ns for file in written.rglob("*")} == before


def test_the_record_of_the_frames_is_no_file_that_was_not_read(written: Path) -> None:
    assert listed(written).notes() == ()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    written = write_phantom(tmp_path, normal=1, polyps=0, seed=0)
    assert (written / "normal-phantom" / "0000.jpg").is_file()


@pytest.mark.parametrize("change", ["seed", "normal", "polyps", "drawing", "missing", "foreign", "broken", "file"])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    folder, asked = tmp_path / "phantom", {"normal": 1, "polyps": 1, "seed": 1}
    if change in ("foreign", "file"):
        target = folder if change == "file" else folder / "mine.txt"
        target.parent.mkdir(exist_ok=True)
        target.write_text("mine")
    else:
        write_phantom(folder, **{**asked, **({change: 0} if change in asked else {})})
    if change == "missing":
        (folder / "polyp-masks" / "0000.png").unlink()
    if change == "drawing":
        monkeypatch.setattr(phantom_folder, "DRAWING", phantom_folder.DRAWING + 1)
    if change == "broken":
        (folder / "phantom.json").write_text("{")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="other content"):
        write_phantom(folder, **asked)
    assert contents(tmp_path) == before


def test_an_interrupted_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def interrupted(seed: int, *, polyp: bool) -> PhantomFrame:
        drawn.append(seed)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_frame(seed, polyp=polyp)

    monkeypatch.setattr(phantom_folder, "draw_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "phantom", normal=2, polyps=3, seed=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [(-1, 1, 0), (1, -1, 0), (1, 1, -1), (0, 0, 0)])
def test_numbers_that_make_no_folder_are_refused(tmp_path: Path, numbers: tuple[int, int, int]) -> None:
    normal, polyps, seed = numbers
    with pytest.raises(InputError, match="at least one frame"):
        write_phantom(tmp_path / "phantom", normal=normal, polyps=polyps, seed=seed)
    assert list(tmp_path.iterdir()) == []
