"""One image file: every mode that users have, upright, at a size, or a reason why not."""

import io
import random
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageOps, features
from PIL.PngImagePlugin import PngImageFile

from fixtures.sources import noise, tiff_with_pixels_at_a_float
from pixelscope.data.formats.decode import decode_bytes, image_size, read_all, read_image, read_images
from pixelscope.data.sources.listing import image_files
from pixelscope.errors import InputError


def saved(tmp_path: Path, image: Image.Image, name: str = "image.png", **options: object) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.new("L", (3, 2), 77), "a.png", [77]),
        (Image.new("1", (3, 2), 1), "a.png", [255]),
        (Image.new("RGB", (3, 2), (10, 20, 30)), "a.png", [10, 20, 30]),
        (Image.new("RGB", (3, 2), (10, 20, 30)).quantize(4), "a.gif", [10, 20, 30]),
        (Image.new("RGBA", (3, 2), (100, 0, 200, 0)), "a.png", [255, 255, 255]),
        (Image.new("RGBA", (3, 2), (100, 0, 200, 255)), "a.webp", [100, 0, 200]),
        (Image.new("LA", (3, 2), (0, 51)), "a.png", [204]),
        (Image.new("CMYK", (3, 2), (0, 255, 255, 0)), "a.tif", [255, 0, 0]),
        (Image.new("YCbCr", (3, 2), (128, 128, 128)), "a.tif", [128, 128, 128]),
        (Image.fromarray(np.full((2, 3), 257 * 9, np.uint16)), "a.png", [9]),
        (Image.fromarray(np.full((2, 3), 257 * 9, np.int32)), "a.tif", [9]),
        (Image.fromarray(np.full((2, 3), 0.2, np.float32)), "a.tif", [51]),
        (Image.fromarray(np.full((2, 3), 200.4, np.float32)), "a.tif", [200]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_becomes_grey_or_colour(tmp_path: Path, image: Image.Image, name: str, expected: list[int]) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    array = read_image(saved(tmp_path, image, name, **options))
    assert array.dtype == np.uint8
    assert array.shape == (2, 3, len(expected))
    assert (array == expected).all()


def test_palette_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert read_image(saved(tmp_path, image, transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 200]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_by_exif_is_applied(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(noise((4, 6, 3)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, image, exif=exif)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(read_image(path), np.asarray(upright))
    assert image_size(path) == upright.size


def test_a_size_keeps_the_shorter_side_and_the_centre(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 30), "blue")
    ImageDraw.Draw(image).rectangle((30, 0, 59, 29), "red")
    assert (read_image(saved(tmp_path, image), 15) == [255, 0, 0]).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    shrunk = read_image(saved(tmp_path, Image.fromarray(stripes)), 8)
    assert np.abs(shrunk[:, 1:-1].astype(int) - 100).max() <= 1


@pytest.mark.parametrize("side", [90, 150, 600])
def test_a_jpeg_is_close_to_the_plain_way(tmp_path: Path, side: int) -> None:
    waves = np.sin(np.linspace(0, 20, side))
    image = Image.fromarray((127 + 60 * (waves[:, None] + waves)).astype(np.uint8))
    path = saved(tmp_path, image, "a.jpg", quality=95)
    plain = image.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(read_image(path, 32)[..., 0].astype(int) - np.asarray(plain)).max() <= 4


def test_damage_is_an_input_error_whatever_the_damage(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    chance = random.Random(0)
    path = tmp_path / "damaged.png"
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(noise((20, 30, 3))).save(stream, kind, **({"exif": exif} if kind in ("PNG", "JPEG") else {}))
        for _ in range(60):
            damaged = bytearray(stream.getvalue())[: chance.randrange(1, len(stream.getvalue()))]
            damaged[chance.randrange(min(len(damaged), 150))] = chance.randrange(256)
            path.write_bytes(damaged)
            try:
                read_image(path, 16)
            except InputError as error:
                assert str(path) in str(error)
                refused += 1
            image_size(path)
    assert refused > 280


def test_any_exception_of_a_decoder_is_a_damaged_file(tmp_path: Path) -> None:
    content = tiff_with_pixels_at_a_float()
    with pytest.raises(TypeError), Image.open(io.BytesIO(content)) as image:
        image.load()
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"Cannot read the image {path}: .*float"):
        read_image(path)
    with pytest.raises(InputError, match="The file cannot be read: .*float"):
        decode_bytes(content)
    assert image_size(path) in (None, (12, 12))


@pytest.mark.parametrize("error", [TypeError, struct.error, SyntaxError, OverflowError, MemoryError, RecursionError])
def test_a_decoder_may_raise_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(self: Image.Image) -> None:
        raise error("odd bytes")

    path = saved(tmp_path, Image.new("L", (3, 2)))
    monkeypatch.setattr(PngImageFile, "load", fail)
    with pytest.raises(InputError, match=rf"Cannot read the image {path}: odd bytes"):
        read_image(path)


def test_our_own_errors_are_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, size: int) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr("pixelscope.data.formats.decode._square", fail)
    with pytest.raises(TypeError, match="a defect"):
        read_image(saved(tmp_path, Image.new("L", (3, 2))), 2)


@pytest.mark.parametrize(
    ("name", "kind", "feature"),
    [("a.jfif", "JPEG", None), ("a.JPE", "JPEG", None), ("a.jp2", "JPEG2000", "jpg_2000"), ("a.avif", "AVIF", "avif")],
)
def test_other_endings_of_images_are_read(tmp_path: Path, name: str, kind: str, feature: str | None) -> None:
    if feature is not None and not features.check(feature):
        pytest.skip(f"this Pillow reads no {kind}")
    path = saved(tmp_path, Image.new("RGB", (16, 16), (90, 120, 150)), name, format=kind)
    assert image_files(tmp_path) == [path]
    assert np.abs(read_image(path).astype(int) - [90, 120, 150]).max() <= 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "image of a known format"), (b"hello", "image of a known format"), (None, "is a directory|Is a directory")],
)
def test_the_message_names_file_reason_and_mend(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path}: .*({reason})"):
        read_image(path)


@pytest.mark.parametrize("pixels", [60, 30])
def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(InputError, match=f"it has 80 pixels, over the limit of {pixels}") as refused:
        read_image(saved(tmp_path, Image.new("L", (10, 8))))
    assert str(refused.value).count("; ") == 1  # one fix
    assert image_size(tmp_path / "image.png") is None


def test_a_larger_limit_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    path = saved(tmp_path, Image.new("L", (10, 8), 5))
    with pytest.raises(InputError, match="PIXELSCOPE_MAX_PIXELS"):
        read_image(path)
    monkeypatch.setenv("PIXELSCOPE_MAX_PIXELS", "80")
    assert read_image(path)[0, 0].tolist() == [5]
    monkeypatch.setenv("PIXELSCOPE_MAX_PIXELS", "79")
    with pytest.raises(InputError, match="PIXELSCOPE_MAX_PIXELS"):
        read_image(path)
    monkeypatch.setenv("PIXELSCOPE_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="'many'"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS == 60


def test_formats_that_start_other_programs_are_not_tried(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (4, 4)), "a.eps").rename(tmp_path / "a.png")
    assert image_size(path) is None
    with pytest.raises(InputError, match="image of a known format"):
        read_image(path)


def test_files_are_found_at_any_depth_in_one_order(tmp_path: Path) -> None:
    names = ["b/1.PNG", "b-c/1.png", "a/z/2.jpeg", "a/10.png", "a/9.png"]
    for name in [*names, ".hidden.png", ".cache/x.png", "a/notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)] == sorted(names)


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "1.png").touch()
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked" / "back").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    assert [file.relative_to(folder).as_posix() for file in image_files(folder)] == ["linked/1.png"]


def test_many_images_come_in_order_errors_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.data.formats.decode._CHUNK", 3)
    paths = [saved(tmp_path, Image.new("L", (2, 2), i), f"{i}.png") for i in range(8)]
    paths[4].write_bytes(b"")
    values = [None if isinstance(image, InputError) else int(image.max()) for image in read_images(paths)]
    assert values == [0, 1, 2, 3, None, 5, 6, 7]


def test_one_colour_image_makes_all_three_channels(tmp_path: Path) -> None:
    paths = [saved(tmp_path, Image.new("L", (2, 2), 7), "a.png"), saved(tmp_path, Image.new("RGB", (2, 2), (1, 2, 3)), "b.png")]
    assert read_all(paths)[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]
    assert read_all(paths[:1])[:, 0, 0].tolist() == [[7]]


def test_without_a_size_all_must_have_one(tmp_path: Path) -> None:
    paths = [saved(tmp_path, Image.new("L", (4, 2)), "a.png"), saved(tmp_path, Image.new("L", (2, 4)), "b.png")]
    with pytest.raises(InputError, match=r"b\.png is 2 x 4, but .* 4 x 2"):
        read_all(paths)


@pytest.mark.parametrize("name", ["absent.png", "."])
def test_what_is_no_file_is_not_to_be_repaired(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as refused:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value) and "repair" not in str(refused.value)


TURNS = (
    *(lambda a: a, np.fliplr, lambda a: a[::-1, ::-1], np.flipud),
    *(lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, -1), lambda a: a[::-1, ::-1].swapaxes(0, 1), np.rot90),
)
"""What turns an array (H, W, ...) upright, by EXIF orientation 1 to 8."""


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(("shape", "dtype"), [((4, 6), np.uint8), ((4, 6, 3), np.uint8), ((4, 6), np.uint16)])
def test_a_tiff_is_turned_upright_once(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, compression: str | None, orientation: int
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    stored = values if dtype is np.uint8 else values.astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path, Image.fromarray(stored), "image.tif", exif=exif, compression=compression)
    upright = TURNS[orientation - 1](values)
    for found in (read_image(path), decode_bytes(path.read_bytes())):
        np.testing.assert_array_equal(found.squeeze(), upright)
    assert image_size(path) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_deep_colours_of_a_tiff_are_turned_upright_once(tmp_path: Path, orientation: int) -> None:
    values, file = np.random.default_rng(0).integers(0, 256, (4, 6, 3)), tmp_path / "deep.tif"
    assert cv2.imwrite(str(file), values[..., ::-1].astype(np.uint16) * 257)
    # OpenCV writes no orientation: it takes the place of the layout of planes, which has a default.
    planes, turned = (struct.pack("<HHIH", tag, 3, 1, value) for tag, value in ((284, 1), (274, orientation)))
    file.write_bytes(file.read_bytes().replace(planes, turned))
    np.testing.assert_array_equal(read_image(file), TURNS[orientation - 1](values))
