"""What an interpreter and a notebook show of public objects: it fits on a screen, and a notebook sees images and tables."""

import html as html_text
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixelscope
from fixtures import tiny
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.endovae.inference.images import ImagesWritten
from pixelscope.endovae.inference.interactive import FrameAnalysis
from pixelscope.imaging.content_area import Box
from pixelscope.pixelda.results import ClassAccuracy, Evaluation, SetResult

SCREEN = 24 * 80


def many_images() -> ImageSet:
    count = 70_000
    images, names = np.zeros((count, 1, 2, 2), np.uint8), [f"digits/{number:05d}.png" for number in range(count)]
    classes = tuple(f"a class with a long name, number {number}" for number in range(500))
    return ImageSet(images, Provenance("arrays:many.npz", "many"), np.arange(count) % 500, classes, names)


def evaluation() -> Evaluation:
    names = [f"class {number}" for number in range(100)]
    per_class = tuple(ClassAccuracy(name=name, count=10, accuracy=0.5) for name in names)
    one = SetResult(
        title="target, test split",
        count=1000,
        correct=500,
        accuracy=0.5,
        standard_error=0.016,
        per_class=per_class,
        confusion=[[5] * 100] * 100,
    )
    return Evaluation(
        system="pixelda",
        images=96,
        steps=12,
        classes=names,
        checkpoint="last",
        checkpoints={},
        sets={"target_test": one},
        oracle=None,
        curve=[],
    )


def written() -> ImagesWritten:
    return ImagesWritten("out", 5000, "last", 0, [{"name": f"{number:05d}.png"} for number in range(5000)])


def analysis() -> FrameAnalysis:
    image = np.zeros((300, 400, 3), np.uint8)
    return FrameAnalysis(image, image, Box(0, 0, 64, 64), *[image[:64, :64]] * 3, 0.5, 0.04, "mse", np.linspace(0, 1, 5000))


@pytest.mark.parametrize(
    "make",
    [
        many_images,
        lambda: many_images().without_labels(),
        evaluation,
        written,
        analysis,
        tiny.pixelda,
        tiny.endovae,
        tiny.refined,
        lambda: pixelscope.SYSTEMS["pixelda"],
        lambda: pixelscope.pixelda.summarize("pixelda", tiny.pixelda()),
    ],
)
def test_its_text_fits_on_a_screen(make: Any) -> None:
    assert 10 < len(repr(make())) < SCREEN


@pytest.mark.parametrize(("p", "said"), [(0.04, "p 0.040"), (0.0005, "p 0.001"), (0.0004, "p < 0.001"), (1.0, "p 1.000")])
def test_a_p_value_is_never_shown_as_0(p: float, said: str) -> None:
    found = replace(analysis(), p=p)
    assert repr(found).endswith(f"{said}>") and html_text.escape(said) in found._repr_html_()


def test_an_image_set_says_how_many_images_of_which_shape_and_classes() -> None:
    assert repr(tiny.image_set(30)) == "<ImageSet: 30 images of 3 x 16 x 16 (C, H, W), 3 classes (bright, left, top), tiny>"
    assert "without labels" in repr(tiny.image_set(30, labelled=False))


def test_a_configuration_shows_what_is_not_the_default() -> None:
    assert repr(pixelscope.pixelda.PixelDAConfig()) == "PixelDAConfig()"
    assert repr(pixelscope.pixelda.PixelDAConfig(seed=3)) == "PixelDAConfig(seed=3)"


@pytest.mark.parametrize("labelled", [True, False])
def test_a_notebook_shows_a_sheet_of_images(labelled: bool) -> None:
    html = tiny.image_set(30, labelled=labelled)._repr_html_()
    assert html.count("<img") == (3 if labelled else 1)
    assert "30 images" in html and "data:image/png;base64," in html


def test_the_sheet_of_a_set_without_images_is_empty() -> None:
    assert "<img" not in tiny.image_set(30).select(np.array([], np.int64))._repr_html_()


def test_names_in_a_notebook_are_escaped() -> None:
    images = ImageSet(np.zeros((2, 3, 4, 4), np.uint8), Provenance("x", "<b>x</b>"), np.array([0, 1]), ("<script>", "b"))
    assert "<script>" not in images._repr_html_() and "&lt;b&gt;" in images._repr_html_()


def test_a_notebook_shows_the_table_of_an_evaluation() -> None:
    html = evaluation()._repr_html_()
    assert html.startswith("<pre>") and "50.0" in html


def test_a_description_and_a_store_show_their_images(tmp_path: Path) -> None:
    source, _ = tiny.write_domains(tmp_path)
    described = pixelscope.describe_source(source)
    assert len(repr(described)) < SCREEN and described._repr_html_().count("<img") == 3
    frames = tiny.write_frames(tmp_path / "frames")
    store = pixelscope.endovae.prepare(
        [frames], config=pixelscope.endovae.PrepareConfig(size=tiny.SIZE), out=tmp_path / "store"
    )
    assert len(repr(store)) < SCREEN and store._repr_html_().count("<img") == 2
    assert analysis()._repr_html_().count("<img") == 4
