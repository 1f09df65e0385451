"""The figures show the numbers they are given, all of them, and nothing is cut off."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from fixtures.figures import drawn, panel
from pixelscope.pixelda.report.generated import (
    adapted_gallery,
    pairs_gallery,
    progress_gallery,
    styles_gallery,
)
from pixelscope.pixelda.report.result import class_accuracies, confusion_matrices
from pixelscope.pixelda.report.training import baseline_curves, class_histograms, stability_panels, training_panels
from pixelscope.reports.plotting import INK, Series, fitted, series, short_count, shortened, smoothed, text_width

RNG = np.random.default_rng(7)
DIGITS = list("0123456789")
LONG = ["normal-cecum-720x576", "ulcerative-colitis-grade-2", "WWWWWWWWWWWWWW", "polyps", "<b>", "$x^2$"]

TRAIN = [
    {
        "images": 320 * i,
        "loss/classifier": 2 / i,
        "loss/discriminator": 1.3 + 0.1 * (-1) ** i,
        "loss/generator": 0.02 + 0.001 * i,
        "loss/generator_domain": 0.8 + 0.01 * i,
        "probability/real": 0.6,
        "probability/generated": 0.4 + 0.001 * i,
        "gradient/generator_domain": 0.2 / i,
        "gradient/generator_task": 0.1 / i,
        "gradient/discriminator": 1.0,
        "histogram/source": [0.1] * 10,
        "histogram/generated": [0.01 * i] + [(1 - 0.01 * i) / 9] * 9,
    }
    for i in range(1, 41)
]
EVALUATIONS = [
    {"images": 3200 * i, "loss/source_train": 2.3 - 0.5 * i, "loss/source_test": 2.3 - 0.4 * i, "diversity": 0.01 * i}
    for i in range(5)
]
WARNINGS = [
    {"images": 640, "cause": "overpowering discriminator"},
    {"images": 960, "cause": "overpowering discriminator"},
    {"images": 1280, "cause": "vanishing gradients"},
    {"images": 1600, "cause": "collapse"},
]
ACCURACIES = {
    name: Series(np.arange(5) * 3200.0, np.array([0.1, 0.5, 0.7, 0.8, end]))
    for name, end in {"source_train": 0.99, "source_test": 0.97, "target_test": 0.81, "ema_target_test": 0.83}.items()
}


def images(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 32, 32, 3), dtype=np.uint8)


def titles(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [axes.get_title(loc="left") for axes in figure.axes]


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in axes.lines if str(one.get_label()).startswith(label)]
    return np.asarray(found.get_xdata(), float).tolist(), np.asarray(found.get_ydata(), float).tolist()


def raw(axes: Axes) -> list[list[float]]:
    return [np.asarray(one.get_ydata()).tolist() for one in axes.lines if one.get_label() == "_raw"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def tiles(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def test_pairs_show_each_image_below_its_class() -> None:
    source, target, labels = images(16), images(16), RNG.integers(10, size=16)
    figure = pairs_gallery(source, target, labels, DIGITS)
    assert [text for text in texts(figure) if text in DIGITS] == [DIGITS[label] for label in labels]
    rows = [source[:8], target[:8], source[8:], target[8:]]
    np.testing.assert_array_equal(tiles(figure), np.concatenate(rows))


def test_baseline_curves_show_loss_and_accuracy_in_epochs() -> None:
    figure = baseline_curves(TRAIN, EVALUATIONS, ACCURACIES, epoch=3200)
    loss, accuracy = panel(figure, "Loss"), panel(figure, "Accuracy")
    assert line(loss, "source, test") == ([0, 1, 2, 3, 4], [entry["loss/source_test"] for entry in EVALUATIONS])
    assert line(loss, "source, train")[1] == [entry["loss/source_train"] for entry in EVALUATIONS]
    assert raw(loss) == [[entry["loss/classifier"] for entry in TRAIN]]
    assert line(accuracy, "source, test") == ([0, 1, 2, 3, 4], ACCURACIES["source_test"].y.tolist())
    assert line(accuracy, "target, test: not trained on: 81.0%")[1] == ACCURACIES["target_test"].y.tolist()
    assert loss.get_xlabel() == "epochs of 3,200 images"


def test_a_baseline_curve_without_numbers_is_left_out() -> None:
    assert baseline_curves([], [], {}, None) is None
    assert titles(baseline_curves([], [], ACCURACIES, None)) == ["Accuracy of T"]
    only_loss = baseline_curves(TRAIN, [], {}, None)
    assert titles(only_loss) == ["Loss of T (cross-entropy)"]
    assert panel(only_loss, "Loss").get_xlabel() == "images seen"


def test_the_three_panels_show_their_losses_and_accuracies() -> None:
    figure = training_panels(TRAIN, ACCURACIES, before=0.537)
    game, losses, accuracy = panel(figure, "(a)"), panel(figure, "(b)"), panel(figure, "(c)")
    assert raw(game) == [[entry[f"loss/{name}"] for entry in TRAIN] for name in ("discriminator", "generator_domain")]
    assert raw(losses) == [[e[f"loss/{name}"] for e in TRAIN] for name in ("discriminator", "classifier", "generator")]
    assert line(losses, "T,")[1] == pytest.approx(smoothed(np.array([entry["loss/classifier"] for entry in TRAIN])))
    for name, label in {
        "source_train": "source, train: 99.0%",
        "source_test": "source, test: 97.0%",
        "target_test": "target, test: 81.0%",
        "ema_target_test": "target, test, EMA of T: 83.0%",
    }.items():
        assert line(accuracy, label) == (ACCURACIES[name].x.tolist(), ACCURACIES[name].y.tolist())
    assert line(accuracy, "target, test, baseline: 53.7%")[1] == [0.537, 0.537]


def test_a_panel_without_numbers_is_left_out() -> None:
    assert training_panels([], {}) is None
    assert titles(training_panels(TRAIN, {})) == ["(a) G against D", "(b) G, D and T"]
    source_only = {name: ACCURACIES[name] for name in ("source_train", "source_test")}
    axes = panel(training_panels([], source_only), "(c)")
    assert [str(one.get_label()) for one in axes.lines] == ["source, train: 99.0%", "source, test: 97.0%"]


def test_one_evaluation_is_a_visible_point() -> None:
    one = {"source_test": Series(np.array([0.0]), np.array([0.1]))}
    (point,) = panel(training_panels(TRAIN[:1], one), "(c)").lines
    assert (point.get_marker(), list(point.get_ydata())) == ("o", [0.1])


def test_accuracies_fill_the_panel_and_stay_inside_it() -> None:
    late = {"source_test": Series(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.95, 1.0]))}
    low, high = panel(training_panels([], late), "(c)").get_ylim()
    assert 0.9 < low < 0.95
    assert 1 < high < 1.01


def test_the_gallery_says_real_and_predicted_and_marks_what_is_wrong() -> None:
    labels, predictions = np.array([3, 1, 4, -1]), np.array([3, 7, 4, 5])
    pictures = images(3, 4)
    rows = [("source", pictures[0], labels, labels.clip(0)), ("target", pictures[1], labels, predictions)]
    figure = adapted_gallery(rows, DIGITS)
    assert [text for text in texts(figure) if text[:4] in ("Real", "Pred")] == [
        *("Real: 3", "Pred: 3", "Real: 1", "Pred: 1", "Real: 4", "Pred: 4", "Real: ?", "Pred: 0"),
        *("Real: 3", "Pred: 3", "Real: 1", "Pred: 7", "Real: 4", "Pred: 4", "Real: ?", "Pred: 5"),
    ]
    axes = figure.axes[0]
    (frame,) = [patch for patch in axes.patches if patch.get_label() == "_wrong"]
    crosses = [one for one in axes.lines if one.get_marker() == "x"]
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert (bold, len(crosses)) == (["Real: 1", "Pred: 7"], 1)
    mistaken = next(picture for picture in axes.images if np.array_equal(picture.get_array(), pictures[1, 1]))
    left, right, bottom, top = mistaken.get_extent()
    assert frame.get_bbox().extents == pytest.approx([left, top, right, bottom])


def test_a_long_gallery_shows_every_image_once() -> None:
    pictures, labels = images(3, 16), RNG.integers(10, size=16)
    rows = [(name, pictures[i], labels, labels) for i, name in enumerate(("source", "generated", "target"))]
    shown = tiles(adapted_gallery(rows, DIGITS))
    assert len(shown) == 48
    assert {tile.tobytes() for tile in shown} == {picture.tobytes() for picture in pictures.reshape(-1, 32, 32, 3)}


def test_styles_show_each_source_and_its_drawings() -> None:
    source, generated = images(4), images(4, 10)
    shown = np.array(tiles(styles_gallery(source, generated))).reshape(4, 11, 32, 32, 3)
    np.testing.assert_array_equal(shown[:, 0], source)
    np.testing.assert_array_equal(shown[:, 1:], generated)


def test_progress_names_each_moment_by_images_seen() -> None:
    moments, generated, source = np.array([0, 56_000, 1_120_000]), images(3, 10), images(10)
    figure = progress_gallery(moments, generated, source)
    assert texts(figure) == ["source", "0\nimages", "56,000\nimages", "1,120,000\nimages"]
    np.testing.assert_array_equal(tiles(figure), np.concatenate([source[None], generated]).reshape(-1, 32, 32, 3))


def test_large_images_are_embedded_small() -> None:
    large = RNG.integers(0, 256, (2, 200, 200, 3), dtype=np.uint8)
    assert {tile.shape for tile in tiles(pairs_gallery(large, large, np.array([0, 1]), DIGITS))} == {(96, 96, 3)}


def test_confusion_matrices_hold_shares_and_counts() -> None:
    before, after = [[6, 4, 0], [0, 0, 0], [1, 999, 1000]], [[10, 0, 0], [0, 0, 0], [0, 0, 2000]]
    figure = confusion_matrices([("Before", before), ("After", after)], ["a", "b", "c"])
    assert [text.get_text() for text in panel(figure, "Before").texts] == [
        *("60%", "6", "40%", "4", "<1%", "1", "50%", "999", "50%", "1,000")
    ]
    assert [text.get_text() for text in panel(figure, "After").texts] == ["100%", "10", "100%", "2,000"]
    opacity = np.asarray(panel(figure, "After").images[0].get_array())[..., 3]
    np.testing.assert_array_equal(opacity, [[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    assert confusion_matrices([], ["a"]) is None


def test_classes_too_many_for_numbers_are_shaded_only() -> None:
    names = [f"class {i}" for i in range(60)]
    axes = panel(confusion_matrices([("All", np.eye(60, dtype=int).tolist())], names), "All")
    assert not axes.texts
    assert [label.get_text() for label in axes.get_yticklabels()] == names[::2]


def test_class_accuracies_stand_at_their_values() -> None:
    figure = drawn(class_accuracies([("Before", [0.2, None]), ("After", [0.9, 0.8])], ["a", "b"]))
    assert line(figure.axes[0], "Before")[0][0] == 0.2
    assert np.isnan(line(figure.axes[0], "Before")[0][1])
    assert line(figure.axes[0], "After") == ([0.9, 0.8], [0, 1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert class_accuracies([], []) is None


def test_stability_shows_the_diagnostics() -> None:
    figure = stability_panels(TRAIN, EVALUATIONS, [], DIGITS)
    probabilities, gradients, diversity = panel(figure, "D's"), panel(figure, "Gradient"), panel(figure, "Diversity")
    assert raw(probabilities) == [[entry[f"probability/{name}"] for entry in TRAIN] for name in ("real", "generated")]
    kinds = ("generator_domain", "generator_task", "discriminator")
    assert raw(gradients) == [[entry[f"gradient/{name}"] for entry in TRAIN] for name in kinds]
    assert gradients.get_yscale() == "log"
    assert line(diversity, "standard")[1] == [entry["diversity"] for entry in EVALUATIONS]
    bars = [patch.get_height() for patch in panel(figure, "Generated").patches]
    last = np.mean([entry["histogram/generated"] for entry in TRAIN[-4:]], axis=0)
    assert bars == pytest.approx([*[0.1] * 10, *last])


def test_warnings_stand_where_they_were_raised() -> None:
    figure = stability_panels(TRAIN, EVALUATIONS, WARNINGS, DIGITS)
    for title, at in {"D's": [640, 960], "Gradient": [1280], "Diversity": [1600]}.items():
        assert line(panel(figure, title), "warning")[0] == at
    quiet = stability_panels(TRAIN, EVALUATIONS, [], DIGITS)
    assert quiet is not None
    assert not [one for axes in quiet.axes for one in axes.lines if one.get_marker() == "v"]


def test_diagnostics_that_were_not_kept_are_left_out() -> None:
    assert stability_panels([], [], WARNINGS, DIGITS) is None
    assert class_histograms([{"images": 1}]) is None
    assert class_histograms([{"images": 1, "histogram/source": [1.0], "histogram/generated": [0.5, 0.5]}]) is None
    assert titles(stability_panels([], EVALUATIONS, [], [])) == ["Diversity over z"]


def gallery_of(names: list[str]) -> Figure:
    labels = np.arange(16) % len(names)
    return adapted_gallery([("generated", images(16), labels, (labels + 1) % len(names))] * 3, names)


FIGURES = {
    "pairs": lambda names: pairs_gallery(images(16), images(16), np.arange(16) % len(names), names),
    "baseline": lambda names: baseline_curves(TRAIN, EVALUATIONS, ACCURACIES, 3200),
    "training": lambda names: training_panels(TRAIN, ACCURACIES, 0.5),
    "gallery": gallery_of,
    "styles": lambda names: styles_gallery(images(4), images(4, 10)),
    "progress": lambda names: progress_gallery(np.array([0, 123_456_789]), images(2, len(names)), images(len(names))),
    "confusion": lambda names: confusion_matrices([("Before", 99_999 * np.eye(len(names), dtype=int)[::-1])] * 2, names),
    "classes": lambda names: class_accuracies([("Before", [0.0] * len(names)), ("After", [1.0] * len(names))], names),
    "stability": lambda names: stability_panels(TRAIN, EVALUATIONS, WARNINGS, names),
}


@pytest.mark.parametrize("names", [DIGITS, LONG], ids=["digits", "long names"])
@pytest.mark.parametrize("figure", FIGURES)
def test_no_label_is_cut_off_or_lies_on_another(figure: str, names: list[str]) -> None:
    made = drawn(FIGURES[figure](names))
    width, height = made.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in written(made)]
    for i, (one, box) in enumerate(boxes):
        assert -0.5 <= box.x0 < box.x1 <= width + 0.5, one
        assert -0.5 <= box.y0 < box.y1 <= height + 0.5, one
        for other, place in boxes[:i]:
            across = min(box.x1, place.x1) - max(box.x0, place.x0)
            down = min(box.y1, place.y1) - max(box.y0, place.y0)
            assert across <= 1 or down <= 1, (one, other)


def written(figure: Figure) -> list[Text]:
    """Return the texts that are seen: empty and hidden ones, and ticks outside their axes, are not."""
    found: list[Text] = []
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        bottom, top = sorted(axes.get_ylim())
        hidden = [
            label for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if not low <= tick <= high
        ]
        hidden += [l for tick, l in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True) if not bottom <= tick <= top]
        if not axes.axison:
            hidden += [*axes.get_xticklabels(), *axes.get_yticklabels()]
        hidden += [*axes.get_xticklabels(minor=True), *axes.get_yticklabels(minor=True)]
        found += [text for text in axes.findobj(Text) if text not in hidden]  # type: ignore[misc]
    return [text for text in found if text.get_text() and text.get_visible()]


def test_text_takes_the_ink_of_the_page() -> None:
    figure = drawn(training_panels(TRAIN, ACCURACIES))
    assert {text.get_color() for text in written(figure)} == {INK}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_smoothing_keeps_length_and_range(values: list[float]) -> None:
    smooth = smoothed(np.array(values))
    assert len(smooth) == len(values)
    assert min(values) - 1e-3 <= smooth.min() <= smooth.max() <= max(values) + 1e-3


def test_smoothing_is_a_centred_mean() -> None:
    values = RNG.random(110)
    half = 3
    assert smoothed(values)[half:-half] == pytest.approx(np.convolve(values, np.full(7, 1 / 7), "valid"))
    assert smoothed(values)[0] == pytest.approx(values[: half + 1].mean())


def test_values_that_are_not_numbers_are_passed_over() -> None:
    lines = [{"images": 1, "a": 1.0}, {"images": 2, "a": float("nan")}, {"images": 3}, {"images": 4, "a": 2}]
    found = series(lines, "a")
    assert found is not None
    assert (found.x.tolist(), found.y.tolist()) == ([1, 4], [1, 2])
    assert series(lines, "b") is None


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (800, "800"), (56_000, "56k"), (1_120_000, "1.12M"), (2_500, "2.5k")])
def test_counts_at_an_axis_are_short(count: int, text: str) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize(
    "name", ["polyps", "ulcerative-colitis-grade-2", "WWWWWWWWWWWWWW", "iiiiiiiiiiiiiiiiiiiiiii", "大腸内視鏡検査画像"]
)
def test_a_name_is_cut_to_the_room_there_is(name: str) -> None:
    cut = fitted(name, 70, 11)
    assert text_width(cut, 11) <= 70
    assert cut == name or text_width(shortened(name, len(cut) + 1), 11) > 70


def test_long_names_end_in_an_ellipsis() -> None:
    assert (shortened("polyps", 6), shortened("normal-cecum", 6)) == ("polyps", "norma…")
