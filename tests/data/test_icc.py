"""ICC profiles: pixels in other colour spaces become sRGB when a file is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixelscope.data.formats.decode import decode_halved, read_image
from pixelscope.data.sources.pictograms import read_pictogram


def profile(kind: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()  # type: ignore[arg-type]


def swapped() -> bytes:
    """Return an RGB profile like sRGB whose red and blue primaries are exchanged, so that the expected pixels are known."""
    content = bytearray(profile("sRGB"))
    count = int.from_bytes(content[128:132], "big")
    entries = {bytes(content[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    content[red : red + 4], content[blue : blue + 4] = b"bXYZ", b"rXYZ"
    description = entries[b"desc"]
    offset, size = (int.from_bytes(content[description + at : description + at + 4], "big") for at in (4, 8))
    content[offset : offset + size] = content[offset : offset + size].replace(
        "sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")
    )
    return bytes(content)


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 1), ("a.tif", 1), ("a.jpg", 4)])
def test_exchanged_primaries_are_exchanged_back(tmp_path: Path, name: str, tolerance: int) -> None:
    Image.new("RGB", (16, 16), (200, 120, 40)).save(
        tmp_path / name, icc_profile=swapped(), **({"quality": 100} if name == "a.jpg" else {})
    )
    found = read_image(tmp_path / name)
    assert np.abs(found[8, 8].astype(int) - [40, 120, 200]).max() <= tolerance
    halved, _ = decode_halved(tmp_path / name, 4)
    assert np.abs(halved[4, 4].astype(int) - [40, 120, 200]).max() <= tolerance


def test_srgb_and_no_profile_leave_the_pixels_alone(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=profile("sRGB"))
    assert (read_image(tmp_path / "plain.png") == pixels).all()
    assert (read_image(tmp_path / "srgb.png") == pixels).all()


@pytest.mark.parametrize("content", [b"no profile", swapped()[:200], b"\0" * 400])
def test_a_damaged_profile_is_ignored(tmp_path: Path, content: bytes) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png", icc_profile=content)
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [1, 2, 3]


def test_transparency_palette_and_grey_stay(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 120, 40, 0))
    clear.putpixel((1, 1), (200, 120, 40, 255))
    clear.save(tmp_path / "clear.png", icc_profile=swapped())
    found = read_image(tmp_path / "clear.png")
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[1, 1].astype(int) - [40, 120, 200]).max() <= 1
    Image.new("RGB", (4, 4), (200, 120, 40)).quantize(4).save(tmp_path / "palette.png", icc_profile=swapped())
    assert np.abs(read_image(tmp_path / "palette.png")[0, 0].astype(int) - [40, 120, 200]).max() <= 1
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png", icc_profile=swapped())
    assert read_image(tmp_path / "grey.png")[0, 0].tolist() == [77]


def test_a_pictogram_is_converted_too(tmp_path: Path) -> None:
    drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    drawing.paste((200, 120, 40, 255), (2, 2, 6, 6))
    drawing.save(tmp_path / "a.png", icc_profile=swapped())
    found = read_pictogram(tmp_path / "a.png")
    assert found.shape == (4, 4, 4)
    np.testing.assert_allclose(found[1, 1] * 255, [40, 120, 200, 255], atol=1)
