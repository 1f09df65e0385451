"""Two sources side by side, and the problems that are found."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.sources import noise, write_classes
from pixelscope.cli import main
from pixelscope.data import load
from pixelscope.data.describe import compare_sources
from pixelscope.data.pack import pack
from pixelscope.pixelda.data import with_classes_of


def _drawn(folder: Path, classes: tuple[str, ...], count: int, margin: int, shade: int = 0) -> str:
    """Write white squares on black in class folders; `margin`: pixels of 32 around each; `shade`: how much darker they are."""
    for label, name in enumerate(classes):
        for number in range(count):
            image = np.zeros((32, 32), np.uint8)
            image[margin + label : 32 - margin, margin : 32 - margin] = 255 - shade - number % 40
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return str(folder)


def _problems(tmp_path: Path, source: str, target: str) -> list[str]:
    return list(compare_sources(source, target).problems)


def test_alike_sources_make_no_trouble(tmp_path: Path) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 260, 6)
    assert _problems(tmp_path, source, _drawn(tmp_path / "target", ("A", "b "), 260, 6, 50)) == []


def test_images_of_the_source_among_the_target_are_said(tmp_path: Path) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 260, 6)
    (text,) = _problems(tmp_path, source, source)
    assert text.startswith("Every image of the target is also in the source")
    target = Path(_drawn(tmp_path / "target", ("a", "b"), 260, 6, 50))
    (target / "a" / "copy.png").write_bytes((Path(source) / "a" / "0.png").read_bytes())
    (text,) = _problems(tmp_path, source, str(target))
    assert text.startswith("1 of 521 images of the target are also in the source")
    Image.open(target / "b" / "0.png").resize((40, 40)).save(target / "b" / "large.png")
    (text,) = _problems(tmp_path, source, str(target))
    assert text.startswith("1 of 522 images of the target are also in the source"), "sizes that differ hide no copy"


def test_copies_are_looked_for_at_the_size_of_a_pack(tmp_path: Path) -> None:
    folder = _drawn(tmp_path / "folder", ("a", "b"), 260, 6)
    packed = [str(tmp_path / f"pack{size}") for size in (16, 24)]
    for path, size in zip(packed, (16, 24), strict=True):
        pack(folder, Path(path), size=size)
    for pair in ((folder, packed[0]), (packed[1], folder)):
        assert _problems(tmp_path, *pair)[0].startswith("Every image of the target is also in the source")
    assert "were not looked for" in _problems(tmp_path, *packed)[0]


def test_no_shared_class_is_one_line(tmp_path: Path) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 260, 6)
    (text,) = _problems(tmp_path, source, _drawn(tmp_path / "target", ("x", "y"), 260, 6, 50))
    assert "No class of the target is in the source: the target has x, y; the source has a, b." in text


def test_framing_that_differs_is_said_with_its_scale(tmp_path: Path) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 260, 8)
    (text,) = _problems(tmp_path, source, _drawn(tmp_path / "target", ("a", "b"), 260, 1))
    assert "--data.framing match" in text
    assert "50% of the source's images and 94% of the target's" in text
    assert "by 0.53" in text


def test_classes_that_one_side_lacks_are_named(tmp_path: Path) -> None:
    source = _drawn(tmp_path / "source", ("a", "b", "c"), 180, 6)
    lacking, absent = _problems(tmp_path, source, _drawn(tmp_path / "target", ("a", "b", "d"), 180, 6, 50))
    assert "d;" in lacking
    assert "--data.classes source" in lacking
    assert ": c;" in absent


def test_few_images_and_rare_classes_are_said(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", {"a": 30, "b": 9}, side=20)
    write_classes(tmp_path / "target", {"b": 30, "a": 30}, side=21)
    rare, few, *_ = _problems(tmp_path, str(tmp_path / "source"), str(tmp_path / "target"))
    assert "fewer than 10 images" in rare
    assert ": b." in rare
    assert "60 images" in few


def test_a_source_without_labels_is_said(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", {"a": 600}, side=20)
    _, text = _problems(tmp_path, str(tmp_path / "source"), str(tmp_path / "source"))
    assert "no labels" in text


@pytest.mark.parametrize(
    ("size", "said"), [((20, 40), "target are far from square"), ((2, 3), "target are smaller than 16 x 16 pixels")]
)
def test_images_that_are_wide_or_small_are_said(tmp_path: Path, size: tuple[int, int], said: str) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 260, 6)
    (tmp_path / "target").mkdir()
    for number in range(510):
        Image.fromarray(noise((*size, 3), number)).save(tmp_path / "target" / f"{number}.png")
    text, *_ = _problems(tmp_path, source, str(tmp_path / "target"))
    assert said in text


def test_things_on_a_plain_grey_ground_are_not_what_a_coloured_source_shows(tmp_path: Path) -> None:
    write_classes(tmp_path / "source", {"a": 300, "b": 300}, side=20)
    target = _drawn(tmp_path / "target", ("a", "b"), 260, 6)
    colour, ground = _problems(tmp_path, str(tmp_path / "source"), target)
    assert "coloured" in colour and "grey" in colour
    assert "plain background" in ground
    # MNIST -> MNIST-M goes the other way, and works.
    assert _problems(tmp_path, target, str(tmp_path / "source")) == []


def test_the_command_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _drawn(tmp_path / "source", ("a", "b"), 30, 8)
    write_classes(tmp_path / "target", {"a": 30, "b": 31})
    arguments = ["data", "info", source, str(tmp_path / "target"), "--sheet", str(tmp_path / "sheet.png")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert [line.split()[3:] for line in out.splitlines() if line.startswith("images per class")] == [["30", "30", "to", "31"]]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 64 * 2
    assert main([*arguments[:-1], str(tmp_path / "sheet.jpg")]) == 2
    assert "sheet.jpg does not end in .png" in capsys.readouterr().err and not (tmp_path / "sheet.jpg").exists()
    assert main([*arguments[:-2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"]["foreground"]["side"] == 0.5
    assert found["target"]["foreground"] is None
    assert found["target"]["count"] == 61


def test_grey_copies_are_found_among_images_of_which_some_are_in_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 20, 20)).astype(np.uint8)
    for number, one in enumerate(values):
        for place in ("source/a", "source/b", "target"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(tmp_path / "source" / "ab"[number % 2] / f"{number}.png")
        Image.fromarray(one if number else 255 - one).save(tmp_path / "target" / f"{number}.png")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "source" / "a" / "colour.png")
    found = compare_sources(str(tmp_path / "source"), str(tmp_path / "target"))
    sheets = sum(one.images._repr_html_().count("<img") for one in (found.source, found.target))
    assert found._repr_html_().count("<img") == sheets >= 2
    assert any("5 of 6 images" in problem for problem in found.problems)


def test_classes_are_the_same_in_any_form_of_unicode(tmp_path: Path) -> None:
    for role, form in (("source", "NFC"), ("target", "NFD")):
        for name in ("café", "thé"):
            folder = tmp_path / role / unicodedata.normalize(form, name)
            folder.mkdir(parents=True)
            for number in range(10):
                pixels = np.random.default_rng(number + len(role) * len(name)).integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    compared = compare_sources(str(tmp_path / "source"), str(tmp_path / "target"))
    assert not [problem for problem in compared.problems if "class" in problem.lower()]
    source, target = (load(str(tmp_path / role), size=16) for role in ("source", "target"))
    for leave_out in (False, True):
        measured, why = with_classes_of(target, source.classes, leave_out)
        assert (len(measured), measured.classes, why) == (20, source.classes, "")
