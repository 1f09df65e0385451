"""The figures show the numbers they are given, all of them, and nothing is cut off."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from endovae.run_folder import bordered
from fixtures import tiny
from fixtures.figures import assert_legible, drawn, panel, visible_texts
from pixelscope.data.frames.preprocess import Stages, stages
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.report.findings import (
    ClassQuality,
    LayerSize,
    kinds_panels,
    layer_bars,
    layer_sizes,
    region_bars,
    size_panel,
    spectra_panels,
)
from pixelscope.endovae.report.frames import (
    classes_gallery,
    final_square,
    stages_figure,
    versions_gallery,
)
from pixelscope.endovae.report.generated import (
    Reconstructions,
    active_dimensions,
    divergence_bars,
    generated_gallery,
    interpolation_gallery,
    reconstruction_gallery,
    traversal_gallery,
)
from pixelscope.endovae.report.training import SMALL, loss_panels, lr_drops, progress_gallery
from pixelscope.endovae.results import SizeResult
from pixelscope.imaging.content_area import Box
from pixelscope.reports.plotting import INK, evenly_spaced, smoothed

RNG = np.random.default_rng(7)


def size(width: int, height: int, count: int, psnr: float) -> SizeResult:
    return SizeResult(width=width, height=height, count=count, psnr=psnr, ssim=0.5)


CLASSES = ["normal-cecum", "normal-colon", "polyps"]
LONG = ["normal-ileocecal-valve-720x576-olympus", "WWWWWWWWWWWWWWWWWWWWWW", "$x^2$"]

TRAIN = [
    {"images": 320 * i, "loss/reconstruction": 5000 + 1000 / i, "loss/kl": 0.4 * i, "loss/total": 5000 + 1000 / i + 0.4 * i}
    for i in range(1, 41)
]
EVALUATIONS = [
    {
        "images": 3200 * i,
        "loss/validation_reconstruction": 6388.0 - 300 * i,
        "loss/validation_kl": 4.0 * i,
        "loss/validation_total": 6388.0 - 296 * i,
        "learning_rate": rate,
    }
    for i, rate in enumerate([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
]
SPECTRA = {
    "original": [9.0, 8.0, 4.0, 2.0, 1.0],
    "endovae": [9.0, 7.0, 2.0, 0.2, 0.1],
    "pca": [9.0, 6.0, 1.0, 0.1, 0.0],
    "mean image": [9.0, 1.0, 0.1, 0.01, 0.001],
}
NAMES = {"endovae": "EndoVAE", "pca": "PCA, 6 components", "mean image": "mean image"}
ERRORS = {"normal": {"tissue": 0.004, "lumen": 0.006}, "abnormal": {"tissue": 0.01, "lumen": 0.02, "inset": 0.03}}
SHARES = {"normal": {"tissue": 0.9, "lumen": 0.1}, "abnormal": {"tissue": 0.8, "lumen": 0.15, "inset": 0.05}}
SIZES = {"normal": [size(720, 576, 151, 21.0)], "abnormal": [size(1348, 1070, 12, 17.0)]}
CROWDED = {"abnormal": [size(560 + i % 70, 525 + i % 23, 1 + i % 9, 15 + i % 5) for i in range(225)]}

BRIGHT = Box(10, 8, 100, 80)
"""Where a bordered frame is bright."""


def images(*shape: int, side: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, side, side, 3), dtype=np.uint8)


def one_frame(position: int = 0, frame: np.ndarray | None = None, content: Box = BRIGHT) -> Stages:
    return stages(position, bordered(RNG) if frame is None else frame, content)


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def titles(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [axes.get_title(loc="left") for axes in figure.axes]


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in axes.lines if str(one.get_label()).startswith(label)]
    return np.asarray(found.get_xdata(), float).tolist(), np.asarray(found.get_ydata(), float).tolist()


def bars(axes: Axes, label: str) -> list[Any]:
    (found,) = [container for container in axes.containers if container.get_label() == label]
    return list(found)


@pytest.mark.parametrize(("title", "name"), [("Reconstruction", "reconstruction"), ("KL", "kl"), ("Loss", "total")])
def test_each_term_has_a_panel_with_training_and_validation(title: str, name: str) -> None:
    axes = panel(loss_panels(TRAIN, EVALUATIONS), title)
    values = [entry[f"loss/{name}"] for entry in TRAIN]
    assert line(axes, "_raw")[1] == values
    assert line(axes, "training")[1] == pytest.approx(smoothed(np.array(values)))
    assert line(axes, "validation") == (
        [entry["images"] for entry in EVALUATIONS],
        [entry[f"loss/validation_{name}"] for entry in EVALUATIONS],
    )


def test_the_loss_shows_the_best_checkpoint_and_when_the_learning_rate_fell() -> None:
    axes = panel(loss_panels(TRAIN, EVALUATIONS, best=(9600, 5500.25), start_kl=1.0), "Loss")
    assert line(axes, "lowest: 5,500.2") == ([9600], [5500.25])
    marked = [one.get_xdata()[0] for one in axes.lines if str(one.get_label()) in ("learning rate lowered", "_lowered")]  # type: ignore[index]
    assert marked == lr_drops(EVALUATIONS) == [3200, 9600]
    assert lr_drops(EVALUATIONS[:2]) == lr_drops([]) == []


def test_a_loss_without_cross_entropy_is_not_in_nats_and_not_rounded_to_0() -> None:
    figure = loss_panels(TRAIN, EVALUATIONS, best=(9600, 0.0312), unit="loss")
    assert line(panel(figure, "Loss"), "lowest: 0.0312") == ([9600], [0.0312])
    labels = {title: panel(figure, title).get_ylabel() for title in ("Reconstruction", "KL", "Loss")}
    assert labels == {"Reconstruction": "loss per image", "KL": "nats per image", "Loss": "loss per image"}


def test_the_learning_rate_and_the_start_of_the_schedule_are_drawn() -> None:
    figure = loss_panels(TRAIN, EVALUATIONS, start_kl=1.5)
    axes = panel(figure, "Learning")
    assert line(axes, "until each evaluation")[1] == [entry["learning_rate"] for entry in EVALUATIONS]
    # An evaluation is written before the schedule acts on it: its learning rate is that of the epoch before.
    (steps,) = [one for one in axes.lines if one.get_label() == "until each evaluation"]
    assert steps.get_drawstyle() == "steps-pre"
    assert line(panel(figure, "KL"), "schedule starts")[1] == [1.5, 1.5]


def test_a_panel_without_numbers_is_left_out() -> None:
    assert loss_panels([], []) is None
    assert titles(loss_panels(TRAIN, [])) == ["Reconstruction term", "KL term", "Loss"]
    assert titles(loss_panels([], EVALUATIONS[:1])) == ["Reconstruction term", "KL term", "Loss", "Learning rate"]


def test_the_discriminator_has_a_panel_where_there_was_one() -> None:
    train = [{**entry, "loss/discriminator": 1 - 0.01 * number} for number, entry in enumerate(TRAIN)]
    axes = panel(loss_panels(train, EVALUATIONS), "Discriminator")
    assert line(axes, "_raw")[1] == [entry["loss/discriminator"] for entry in train]
    assert line(axes, "tells nothing apart")[1] == [1, 1]
    assert axes.get_ylim()[1] > 1.05


def test_what_was_learnt_fills_the_panel_though_it_began_far_above() -> None:
    first = {"images": 32, "loss/reconstruction": 90_000.0}
    axes = panel(loss_panels([first, *TRAIN[1:]], []), "Reconstruction")
    low, high = axes.get_ylim()
    assert 4900 < low < 5025 < 5500 < high < 5600


def test_frames_stand_in_the_row_of_their_class() -> None:
    frames, labels = images(5), np.array([2, 0, 0, 2, 0])
    figure = classes_gallery(frames, labels, CLASSES)
    assert texts(figure) == ["normal-cecum", "polyps"]
    np.testing.assert_array_equal(tiles(figure), frames[[1, 2, 4, 0, 3]])


def test_copies_stand_below_their_original() -> None:
    versions = images(4, 3)
    figure = versions_gallery(versions)
    assert texts(figure) == ["original", "copy 1", "copy 2"]
    np.testing.assert_array_equal(tiles(figure), versions.swapaxes(0, 1).reshape(12, 32, 32, 3))


def test_progress_shows_the_originals_then_each_moment() -> None:
    originals, reconstructions, generated = images(5), images(3, 5), images(3, 4)
    figure = progress_gallery(np.array([0, 3288, 1_120_000]), originals, reconstructions, generated)
    assert texts(figure)[2:] == ["original", "0\nimages", "3,288\nimages", "1,120,000\nimages"]
    moments = [image for moment in range(3) for image in (*reconstructions[moment], *generated[moment])]
    np.testing.assert_array_equal(tiles(figure), [*originals, *moments])


@given(st.integers(0, 500), st.integers(1, 8))
def test_positions_are_spread_over_all_with_the_first_and_the_last(count: int, most: int) -> None:
    chosen = evenly_spaced(count, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert all(0 <= position < count for position in chosen)
    assert not chosen or chosen[0] == 0
    assert most < 2 or not chosen or chosen[-1] == count - 1


def test_very_many_images_are_embedded_small() -> None:
    figure = progress_gallery(np.array([0]), images(2, side=96), images(1, 2, side=96), images(1, 2, side=96))
    assert {tile.shape for tile in tiles(figure)} == {(SMALL, SMALL, 3)}


def test_reconstructions_stand_below_their_originals_with_their_quality() -> None:
    groups = [
        Reconstructions(name, images(2), images(2), np.array([17.16, at]), np.array([0.4244, 0.5]))
        for name, at in (("normal", 21.0), ("abnormal", 9.0))
    ]
    figure = reconstruction_gallery(groups)
    assert texts(figure)[4:9] == ["normal", "17.2", "0.424", "21.0", "0.500"]
    assert texts(figure)[9:] == ["abnormal", "17.2", "0.424", "9.0", "0.500"]
    shown = [image for group in groups for image in (*group.originals, *group.reconstructions)]
    np.testing.assert_array_equal(tiles(figure), shown)
    places = [image.get_extent() for image in figure.axes[0].images]
    for original, reconstruction in ((0, 2), (1, 3), (4, 6), (5, 7)):
        assert places[original][:2] == places[reconstruction][:2]
        assert places[original][2] < places[reconstruction][3]


def test_generated_frames_are_all_shown() -> None:
    generated = images(13)
    np.testing.assert_array_equal(tiles(generated_gallery(generated)), generated)


def test_an_interpolation_has_its_frames_at_both_ends() -> None:
    ends, ways = images(3, 2), images(3, 9)
    shown = np.array(tiles(interpolation_gallery(ends, ways))).reshape(3, 11, 32, 32, 3)
    np.testing.assert_array_equal(shown[:, 1:-1], np.roll(np.concatenate([ends[:, :1], ways], axis=1), -1, axis=1)[:, :9])
    np.testing.assert_array_equal(shown[:, 0], ends[:, 0])
    np.testing.assert_array_equal(shown[:, -1], ends[:, 1])


def test_a_traversal_is_named_by_its_dimension_and_values() -> None:
    walks = images(2, 3)
    figure = traversal_gallery(walks, np.array([-3.0, 0.0, 1.5]), np.array([4, 0]), np.array([2.414, 0.0]))
    assert texts(figure) == ["−3", "0", "+1.5", "z 5\nKL 2.41", "z 1\nKL 0.00"]
    np.testing.assert_array_equal(tiles(figure), walks.reshape(6, 32, 32, 3))


def test_the_five_stages_of_a_frame_stand_in_a_row() -> None:
    one = one_frame()
    figure = drawn(stages_figure([("polyps", one)], 16))
    shown = tiles(figure)
    assert [image.ndim for image in shown] == [3, 2, 2, 3, 3]
    np.testing.assert_array_equal(shown[0], one.original)
    np.testing.assert_array_equal(shown[1], one.grey)
    np.testing.assert_array_equal(shown[2], 255 * one.mask)
    assert shown[4].shape == (16, 16, 3)
    assert texts(figure)[:5] == ["original", "grey", "Otsu's mask", "contour and content area", "final 16 × 16"]
    assert texts(figure)[5:] == ["polyps", f"threshold {one.threshold:.0f}"]


def test_the_boxes_lie_on_the_picture_where_they_were_found() -> None:
    one = one_frame(content=Box(20, 8, 60, 80))
    figure = drawn(stages_figure([("", one)], 16))
    left, right, bottom, top = figure.axes[0].images[3].get_extent()
    scale = (right - left) / one.original.shape[1]
    assert (bottom - top) / scale == pytest.approx(one.original.shape[0])
    contour, otsu, area, square = (np.array(found.get_xydata()) for found in figure.axes[0].lines)
    np.testing.assert_allclose((contour[:-1] - (left, top)) / scale, one.contour, atol=1e-3)
    for drawn_box, box in ((otsu, one.otsu_box), (area, one.box), (square, (20, 18, 60, 60))):
        corner, size = drawn_box.min(0), np.ptp(drawn_box, axis=0)
        np.testing.assert_allclose([*(corner - (left, top)) / scale, *size / scale], box, atol=1e-3)


def test_the_last_stage_is_the_centre_square_of_the_area() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:30, 20:40] = (200, 100, 50)
    square = final_square(one_frame(frame=frame, content=Box(10, 10, 40, 20)), 8)
    np.testing.assert_array_equal(square, np.broadcast_to((200, 100, 50), (8, 8, 3)))


def test_no_frame_gives_no_stages() -> None:
    assert stages_figure([], 96) is None


def test_a_portrait_frame_keeps_its_shape() -> None:
    one = one_frame(frame=np.full((300, 80, 3), 120, np.uint8), content=Box(0, 0, 80, 300))
    left, right, bottom, top = drawn(stages_figure([("", one)], 16)).axes[0].images[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(300 / 80)


def test_divergence_stands_in_the_order_of_the_first_set() -> None:
    figure = drawn(divergence_bars([("normal", [0.05, 3.0, 1.0]), ("abnormal", [0.5, 2.0, 4.0])]))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["z 2", "z 3", "z 1"]
    assert [bar.get_height() for bar in bars(axes, "normal")] == [3.0, 1.0, 0.05]
    assert [bar.get_height() for bar in bars(axes, "abnormal")] == [2.0, 4.0, 0.5]
    assert (active_dimensions([0.05, 3.0, 1.0]), active_dimensions([0.1])) == (2, 1)
    assert divergence_bars([]) is None


def test_spectra_show_the_energy_of_every_method_but_the_mean() -> None:
    axes = panel(spectra_panels([("Abnormal", SPECTRA)], NAMES, 2), "Abnormal")
    assert axes.get_yscale() == "log"
    for label, name in {"originals": "original", "EndoVAE": "endovae", "mean image": "mean image"}.items():
        assert line(axes, label) == ([1, 2, 3, 4], SPECTRA[name][1:])
    assert line(axes, "PCA, 6 components")[1][:3] == SPECTRA["pca"][1:4]
    assert np.isnan(line(axes, "PCA, 6 components")[1][3])
    (fine,) = axes.patches
    assert (fine.get_extents().x0, fine.get_extents().x1) == pytest.approx(
        (axes.transData.transform((2, 1))[0], axes.transData.transform((4, 1))[0])
    )
    assert spectra_panels([], NAMES, 2) is None


def test_regions_show_error_and_share_of_each_kind() -> None:
    figure = drawn(region_bars(ERRORS, SHARES))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tissue", "lumen", "inset"]
    for kind, found in ERRORS.items():
        assert [bar.get_width() for bar in bars(axes, kind)] == list(found.values())
        assert [round(bar.get_y() + bar.get_height() / 2) for bar in bars(axes, kind)] == list(range(len(found)))
    assert texts(figure) == [
        *("0.0040, 90.0% of pixels", "0.0060, 10.0% of pixels"),
        *("0.0100, 80.0% of pixels", "0.0200, 15.0% of pixels", "0.0300, 5.0% of pixels"),
    ]
    assert region_bars({}, {}) is None


def test_kinds_show_every_finite_psnr_and_the_mean() -> None:
    psnr = {"normal": np.array([20.0, 21.0, 22.0, np.inf]), "abnormal": np.array([15.0, 17.0])}
    axes = panel(kinds_panels(psnr, []), "PSNR")
    shares = {str(patch.get_label()): patch.get_data().values for patch in axes.patches}  # type: ignore[attr-defined]
    assert {name: values.sum() for name, values in shares.items()} == pytest.approx({"normal, 3": 1, "abnormal, 2": 1})
    assert [line(axes, f"mean {mean:.2f} dB")[0] for mean in (21, 16)] == [[21, 21], [16, 16]]
    assert kinds_panels({"normal": np.array([np.inf])}, []) is None


def test_each_class_stands_at_its_mean_with_its_spread() -> None:
    classes = [ClassQuality("cecum", "normal", 49, 21.5, 2.0), ClassQuality("polyps", "abnormal", 1600, 17.4, 3.0)]
    axes = panel(drawn(kinds_panels({}, classes)), "Mean")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cecum\n49", "polyps\n1,600"]
    for row, (one, container) in enumerate(zip(classes, axes.containers, strict=True)):
        mark, _, (spread,) = container
        assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([one.mean], [row])
        ((low, _), (high, _)) = spread.get_segments()[0]
        assert (low, high) == pytest.approx((one.mean - one.std, one.mean + one.std))


def test_sizes_stand_at_their_pixels_and_grow_with_their_frames() -> None:
    axes = drawn(size_panel(SIZES)).axes[0]
    normal, abnormal = axes.collections
    np.testing.assert_allclose(normal.get_offsets(), [[0.41472, 21.0]])
    np.testing.assert_allclose(abnormal.get_offsets(), [[1.44236, 17.0]])
    assert normal.get_sizes()[0] > 5 * abnormal.get_sizes()[0]  # type: ignore[attr-defined]
    assert size_panel({}) is None


def test_the_layers_are_those_of_the_reference_study() -> None:
    layers = paper_layers()
    totals = {name: sum(one.parameters for one in layers if one.network == name) for name in ("encoder", "decoder")}
    assert totals == {"encoder": 9_842_380, "decoder": 1_282_467}
    largest = max(layers, key=lambda one: one.parameters)
    assert (largest.network, largest.name, largest.parameters) == ("encoder", "dense: 256", 36_864 * 256 + 256)
    assert [one.name for one in layers[7:9]] == ["dense, mean: 6", "dense, log variance: 6"]
    assert layers[10].name == "transposed conv: 256 × 24 × 24"


def test_layer_bars_are_as_long_as_the_layers_are_large() -> None:
    layers = layer_sizes(tiny.endovae())
    axes = drawn(layer_bars(layers)).axes[0]
    shown = [bar.get_width() for network in ("encoder", "decoder") for bar in bars(axes, network)]
    assert shown == [one.parameters for one in layers]
    total = sum(shown)
    assert texts(axes.figure)[0] == f"{layers[0].parameters:,} ({layers[0].parameters / total:.1%})"  # type: ignore[arg-type]
    assert layer_bars([]) is None


@cache
def paper_layers() -> list[LayerSize]:
    return layer_sizes(EndoVAEConfig())


def reconstructions(names: list[str]) -> Figure:
    groups = [Reconstructions(f"{name}, random", images(5), images(5), np.full(5, 17.2), np.full(5, 0.489)) for name in names]
    return reconstruction_gallery(groups[:2])


FIGURES: dict[str, Callable[[list[str]], Figure | None]] = {
    "losses": lambda names: loss_panels(TRAIN, EVALUATIONS, (6400, 123_456.7), 1.0),
    "young": lambda names: loss_panels(TRAIN[:1], EVALUATIONS[:1], (0, 6388.0), 1.0),
    "classes": lambda names: classes_gallery(images(18), np.arange(18) % len(names), names),
    "versions": lambda names: versions_gallery(images(5, 3)),
    "progress": lambda names: progress_gallery(np.array([0, 123_456_789]), images(5), images(2, 5), images(2, 5)),
    "reconstructions": reconstructions,
    "interpolation": lambda names: interpolation_gallery(images(3, 2), images(3, 9)),
    "traversal": lambda names: traversal_gallery(images(3, 9), np.linspace(-3, 3, 9), np.arange(126, 129), np.ones(3)),
    "stages": lambda names: stages_figure([(name, one_frame()) for name in names], 96),
    "divergence": lambda names: divergence_bars([(name, np.arange(6).tolist()) for name in ("normal frames", "abnormal")]),
    "wide": lambda names: divergence_bars([("normal test frames", np.arange(128).tolist())]),
    "spectra": lambda names: spectra_panels([("Normal test frames", SPECTRA), ("Abnormal", SPECTRA)], NAMES, 2),
    "regions": lambda names: region_bars(ERRORS, SHARES),
    "kinds": lambda names: kinds_panels(
        {"normal": RNG.normal(21, 2, 77), "abnormal": RNG.normal(17, 3, 600)},
        [ClassQuality(name, "normal", 12_345, 17.4 + i / 50, 2.1) for i, name in enumerate(names)],
    ),
    "sizes": lambda names: size_panel(CROWDED),
    "few sizes": lambda names: size_panel({"normal": SIZES["normal"]}),
    "layers": lambda names: layer_bars(paper_layers()),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_no_label_is_cut_off_or_lies_on_another(figure: str) -> None:
    assert_legible(FIGURES[figure](CLASSES))


@pytest.mark.parametrize("figure", ["classes", "reconstructions", "stages", "kinds"])
def test_long_names_are_cut_to_the_room_there_is(figure: str) -> None:
    assert_legible(FIGURES[figure](LONG))


@pytest.mark.parametrize("figure", ["losses", "classes", "spectra", "regions", "kinds", "sizes"])
def test_text_takes_the_ink_of_the_page(figure: str) -> None:
    assert {text.get_color() for text in visible_texts(drawn(FIGURES[figure](CLASSES)))} == {INK}
