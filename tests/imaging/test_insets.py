"""Insets, on drawn frames and on real ones looked through by eye."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.borders import INSETS
from fixtures.endoscope import TISSUE, border, disc, filled, inset_mask, lumen, noisy, octagon, overlap
from pixelscope.data.formats.decode import read_image
from pixelscope.errors import InputError
from pixelscope.imaging.content_area import Box, find_content_area
from pixelscope.imaging.insets import Inset, find_insets, inpaint

CONTENT = Box(20, 10, 360, 280)
"""Where the picture lies in drawn frames, which are 300 high and 400 wide."""

BLACK, DIM, GREEN = (0, 0, 0), (18, 18, 18), (0, 190, 145)


def octagonal() -> np.ndarray:
    return octagon(border(300, 400), CONTENT)


def mirrored(box: Box, across: bool, down: bool) -> Box:
    left = 400 - box.left - box.width if across else box.left
    top = 300 - box.top - box.height if down else box.top
    return Box(left, top, box.width, box.height)


# Black boxes.


@settings(max_examples=40)
@given(
    width=st.integers(70, 190),
    height=st.integers(60, 150),
    cut=st.floats(0, 0.15),
    black=st.integers(0, 8),
    across=st.booleans(),
    down=st.booleans(),
)
def test_a_black_box_in_a_corner_is_found(width: int, height: int, cut: float, black: int, across: bool, down: bool) -> None:
    true = Box(20, 290 - height, width, height)
    drawn = noisy(filled(octagon(border(300, 400, black), CONTENT, cut), true, (black, black, black)))
    found = find_insets(drawn[:: -1 if down else 1, :: -1 if across else 1], mirrored(CONTENT, across, down))
    assert [inset.kind for inset in found] == ["black"]
    kept, union = overlap(found[0].box, mirrored(true, across, down))
    assert kept == 1
    assert union >= 0.9


def test_its_edges_are_placed_to_the_pixel_and_two_more() -> None:
    true = Box(20, 180, 130, 110)
    (found,) = find_insets(noisy(filled(octagonal(), true, BLACK)), CONTENT)
    assert found == Inset("black", Box(20, 178, 132, 112))


def test_a_dim_frame_belongs_to_the_box() -> None:
    framed = filled(filled(octagonal(), Box(20, 180, 130, 110), DIM), Box(26, 186, 118, 98), BLACK)
    (found,) = find_insets(noisy(framed, 1), CONTENT)
    assert found.box == Box(20, 178, 132, 112)


def test_a_strip_of_picture_may_show_under_the_box() -> None:
    true = Box(20, 170, 150, 112)
    (found,) = find_insets(noisy(filled(octagonal(), true, BLACK)), CONTENT)
    assert found.box == Box(20, 168, 152, 116)


def test_two_boxes_that_make_a_step_are_both_found() -> None:
    boxes = [Box(20, 180, 80, 110), Box(20, 230, 150, 60)]
    drawn = filled(filled(octagonal(), boxes[0], BLACK), boxes[1], BLACK)
    found = find_insets(noisy(drawn), CONTENT)
    assert len(found) == 2
    true = inset_mask((300, 400), [Inset("black", box) for box in boxes])
    mask = inset_mask((300, 400), found)
    assert (mask & true).sum() == true.sum()
    assert true.sum() / mask.sum() >= 0.9


@pytest.mark.parametrize("scale", [2, 4])
def test_boxes_of_large_frames_are_found(scale: int) -> None:
    drawn = noisy(filled(octagonal(), Box(20, 180, 130, 110), BLACK))
    large = drawn.repeat(scale, 0).repeat(scale, 1)
    (found,) = find_insets(large, Box(*(scale * side for side in (CONTENT.left, CONTENT.top, CONTENT.width, CONTENT.height))))
    true = Box(*(scale * side for side in (20, 180, 130, 110)))
    assert overlap(found.box, true)[1] >= 0.9


def test_boxes_are_cut_to_the_content() -> None:
    drawn = noisy(filled(octagonal(), Box(8, 180, 140, 115), BLACK))
    (found,) = find_insets(drawn, CONTENT)
    assert found.box.intersection(CONTENT) == found.box


# What is no box.


@given(cut=st.floats(0, 0.45))
@settings(max_examples=20)
def test_the_corners_of_an_octagon_are_no_insets(cut: float) -> None:
    assert find_insets(noisy(octagon(border(300, 400), CONTENT, cut)), CONTENT) == []


def test_the_corners_of_a_round_picture_are_no_insets() -> None:
    assert find_insets(noisy(disc(border(300, 400), CONTENT)), CONTENT) == []


@settings(max_examples=60)
@given(
    x=st.integers(20, 150),
    y=st.integers(160, 290),
    across=st.integers(15, 120),
    down=st.integers(15, 110),
    black=st.integers(0, 12),
)
def test_dark_lumen_at_the_lower_left_is_no_inset(x: int, y: int, across: int, down: int, black: int) -> None:
    dark = lumen(octagonal(), (x, y), (across, down), black)
    assert find_insets(noisy(dark), CONTENT) == []


def test_a_black_box_inside_the_picture_is_no_inset() -> None:
    assert find_insets(noisy(filled(octagonal(), Box(120, 140, 80, 70), BLACK)), CONTENT) == []


def test_a_dim_box_is_no_black_one() -> None:
    assert find_insets(noisy(filled(octagonal(), Box(20, 180, 130, 110), (24, 24, 24)), 1), CONTENT) == []


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (15, 40), (16, 16), (40, 300), (300, 40)])
def test_small_black_one_coloured_and_random_frames_have_none(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for frame in (random, border(*shape), border(*shape, 255)):
        assert find_insets(frame, Box(0, 0, shape[1], shape[0])) == []


# Green boxes.


@settings(max_examples=20)
@given(left=st.integers(30, 260), top=st.integers(20, 190), width=st.integers(50, 100), height=st.integers(50, 90))
def test_a_green_box_is_found_anywhere_with_its_frame(left: int, top: int, width: int, height: int) -> None:
    true = Box(left, top, width, height)
    drawn = filled(
        filled(octagon(border(300, 400), CONTENT, 0.1), true, DIM), Box(left + 5, top + 5, width - 10, height - 10), GREEN
    )
    # The line that parts the map's two views.
    drawn = filled(drawn, Box(left + width // 2, top + 5, 1, height - 10), DIM)
    found = [inset for inset in find_insets(noisy(drawn), CONTENT) if inset.kind == "green"]
    assert len(found) == 1
    kept, union = overlap(found[0].box.intersection(CONTENT), true.intersection(CONTENT))
    assert kept == 1
    assert union >= 0.8


def test_a_green_box_has_no_black_one_inside() -> None:
    drawn = filled(filled(octagonal(), Box(20, 180, 130, 110), DIM), Box(26, 186, 118, 98), GREEN)
    assert [inset.kind for inset in find_insets(noisy(drawn), CONTENT)] == ["green"]


def test_green_that_is_no_rectangle_is_no_inset() -> None:
    patch = disc(octagonal(), Box(100, 80, 120, 100))
    green = np.where(
        (patch == TISSUE).all(2, keepdims=True) & (disc(border(300, 400), Box(100, 80, 120, 100)) > 0), GREEN, patch
    )
    assert find_insets(green.astype(np.uint8), CONTENT) == []


def test_a_green_frame_is_no_inset() -> None:
    assert find_insets(filled(border(300, 400), Box(0, 0, 400, 300), GREEN), Box(0, 0, 400, 300)) == []


# The filling.


def test_filling_continues_what_is_around_and_changes_nothing_else() -> None:
    slope = np.linspace(60, 200, 120).astype(np.uint8)[:, None, None]
    smooth = np.broadcast_to(slope, (120, 160, 3)).copy()
    mask = inset_mask((120, 160), [Inset("black", Box(50, 40, 60, 30))])
    holed = np.where(mask[..., None], 0, smooth).astype(np.uint8)
    result = inpaint(holed, mask)
    assert result.shape == smooth.shape and result.dtype == np.uint8
    assert np.array_equal(result[~mask], smooth[~mask])
    assert np.abs(result[mask].astype(int) - smooth[mask]).max() <= 25
    assert not np.array_equal(holed, result)


@pytest.mark.parametrize("everywhere", [False, True])
def test_filling_nothing_or_all_leaves_the_frame(everywhere: bool) -> None:
    frame = noisy(octagonal())
    assert np.array_equal(inpaint(frame, np.full((300, 400), everywhere)), frame)


def test_no_trace_of_a_found_box_is_left_by_filling_the_content() -> None:
    drawn = noisy(filled(octagon(border(300, 400), CONTENT, 0), Box(20, 180, 130, 110), BLACK))
    mask = inset_mask((300, 400), find_insets(drawn, CONTENT))
    assert inpaint(drawn[CONTENT.slices], mask[CONTENT.slices]).max(2).min() > 150


def test_other_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="must be uint8"):
        find_insets(np.zeros((40, 40, 3)), Box(0, 0, 40, 40))
    with pytest.raises(InputError, match="must be uint8"):
        inpaint(np.zeros((40, 40), np.uint8), np.zeros((40, 40), bool))


# Real frames.


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (kinds found, mask found, true mask) of the frames looked through by eye."""
    if not (shared_data / "kvasir-green-inset").is_dir():
        pytest.skip(f"no {shared_data}/kvasir-green-inset")
    found = []
    for name, rectangles in INSETS.items():
        frame = read_image(shared_data / name)
        insets = find_insets(frame, find_content_area(frame))
        true = [Inset("black", Box(left, top, right - left, bottom - top)) for left, top, right, bottom in rectangles]
        kinds = "".join(sorted({inset.kind for inset in insets}))
        expected = ("green" if "green" in name else "black") if rectangles else ""
        found.append((f"{expected}>{kinds}", inset_mask(frame.shape[:2], insets), inset_mask(frame.shape[:2], true)))
    return found


def test_eighty_frames_with_and_without_insets_are_known() -> None:
    assert len(INSETS) == 80
    assert sum(not rectangles for rectangles in INSETS.values()) >= 20


def test_insets_of_real_frames_are_found(pairs: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    results = [kinds for kinds, _, _ in pairs]
    assert results.count("green>green") == 6
    with_box = [result for result in results if result.startswith("black")]
    assert with_box.count("black>black") / len(with_box) >= 0.98


def test_what_is_found_in_real_frames_is_an_inset(pairs: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    found = [kinds for kinds, _, _ in pairs if not kinds.endswith(">")]
    right = [kinds for kinds in found if kinds in ("black>black", "green>green")]
    assert len(right) / len(found) >= 0.98


def test_the_boxes_of_real_frames_lie_where_they_are(pairs: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    unions = [(mask & true).sum() / (mask | true).sum() for _, mask, true in pairs if true.any()]
    assert min(unions) >= 0.85
    assert np.mean(unions) >= 0.95
