"""The content area, on drawn frames, on frames without a border and on real ones whose outline was checked by eye."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from fixtures.borders import OUTLINES
from fixtures.endoscope import border, disc, filled, lumen, noisy, octagon, overlap, text
from pixelscope.data.formats.decode import read_image
from pixelscope.errors import InputError
from pixelscope.imaging.content_area import Box, find_content_area, otsu_stages

CONTENT = Box(60, 24, 310, 250)
"""Where the picture lies in most drawn frames, which are 300 high and 400 wide."""

METHODS = ("robust", "otsu")


def frame(black: int = 0, spread: float = 2.0) -> np.ndarray:
    return noisy(octagon(border(300, 400, black), CONTENT), spread)


def close(found: Box, true: Box, pixels: int = 3) -> bool:
    sides = (found.left, found.top, found.left + found.width, found.top + found.height)
    true_sides = (true.left, true.top, true.left + true.width, true.top + true.height)
    return max(abs(a - b) for a, b in zip(sides, true_sides, strict=True)) <= pixels


# The robust method on drawn frames.


@settings(max_examples=40)
@given(
    margins=st.tuples(*[st.integers(0, 80)] * 4),
    width=st.integers(150, 400),
    height=st.integers(150, 400),
    cut=st.floats(0, 0.35),
    black=st.integers(0, 20),
)
def test_finds_the_picture_whatever_its_shape_and_border(
    margins: tuple[int, int, int, int], width: int, height: int, cut: float, black: int
) -> None:
    left, top, right, bottom = margins
    content = Box(left, top, width, height)
    drawn = noisy(octagon(border(top + height + bottom, left + width + right, black), content, cut))
    assert close(find_content_area(drawn), content)


def test_finds_a_round_picture() -> None:
    drawn = noisy(disc(border(300, 400), CONTENT))
    assert overlap(find_content_area(drawn), CONTENT)[1] >= 0.98


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_finds_it_at_any_resolution(scale: int) -> None:
    large = frame().repeat(scale, 0).repeat(scale, 1)
    true = Box(*(scale * side for side in (CONTENT.left, CONTENT.top, CONTENT.width, CONTENT.height)))
    assert close(find_content_area(large), true, 2 * scale)


@settings(max_examples=40)
@given(x=st.integers(60, 369), y=st.integers(24, 273), across=st.integers(20, 110), down=st.integers(20, 90))
def test_dark_lumen_is_not_cut_wherever_it_is(x: int, y: int, across: int, down: int) -> None:
    dark = lumen(octagon(border(300, 400), CONTENT), (x, y), (across, down))
    assert overlap(find_content_area(noisy(dark)), CONTENT)[0] >= 0.98


def test_the_reports_method_cuts_where_the_default_does_not() -> None:
    # Over the left half it is darker than Otsu's threshold from top to bottom, and brighter than the border.
    dark = noisy(lumen(octagon(border(300, 400), CONTENT), (60, 150), (190, 200), black=30))
    assert overlap(find_content_area(dark), CONTENT)[0] >= 0.98
    assert overlap(find_content_area(dark, "otsu"), CONTENT)[0] < 0.6


def test_dim_tissue_is_kept() -> None:
    # As dark as 25 on a border of 8: red, so that its grey is nearly black.
    dim = noisy(octagon(border(300, 400, 8), CONTENT, colour=(28, 4, 2)))
    assert close(find_content_area(dim), CONTENT)


@pytest.mark.parametrize("start", [4, 110], ids=["beside", "across the edge"])
def test_text_does_not_widen_the_picture(start: int) -> None:
    content = Box(160, 24, 310, 250)
    burned = text(
        octagon(border(300, 500), content), ["ID: 12345", "Name: XXXX", "17/06/2015", "12:30:42", "", "6/7"], (start, 60)
    )
    burned = text(burned, ["Comment:"], (200, 292))
    assert close(find_content_area(noisy(burned)), content)


@pytest.mark.parametrize(
    "panel", [Box(20, 180, 90, 80), Box(100, 4, 20, 292), Box(20, 2, 400, 14)], ids=["small", "taller", "wider"]
)
def test_a_panel_beside_the_picture_is_left_out(panel: Box) -> None:
    content = Box(160, 34, 310, 240)
    drawn = filled(octagon(border(300, 500), content), panel, (20, 180, 140))
    assert close(find_content_area(noisy(drawn)), content)


def test_a_picture_that_a_dark_band_parts_stays_whole() -> None:
    parted = filled(octagon(border(300, 400), CONTENT), Box(0, 120, 400, 30), (0, 0, 0))
    assert close(find_content_area(noisy(parted)), CONTENT)


def test_a_mirrored_or_turned_frame_has_the_mirrored_or_turned_box() -> None:
    drawn = frame()
    mirrored = Box(400 - 60 - 310, 24, 310, 250)
    assert close(find_content_area(drawn[:, ::-1]), mirrored)
    assert close(find_content_area(drawn.transpose(1, 0, 2)), Box(24, 60, 250, 310))


def test_grey_frames_are_frames() -> None:
    grey = frame()[..., :1].repeat(3, 2)
    assert close(find_content_area(grey), CONTENT)


# Frames that have no border, or nothing else.


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    darkest=st.integers(60, 120),
    seed=st.integers(0, 99),
)
def test_a_frame_without_border_is_all_content(height: int, width: int, darkest: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(darkest, 256, (height, width, 3), np.uint8)
    assert find_content_area(picture) == Box(0, 0, width, height)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 9), (300, 200)])
def test_a_black_frame_is_all_content(method: str, size: tuple[int, int]) -> None:
    assert find_content_area(border(*size), method) == Box(0, 0, size[1], size[0])


def test_noise_on_black_is_all_content() -> None:
    assert find_content_area(noisy(border(300, 400, 3))) == Box(0, 0, 400, 300)


@given(colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_frame_of_one_colour_is_all_content(colour: tuple[int, int, int]) -> None:
    plain = filled(border(40, 60), Box(0, 0, 60, 40), colour)
    assert find_content_area(plain) == find_content_area(plain, "otsu") == Box(0, 0, 60, 40)


def test_text_or_a_glint_on_black_is_no_content_area() -> None:
    whole = Box(0, 0, 400, 300)
    assert find_content_area(text(border(300, 400), ["NO SIGNAL"], (120, 150))) == whole
    assert find_content_area(filled(border(300, 400), Box(180, 130, 50, 40), (255, 255, 255))) == whole


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 99), method=st.sampled_from(METHODS))
def test_tiny_frames_have_a_box_inside_them(height: int, width: int, seed: int, method: str) -> None:
    tiny = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    box = find_content_area(tiny, method)
    assert box.area >= 1
    assert box.intersection(Box(0, 0, width, height)) == box


# The report's method.


def test_otsus_steps_are_those_of_scikit_image() -> None:
    drawn = filled(frame(spread=12), Box(5, 280, 12, 12), (250, 250, 250))
    stages = otsu_stages(drawn)
    assert np.abs(stages.grey - drawn @ np.array([0.299, 0.587, 0.114])).max() <= 1
    # Any threshold between the two heaps of values is as good; the mask is what counts.
    assert np.array_equal(stages.mask, stages.grey > threshold_otsu(stages.grey))
    assert np.array_equal(stages.mask, stages.grey > stages.threshold)
    largest = max(regionprops(label(stages.mask, connectivity=2)), key=lambda region: region.area_filled)
    top, left, bottom, right = largest.bbox
    assert stages.box == Box(left, top, right - left, bottom - top) == find_content_area(drawn, "otsu")


def test_otsus_contour_runs_along_the_bright_region_and_spans_the_box() -> None:
    stages = otsu_stages(frame())
    x, y = stages.contour.T
    assert stages.mask[y, x].all()
    assert (x.min(), y.min()) == (stages.box.left, stages.box.top)
    assert (np.ptp(x) + 1, np.ptp(y) + 1) == (stages.box.width, stages.box.height)


def test_otsu_of_black_has_no_contour() -> None:
    stages = otsu_stages(border(4, 6))
    assert stages.contour.shape == (0, 2)
    assert not stages.mask.any()
    assert stages.box == Box(0, 0, 6, 4)


# Bad input.


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["float", "grey", "alpha", "empty"],
)
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    for find in (find_content_area, otsu_stages):
        with pytest.raises(InputError, match=r"must be uint8 of shape \(H, W, 3\)"):
            find(wrong)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match='no method "canny".* robust, otsu'):
        find_content_area(frame(), "canny")


# Real frames.


@pytest.fixture(scope="module")
def measured(shared_data: Path) -> dict[str, np.ndarray]:
    """Return for each method the (share kept, intersection over union) of the frames whose outline is known."""
    if not (shared_data / "kvasir").is_dir():
        pytest.skip(f"no {shared_data}/kvasir")
    rows: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for name, (left, top, right, bottom) in OUTLINES.items():
        picture = read_image(shared_data / name)
        for method in METHODS:
            rows[method].append(overlap(find_content_area(picture, method), Box(left, top, right - left, bottom - top)))
    return {method: np.array(values) for method, values in rows.items()}


def test_sixty_outlines_of_all_classes_are_known() -> None:
    folders = [name.rsplit("/", 1)[0] for name in OUTLINES]
    assert len(folders) == 60
    assert min(folders.count(folder) for folder in set(folders)) >= 6


def test_real_frames_keep_their_content(measured: dict[str, np.ndarray]) -> None:
    kept, _ = measured["robust"].T
    assert (kept >= 0.98).mean() >= 0.98


def test_real_frames_lose_their_border(measured: dict[str, np.ndarray]) -> None:
    _, union = measured["robust"].T
    assert (union >= 0.95).mean() >= 0.95
    assert union.mean() >= 0.99


def test_the_reports_method_cuts_real_frames(measured: dict[str, np.ndarray]) -> None:
    kept, _ = measured["otsu"].T
    assert (kept >= 0.98).mean() < 0.5


def test_otsu_keeps_less_than_half_of_as_many_clean_frames_as_the_reference_says(shared_data: Path) -> None:
    files = sorted((shared_data / "kvasir" / "normal-colon").glob("*.jpg"))
    if not files:
        pytest.skip(f"no {shared_data}/kvasir/normal-colon")
    halved = [find_content_area(picture, "otsu").area < picture[..., 0].size / 2 for picture in map(read_image, files)]
    assert np.mean(halved) == pytest.approx(0.08, abs=0.01)
