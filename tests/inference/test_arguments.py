"""Notebooks name files by strings, and mistype: public functions take strings for paths, and refuse what they cannot take."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import pixelscope
from fixtures import tiny
from pixelscope.arguments import check_arguments
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig, RenderConfig


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


def counted(count: int, rate: float | None = None, kind: Literal["a", "b"] = "a", pair: tuple[Path, Path] | None = None) -> Any:
    return count, rate, kind, pair


def listed(seeds: Sequence[int], names: Sequence[str] = (), config: RenderConfig | None = None, other: Any = None) -> Any:
    return seeds, names, config, other


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"count": np.int64(3)}, (3, None, "a", None)),
        ({"count": 3, "rate": np.float32(0.5)}, (3, 0.5, "a", None)),
        ({"count": 3, "rate": 1}, (3, 1, "a", None)),
        ({"count": 3, "pair": ["x", Path("y")]}, (3, None, "a", (Path("x"), Path("y")))),
    ],
)
def test_numbers_of_numpy_are_numbers(given: dict[str, Any], taken: tuple[Any, ...]) -> None:
    found = check_arguments(counted)(**given)
    assert found == taken and type(found[0]) is int and json.dumps(found[:3])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"count": "3"}, "count is '3'"),
        ({"count": 3.0}, "count is 3.0"),
        ({"count": True}, "count is True"),
        ({"count": None}, "count is None"),
        ({"count": 3, "rate": "0.5"}, "rate is '0.5'"),
        ({"count": 3, "kind": "c"}, "kind is 'c'; give a or b"),
        ({"count": 3, "pair": "x"}, "pair is 'x'; give 2 values"),
        ({"count": 3, "pair": ("x", "y", "z")}, "pair is .*; give 2 values"),
        ({"count": 3, "pair": (np.zeros(2), "y")}, "pair is "),
    ],
)
def test_what_a_parameter_does_not_take_is_refused_by_its_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}"):
        check_arguments(counted)(**given)


def test_sequences_and_settings_are_checked() -> None:
    check = check_arguments(listed)
    assert check(range(2), "one", RenderConfig(), {"any": "thing"}) == ([0, 1], ["one"], RenderConfig(), {"any": "thing"})
    assert check(np.arange(2))[0] == [0, 1]
    for wrong in ("10", [0.5], 3, None):
        with pytest.raises(InputError, match="^seeds is "):
            check(wrong)
    with pytest.raises(InputError, match="RenderConfig.parse makes of one"):
        check([1], config={"count": 3})
    with pytest.raises(InputError, match="give a RenderConfig"):
        check([1], config=PrepareConfig())


def test_entries_of_folders_are_paths_and_errors_of_a_generator_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with os.scandir(tmp_path) as entries:
        assert check_arguments(counted)(1, pair=(*entries, "b"))[3] == (tmp_path / "a", Path("b"))

    def broken() -> Iterator[int]:
        yield 1
        len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        check_arguments(listed)(broken())
    with pytest.raises(InputError, match="masks is .*; give a mapping, each value a path"):
        pixelscope.endovae.prepare([tmp_path], masks=["a"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="must be a finite number"):
        pixelscope.endovae.EndoVAEConfig(losses={"kl": float("inf")})  # pyright: ignore[reportArgumentType]


def test_settings_of_another_system_train_nothing(tmp_path: Path) -> None:
    pixelda, endovae = pixelscope.pixelda, pixelscope.endovae
    for train in (pixelda.train, pixelda.baseline, endovae.train):
        for config in (pixelda.PixelDAConfig(), pixelda.BaselineConfig(), endovae.EndoVAEConfig(), {"source": "a"}, "paper"):
            with pytest.raises(InputError):
                train(config, run=tmp_path / "run")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="the settings of a whole PixelDA"):
        pixelda.baseline(pixelda.PixelDAConfig(), run=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_wrong_call_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"evaluate\(\)"):
        pixelscope.evaluate()  # pyright: ignore[reportCallIssue]
    assert pixelscope.evaluate is pixelscope.evaluate
    assert check_arguments(3) == 3


def test_images_are_selected_by_positions_or_a_mask_of_their_number() -> None:
    images = tiny.image_set()
    count = len(images)
    expected = images.select(np.array([2, 0])).images
    for same in ([2, 0], np.array([2, 0], np.uint8), (2, 0)):
        np.testing.assert_array_equal(images.select(same).images, expected)  # pyright: ignore[reportArgumentType]
    assert len(images.select(np.array([], np.int64))) == 0 and len(images.select(np.arange(count) < 3)) == 3
    for wrong in (np.array([True, False]), np.array([0.7, 1.9]), [count], [-1], 2, slice(0, 3)):
        with pytest.raises(InputError, match="give positions"):
            images.select(wrong)  # pyright: ignore[reportArgumentType]


def test_interactive_models_take_images_of_pillow_and_refuse_noise_of_other_shapes(
    pixelda_run: Path, endovae_run: Path
) -> None:
    image = Image.fromarray(tiny.pictures(1)[0][0])
    generator, vae = pixelscope.pixelda.InteractiveGenerator(pixelda_run), pixelscope.endovae.InteractiveVAE(endovae_run)
    styles = np.stack([generator.style(0), generator.style(1)])
    np.testing.assert_array_equal(generator.redraw(image, styles), generator.redraw(np.asarray(image), styles))  # pyright: ignore[reportArgumentType]
    for wrong in (styles[0], styles[:, 1:], styles[:0]):
        with pytest.raises(InputError, match="The noise has the shape"):
            generator.redraw(np.asarray(image), wrong)
    for wrong in ([0.0] * (vae.latent + 1), np.zeros((2, vae.latent)), [np.nan] * vae.latent):
        for use in (vae.draw, vae.nearest):
            with pytest.raises(InputError, match="finite numbers"):
                use(wrong)  # pyright: ignore[reportArgumentType]
