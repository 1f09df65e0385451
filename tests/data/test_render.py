"""Rendering pictograms: against plain oracles, a function of the seed and the class alone, written whole or not at all."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fixtures.sources import noise, write_photos
from pixelscope import RenderConfig, describe_source, render_pictograms
from pixelscope.cli import main
from pixelscope.data.formats.decode import reject_decompression_bombs
from pixelscope.data.sources.pictograms import read_pictogram, render, warp
from pixelscope.errors import InputError

STILL = RenderConfig(
    size=16, scale=(1, 1), rotation=0, shear=0, shift=0, crop=(1, 1), background=(1, 1), brightness=(1, 1), contrast=(1, 1),
    saturation=(1, 1), colour=0, blur=(0, 0), noise=(0, 0),
)  # fmt: skip
"""Nothing varies."""


def disc(side: int = 64, colour: tuple[int, int, int] = (255, 255, 255), hidden: int = 0) -> NDArray[np.uint8]:
    """Return a disc (side, side, 4) on transparent ground, whose pixels have the grey value `hidden`."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(rows, columns) < side / 2 - 2
    image = np.full((side, side, 4), hidden, np.uint8)
    image[inside, :3] = colour
    image[..., 3] = 255 * inside
    return image


def write(path: Path, pictogram: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pictogram).save(path)
    return path


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    write(tmp_path / "signs" / "blue.png", disc(colour=(0, 0, 200)))
    write(tmp_path / "signs" / "red.png", disc(colour=(200, 0, 0)))
    return tmp_path / "signs"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, (height, width) in enumerate(((40, 60), (70, 50), (40, 40))):
        write(tmp_path / "photos" / "inner" / f"{seed}.png", noise((height, width, 3), seed))
    return tmp_path / "photos"


def made(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): Image.open(file).tobytes() for file in sorted(folder.rglob("*.png"))}


def opened(path: Path) -> NDArray[np.float32]:
    with reject_decompression_bombs():
        return read_pictogram(path)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- one image --------------------------------------------------------------------------------------------------------


def test_a_pictogram_that_does_not_vary_is_the_mean_of_its_pixels_over_the_photo(tmp_path: Path) -> None:
    pictogram, photo = noise((64, 64, 4), 1), noise((16, 16, 3), 2)
    pictogram[0, 0, 3] = 0
    rendered = render(opened(write(tmp_path / "a.png", pictogram)), photo, STILL, draw())
    layer = pictogram.astype(np.float64) / 255
    blocks = (layer[..., :3] * layer[..., 3:]).reshape(16, 4, 16, 4, 3).mean((1, 3))
    alpha = layer[..., 3].reshape(16, 4, 16, 4).mean((1, 3))[..., None]
    np.testing.assert_allclose(rendered, 255 * blocks + (1 - alpha) * photo, atol=0.51)


@pytest.mark.parametrize(("ground", "hidden"), [(255, 0), (0, 255)])
def test_the_colour_of_transparent_pixels_makes_no_fringe(tmp_path: Path, ground: int, hidden: int) -> None:
    pictogram = opened(write(tmp_path / "a.png", disc(100, (ground,) * 3, hidden)))
    photo = np.full((64, 64, 3), ground, np.uint8)
    turned = STILL.model_copy(update={"scale": (0.3, 0.9), "rotation": 180.0, "shear": 0.3, "shift": 0.2})
    for seed in range(10):
        assert (render(pictogram, photo, turned, draw(seed)) == ground).all()


def test_a_turned_pictogram_keeps_its_area_and_its_centre(tmp_path: Path) -> None:
    square = np.zeros((50, 50, 4), np.uint8)
    square[1:-1, 1:-1] = 255
    pictogram = opened(write(tmp_path / "a.png", square))
    config = STILL.model_copy(update={"size": 32, "scale": (0.5, 0.5), "rotation": 180.0})
    layers = [warp(pictogram, config, draw(seed))[..., 3] for seed in range(8)]
    places = np.arange(32) - 15.5
    for alpha in layers:
        assert alpha.sum() == pytest.approx(16**2, rel=0.02)
        assert alpha.sum(1) @ places == pytest.approx(0, abs=0.5)
        assert alpha.sum(0) @ places == pytest.approx(0, abs=0.5)
        assert ((alpha > 0.02) & (alpha < 0.98)).any(), "edges are soft"
    assert len({alpha.tobytes() for alpha in layers}) == 8


def test_a_fine_pattern_becomes_its_mean(tmp_path: Path) -> None:
    pattern = np.full((500, 500, 4), 255, np.uint8)
    pattern[..., :3] = 255 * (np.indices((500, 500)).sum(0) % 2)[..., None]
    pattern[0, 0, 3] = 0
    config = STILL.model_copy(update={"size": 32, "scale": (0.2, 0.8), "rotation": 30.0})
    for seed in range(6):
        layer = warp(opened(write(tmp_path / "a.png", pattern)), config, draw(seed))
        np.testing.assert_allclose(layer[13:19, 13:19, :3], 0.5, atol=0.02)


def test_scale_and_shift_are_fractions_of_the_side(tmp_path: Path) -> None:
    pictogram = opened(write(tmp_path / "a.png", disc(80)))
    for size in (16, 64):
        config = STILL.model_copy(update={"size": size, "scale": (0.4, 0.6), "shift": 0.1})
        layers = [warp(pictogram, config, draw(seed))[..., 3] for seed in range(40)]
        widths = np.array([(alpha.max(0) > 0.5).sum() for alpha in layers]) / size
        centres = np.array([alpha.sum(0) @ (np.arange(size) + 0.5) / alpha.sum() for alpha in layers]) / size
        assert 0.4 - 1 / size <= widths.min() < 0.45 and 0.55 < widths.max() <= 0.6 + 1 / size
        assert 0.4 <= centres.min() < 0.43 and 0.57 < centres.max() <= 0.6


def test_a_sheared_square_becomes_a_parallelogram_of_other_diagonals(tmp_path: Path) -> None:
    square = np.full((50, 50, 4), 255, np.uint8)
    square[0, 0, 3] = 0
    pictogram = opened(write(tmp_path / "a.png", square))
    config = STILL.model_copy(update={"size": 32, "scale": (0.5, 0.5), "shear": 0.5})
    moments = []
    for seed in range(10):
        alpha = warp(pictogram, config, draw(seed))[..., 3]
        rows, columns = np.mgrid[:32, :32] - 15.5
        moments.append((alpha * rows * columns).sum() / alpha.sum())
    assert min(moments) < -3 and max(moments) > 3


LIGHT = [
    ({"brightness": (0.5, 0.5)}, lambda image: image / 2),
    ({"contrast": (0.5, 0.5)}, lambda image: image.mean() + (image - image.mean()) / 2),
    ({"saturation": (0, 0)}, lambda image: np.broadcast_to(image.mean(2, keepdims=True), image.shape)),
    ({"brightness": (2, 2)}, lambda image: np.minimum(2 * image, 255)),
]


@pytest.mark.parametrize(("change", "expected"), LIGHT)
def test_light_is_that_of_plain_arithmetic(tmp_path: Path, change: dict, expected) -> None:
    pictogram, photo = opened(write(tmp_path / "a.png", disc(64, (200, 90, 10)))), noise((16, 16, 3))
    before = render(pictogram, photo, STILL, draw()).astype(np.float64)
    after = render(pictogram, photo, STILL.model_copy(update=change), draw())
    np.testing.assert_allclose(after, expected(before), atol=1.1)


def test_the_background_is_lit_apart_from_the_pictogram(tmp_path: Path) -> None:
    pictogram, photo = opened(write(tmp_path / "a.png", disc(64, (200, 200, 200)))), np.full((16, 16, 3), 80, np.uint8)
    rendered = render(pictogram, photo, STILL.model_copy(update={"background": (0.5, 0.5)}), draw())
    assert (rendered[0, 0] == 40).all() and (rendered[8, 8] == 200).all()


def test_channels_differ_as_far_as_is_set(tmp_path: Path) -> None:
    pictogram, photo = opened(write(tmp_path / "a.png", disc(64, (100,) * 3))), np.full((16, 16, 3), 100, np.uint8)
    config = STILL.model_copy(update={"colour": 0.2})
    means = np.array([render(pictogram, photo, config, draw(seed)).mean((0, 1)) for seed in range(30)])
    assert 80 <= means.min() < 85 and 115 < means.max() <= 120
    assert (means.std(1) > 0).all()


def test_blur_and_noise_are_of_the_strength_that_is_set(tmp_path: Path) -> None:
    clear = np.zeros((128, 128, 4), np.uint8)
    clear[0, 0] = clear[-1, -1] = (128, 128, 128, 1)
    pictogram, point = opened(write(tmp_path / "a.png", clear)), np.zeros((64, 64, 3), np.uint8)
    point[32, 32] = 255
    wide = STILL.model_copy(update={"size": 64, "scale": (1, 1), "blur": (0.025, 0.025)})
    spread = render(pictogram, point, wide, draw()).astype(np.float64)[..., 0]
    assert spread.max() == pytest.approx(255 / (2 * np.pi * 1.6**2), abs=1.5)
    noisy = wide.model_copy(update={"blur": (0, 0), "noise": (5, 5)})
    grey = render(pictogram, np.full((64, 64, 3), 128, np.uint8), noisy, draw())
    assert grey.std() == pytest.approx(5, rel=0.05)


def test_crops_come_from_all_over_a_photo_at_the_sides_that_are_set(tmp_path: Path) -> None:
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[0, 0] = clear[-1, -1] = (0, 0, 0, 1)
    pictogram = opened(write(tmp_path / "a.png", clear))
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[None, :, None], (40, 128, 3))
    config = STILL.model_copy(update={"crop": (1.0, 2.0)})
    crops = [render(pictogram, ramp, config, draw(seed)).astype(int)[..., 0] for seed in range(60)]
    steps = np.array([(crop[1, -2] - crop[1, 1]) / 13 for crop in crops])
    assert 0.9 <= steps.min() < 1.15 and 1.85 < steps.max() <= 2.1
    assert min(crop.min() for crop in crops) <= 5 and max(crop.max() for crop in crops) >= 122


# --- a set ------------------------------------------------------------------------------------------------------------


def test_a_rendered_set_is_a_labelled_folder(tmp_path: Path, signs: Path, photos: Path) -> None:
    out = tmp_path / "deep" / "rendered"
    rendered = render_pictograms(signs, photos, out, RenderConfig(count=3, size=16))
    description = describe_source(str(out))
    assert description.classes == rendered.images == {"blue": 3, "red": 3}
    assert description.sizes == {"16 x 16": 6}
    assert description.notes == ("Rendered from 2 pictograms over 3 photos, seed 0, according to pixelscope-render.json.",)
    assert sorted(made(out)) == [f"{name}/0000{i}.png" for name in ("blue", "red") for i in range(3)]
    assert [path.name for path in out.parent.iterdir()] == ["rendered"]
    assert out.stat().st_mode & 0o055 == signs.stat().st_mode & 0o055


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pictograms": 1, "photos": 2, "seed": 3}'])
def test_a_damaged_record_is_said_and_the_images_are_read(tmp_path: Path, signs: Path, photos: Path, content: str) -> None:
    render_pictograms(signs, photos, tmp_path / "out", RenderConfig(count=1, size=16))
    (tmp_path / "out" / "pixelscope-render.json").write_text(content)
    description = describe_source(str(tmp_path / "out"))
    assert description.count == 2
    assert len(description.notes) == 1 and description.notes[0].startswith("pixelscope-render.json is damaged")


def test_the_record_is_enough_to_render_the_same_again(tmp_path: Path, signs: Path, photos: Path) -> None:
    render_pictograms(signs, photos, tmp_path / "a", RenderConfig(count=2, seed=7, rotation=3))
    record = json.loads((tmp_path / "a" / "pixelscope-render.json").read_text())
    assert record["pictograms"]["red.png"] == hashlib.sha256((signs / "red.png").read_bytes()).hexdigest()
    assert (record["photos"], record["seed"], record["images"]) == (3, 7, {"blue": 2, "red": 2})
    again = render_pictograms(signs, photos, tmp_path / "b", RenderConfig.parse(record["settings"]))
    assert made(tmp_path / "a") == made(tmp_path / "b")
    assert again.photos_sha256 == record["photos_sha256"]
    (photos / "inner" / "0.png").write_bytes((photos / "inner" / "1.png").read_bytes())
    changed = render_pictograms(signs, photos, tmp_path / "c", RenderConfig(count=2, seed=7, rotation=3))
    assert changed.photos_sha256 != record["photos_sha256"]


def test_an_image_depends_on_seed_class_and_number_alone(tmp_path: Path, signs: Path, photos: Path) -> None:
    render_pictograms(signs, photos, tmp_path / "a", RenderConfig(count=4))
    few = made(tmp_path / "a")
    assert len(set(few.values())) == 8
    write(signs / "another.png", disc(colour=(9, 9, 9)))
    render_pictograms(signs, photos, tmp_path / "b", RenderConfig(count=6))
    more = made(tmp_path / "b")
    assert few.items() <= more.items()
    render_pictograms(signs, photos, tmp_path / "c", RenderConfig(count=4, seed=1))
    assert not few.items() & made(tmp_path / "c").items()


def test_pictograms_of_a_class_take_turns(tmp_path: Path, photos: Path) -> None:
    for name, grey in (("a/one", 0), ("a/two", 250), ("b/one", 0)):
        write(tmp_path / "signs" / f"{name}.png", disc(colour=(grey,) * 3))
    render_pictograms(tmp_path / "signs", photos, tmp_path / "out", STILL.model_copy(update={"count": 4}))
    centres = [Image.open(tmp_path / "out" / "a" / f"0000{i}.png").getpixel((8, 8)) for i in range(4)]
    assert centres == [(0, 0, 0), (250, 250, 250)] * 2


def test_margins_are_cut_off_and_palettes_and_grey_have_alpha_too(tmp_path: Path) -> None:
    wide = np.zeros((90, 200, 4), np.uint8)
    wide[20:84, 100:164] = disc(colour=(200, 0, 0))
    path = write(tmp_path / "wide.png", wide)
    assert opened(path).shape == (60, 60, 4)
    Image.fromarray(wide).quantize(4).save(tmp_path / "palette.png")
    np.testing.assert_allclose(opened(tmp_path / "palette.png"), opened(path), atol=0.02)
    Image.fromarray(wide).convert("LA").save(tmp_path / "grey.png")
    assert opened(tmp_path / "grey.png")[30, 30].tolist() == pytest.approx([60 / 255] * 3 + [1], abs=0.01)


# --- refused ----------------------------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rename_one(folder: Path, name: str) -> None:
    (folder / "red.png").rename(folder / f"{name}.png")


def rename(folder: Path, suffix: str) -> None:
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(suffix))


SPOILT: dict[str, Callable[[Path, Path], Any]] = {
    r"red\.png has no alpha channel": lambda signs, _: Image.new("RGB", (9, 9)).save(signs / "red.png"),
    r"red\.png is fully opaque": lambda signs, _: write(signs / "red.png", np.full((9, 9, 4), 255, np.uint8)),
    r"red\.png is fully transparent": lambda signs, _: write(signs / "red.png", np.zeros((9, 9, 4), np.uint8)),
    r"Cannot read the image .*red\.png": lambda signs, _: (signs / "red.png").write_bytes(b"not an image"),
    r"class folder .*green has no pictogram": lambda signs, _: (signs / "green").mkdir(),
    "pictograms of one class only, blue": lambda signs, _: (signs / "red.png").unlink(),
    r"no pictograms in .*2 files \(2 \.svg\)": lambda signs, _: rename(signs, ".svg"),
    "called test: its folder would be read as a part of a split": lambda signs, _: rename_one(signs, "test"),
    "called thumbs.db": lambda signs, _: rename_one(signs, "thumbs.db"),
    "There are no photos in": lambda _, photos: rename(photos / "inner", ".txt"),
    r"small\.png is 31 x 90 pixels, too small for crops of 32 x 32": lambda _, photos: write_photos(
        photos, {"small.png": (1, 2, 3)}, width=31, height=90
    ),
    r"Cannot read the image .*broken\.jpg": lambda _, photos: (photos / "broken.jpg").write_bytes(b"not an image"),
    r"Cannot read the image .*1\.png": lambda _, photos: halve(photos / "inner" / "1.png"),
    # Its beginning is whole, so that it is found out when it is drawn.
    r"Cannot read the image .*3\.jpg": lambda _, photos: halve(write(photos / "3.jpg", noise((90, 90, 3)))),
}
"""What makes an input unusable, by what is said of it."""


@pytest.mark.parametrize("seed", range(4))
def test_photos_that_are_not_drawn_are_looked_at_too(tmp_path: Path, signs: Path, photos: Path, seed: int) -> None:
    config = RenderConfig(count=1, seed=seed)
    (photos / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        render_pictograms(signs, photos, tmp_path / "out", config)
    write_photos(photos, {"broken.jpg": (1, 2, 3)}, width=31)
    with pytest.raises(InputError, match=r"broken\.jpg is 31 x 40 pixels"):
        render_pictograms(signs, photos, tmp_path / "out", config)


@pytest.mark.parametrize("said", SPOILT)
def test_what_cannot_be_used_is_named_and_nothing_is_left(tmp_path: Path, signs: Path, photos: Path, said: str) -> None:
    SPOILT[said](signs, photos)
    with pytest.raises(InputError, match=said):
        render_pictograms(signs, photos, tmp_path / "new" / "out", RenderConfig(count=20))
    assert not list((tmp_path / "new").glob("*")), "nothing is left, hidden or not"


def test_a_folder_that_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists already"):
        render_pictograms(tmp_path / "nothing", tmp_path / "nothing", tmp_path / "out")


def test_folders_must_be_apart(tmp_path: Path, signs: Path, photos: Path) -> None:
    for inner in (signs, photos):
        with pytest.raises(InputError, match="is inside .* choose another --out"):
            render_pictograms(signs, photos, inner / "out")
    with pytest.raises(InputError, match="--pictograms .* is inside --photos"):
        render_pictograms(signs, tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="There is no folder .* --photos"):
        render_pictograms(signs, tmp_path / "nothing", tmp_path / "out")


def test_a_killed_command_leaves_nothing_that_looks_finished(tmp_path: Path, signs: Path, photos: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from pixelscope import RenderConfig, render_pictograms
def die(done, total):
    if done == total: os.kill(os.getpid(), signal.SIGKILL)
render_pictograms(*map(Path, sys.argv[1:]), RenderConfig(count=2, size=16), die)
"""
    folders = [signs, photos, tmp_path / "new" / "out"]
    assert subprocess.run([sys.executable, "-c", program, *map(str, folders)], check=False).returncode == -signal.SIGKILL
    left = list((tmp_path / "new").iterdir())
    assert all(path.name.startswith(".") for path in left)
    render_pictograms(signs, photos, tmp_path / "new" / "out", RenderConfig(count=2, size=16))
    assert describe_source(str(tmp_path / "new" / "out")).count == 4


def test_the_command_takes_every_range_as_a_flag(
    tmp_path: Path, signs: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"data render --pictograms {signs} --photos {photos} --out {tmp_path / 'a'} --count 2 --size 16 --rotation 0 --blur 0 0"
    )
    assert main(words.split()) == 0
    assert "4 images of 16 x 16 pixels in 2 classes" in capsys.readouterr().out
    settings = json.loads((tmp_path / "a" / "pixelscope-render.json").read_text())["settings"]
    assert (settings["count"], settings["rotation"], settings["blur"]) == (2, 0, [0, 0])
    assert main([*words.replace("/a ", "/b ").split(), "--scale", "0.9", "0.5"]) == 2
    assert "--scale" in (said := capsys.readouterr().err) and "from 0.9 to 0.5" in said
    assert not (tmp_path / "b").exists()
