"""Notebooks name files by strings: the public functions take them for paths, and one path where there may be several."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelscope
from pixelscope.files import accept_strings


def test_functions_of_the_public_api_take_strings(pixelda_run: Path, endovae_run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(np.full((20, 24, 3), 80 * number + 9, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    images, api = str(tmp_path / "images"), pixelscope
    assert api.run_info(str(pixelda_run)) == api.run_info(pixelda_run)  # pyright: ignore[reportArgumentType]
    found = api.find_runs(os.fspath(pixelda_run.parent))  # pyright: ignore[reportArgumentType]
    assert found == api.find_runs([pixelda_run.parent]) != []
    rows = [tmp_path / f"{name}.csv" for name in ("strings", "paths")]
    api.pixelda.classify(str(pixelda_run), images, str(rows[0]))  # pyright: ignore[reportArgumentType]
    api.pixelda.classify(pixelda_run, [Path(images)], rows[1])
    assert rows[0].read_text() == rows[1].read_text()
    api.endovae.score(str(endovae_run), [images], out=str(tmp_path / "scores.csv"))  # pyright: ignore[reportArgumentType]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 4
    between = (f"{images}/0.png", f"{images}/2.png")
    way = api.endovae.generate(str(endovae_run), str(tmp_path / "way.png"), between=between, count=3)  # pyright: ignore[reportArgumentType]
    assert way.count == 3
    for kind in (api.pixelda.InteractiveGenerator, api.endovae.InteractiveVAE):
        run = pixelda_run if kind is api.pixelda.InteractiveGenerator else endovae_run
        assert kind(str(run)).run == run  # pyright: ignore[reportArgumentType]


def test_any_iterable_of_paths_is_taken_for_a_sequence(pixelda_run: Path, endovae_run: Path, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((20, 24, 3), 80 * number + 9, np.uint8)).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, some in enumerate([files, iter(files), {*map(str, files)}, np.array(files, str), dict.fromkeys(files)]):
        out = tmp_path / f"{number}.csv"
        assert pixelscope.pixelda.classify(pixelda_run, some, out).rows == 3  # pyright: ignore[reportArgumentType]
        assert out.read_text() == (tmp_path / "0.csv").read_text()
    found = pixelscope.endovae.score(endovae_run, iter(files), tmp_path / "s.csv")  # pyright: ignore[reportArgumentType]
    assert found.written.rows == 3
    way = pixelscope.endovae.generate(endovae_run, tmp_path / "way.png", between=iter(files[:2]), count=3)  # pyright: ignore[reportArgumentType]
    assert way.count == 3


def test_a_path_is_taken_for_a_string(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name / "0.png")
    assert pixelscope.load_images(tmp_path, size=8).classes == ("a", "b")  # pyright: ignore[reportArgumentType]
    assert pixelscope.pixelda.PixelDAConfig(source=tmp_path, target="t").source == str(tmp_path)  # pyright: ignore[reportArgumentType]


def test_a_wrong_call_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"evaluate\(\)"):
        pixelscope.evaluate()  # pyright: ignore[reportCallIssue]
    assert pixelscope.evaluate is pixelscope.evaluate
    assert accept_strings(3) == 3
