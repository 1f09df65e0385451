"""Images deeper than 8 bits: one range per set, its note, its override, and the same range for later images."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixelscope.config import Config
from pixelscope.data import load
from pixelscope.data.formats.decode import depth_of, read_image
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.imageset import ImageSet
from pixelscope.data.pack import pack
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.convert import to_eight_bits, type_range
from pixelscope.pixelda.config import DataConfig


def flat(value: float, kind: type = np.uint16, side: int = 8) -> NDArray[np.generic]:
    return np.full((side, side), value, kind)


def written(folder: Path, **images: NDArray[np.generic]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.{'png' if image.dtype.itemsize < 4 else 'tif'}")
    return folder


def values(images: ImageSet) -> list[int]:
    """Return the one value of each image."""
    flattened = images.in_memory().reshape(len(images), -1)
    assert (flattened.min(1) == flattened.max(1)).all()
    return flattened[:, 0].tolist()


@pytest.mark.parametrize(
    ("stored", "expected", "said"),
    [
        ([flat(1), flat(255)], [1, 255], "0 to 255 (8 bits)"),
        ([flat(255), flat(256)], [64, 64], "0 to 1023 (10 bits)"),
        ([flat(1), flat(4095)], [0, 255], "0 to 4095 (12 bits)"),
        ([flat(257), flat(65535)], [1, 255], "0 to 65535 (16 bits)"),
        ([flat(0.2, np.float32), flat(1, np.float32)], [51, 255], "0 to 1"),
        ([flat(0, np.float32), flat(-0.5, np.float32)], [128, 64], "-1 to 1"),
        ([flat(-1000, np.float32), flat(3000, np.float32)], [0, 255], "-1000 to 3000"),
        ([flat(-1000, np.int32), flat(3000, np.int32)], [0, 255], "-1000 to 3000"),
    ],
)
def test_a_folder_has_one_range_the_least_that_holds_all(
    tmp_path: Path, stored: list[NDArray[np.generic]], expected: list[int], said: str
) -> None:
    folder = written(tmp_path / "deep", a=stored[0], b=stored[1])
    images = load(str(folder), size=None)
    assert values(images) == expected
    assert any(said in note for note in images.provenance.notes)


def test_a_range_that_is_given_holds_for_deep_images_and_for_no_others(tmp_path: Path) -> None:
    folder = written(tmp_path / "deep", a=flat(1000), b=flat(3000), c=flat(9000), d=flat(7, np.uint8))
    images = load(str(folder), size=None, value_range=(1000, 5000))
    assert values(images) == [0, 128, 255, 7]
    assert any("3 of 4 images" in note and "1000 to 5000" in note for note in images.provenance.notes)


def test_integers_and_floats_have_no_range_in_common(tmp_path: Path) -> None:
    folder = written(tmp_path / "deep", a=flat(1000), b=flat(0.5, np.float32))
    with pytest.raises(InputError, match=r"--data\.range LOW HIGH"):
        load(str(folder))


def test_images_of_8_bits_have_no_range_and_no_note(tmp_path: Path) -> None:
    images = load(str(written(tmp_path / "plain", a=flat(1, np.uint8), b=flat(9, np.uint8))), size=None)
    assert values(images) == [1, 9]
    assert not any("range" in note or "deeper" in note for note in images.provenance.notes)
    assert images.provenance.value_range is None


def test_sixteen_bit_colour_is_not_cut_to_its_high_byte(tmp_path: Path) -> None:
    for name, top in (("a", 4095), ("b", 100)):
        colour = np.full((8, 8, 3), (0, 1000, top), np.uint16)
        cv2.imwrite(str(tmp_path / f"{name}.png"), colour[..., ::-1])
    images = load(str(tmp_path), size=None)
    assert images.images[:, :, 0, 0].tolist() == [[0, 62, 255], [0, 62, 6]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_a_value_that_is_not_finite_is_an_error(tmp_path: Path, value: float) -> None:
    broken = flat(0.5, np.float32)
    broken[3, 4] = value
    folder = written(tmp_path / "deep", a=flat(0.2, np.float32), b=broken, c=flat(0.4, np.float32))
    images = load(str(folder), size=None)
    assert values(images) == [51, 102]
    assert any("b.tif" in note for note in images.provenance.notes)
    with pytest.raises(InputError, match="not finite"):
        read_image(folder / "b.tif")


def test_a_file_read_alone_is_read_by_its_type(tmp_path: Path) -> None:
    folder = written(tmp_path / "deep", a=flat(255), b=flat(1), c=flat(0.5, np.float32))
    assert [int(read_image(folder / name).max()) for name in ("a.png", "b.png", "c.tif")] == [1, 0, 128]


def test_integers_beyond_a_range_of_floats_are_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path / "deep", a=flat(255), b=flat(1))
    assert int(read_image(folder / "b.png", value_range=(0, 1)).max()) == 255
    with pytest.raises(InputError, match="integers up to 255"):
        read_image(folder / "a.png", value_range=(0, 1))


def test_a_pack_keeps_its_range(tmp_path: Path) -> None:
    folder = written(tmp_path / "deep", a=flat(1), b=flat(4095))
    packed = pack(str(folder), tmp_path / "pack", size=8)
    assert values(packed) == [0, 255]
    assert packed.provenance.value_range == (0, 4095)
    assert any("4095" in note for note in packed.provenance.notes)
    assert values(load(str(tmp_path / "pack"), size=8, value_range=(0, 4095))) == [0, 255]
    with pytest.raises(InputError, match="pack the images again with --range"):
        load(str(tmp_path / "pack"), size=8, value_range=(0, 1000))
    assert values(pack(str(folder), tmp_path / "given", size=8, value_range=(0, 8190))) == [0, 128]


def test_deep_arrays_share_the_least_range_that_holds_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.stack([flat(1), flat(4095)]))
    images = load(str(tmp_path / "a.npz"), size=None)
    assert values(images) == [0, 255]
    assert any("0 to 4095 (12 bits)" in note for note in images.provenance.notes)
    assert values(load(str(tmp_path / "a.npz"), size=None, value_range=(0, 8190))) == [0, 128]


def test_frames_share_a_range_that_the_store_keeps(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)
    folder = written(tmp_path / "normal", a=ramp * 8, b=ramp * 30)
    store = prepare([folder], config=PrepareConfig(size=16), out=tmp_path / "store", normal=["normal"])
    assert store.settings.range == (0, 4095)
    assert any("--prepare.range" in note for note in store.notes)
    assert store.frames[1].max() > 3 * store.frames[0].max() > 0
    given = prepare([folder], config=PrepareConfig(size=16, range=(0, 8190)), out=tmp_path / "given", normal=["normal"])
    assert abs(int(given.frames[1].max()) - int(store.frames[1].max()) / 2) <= 2


@pytest.mark.parametrize("low_high", [(1, 1), (2, 1), (0, float("inf"))])
@pytest.mark.parametrize("settings", [DataConfig, PrepareConfig])
def test_a_range_that_does_not_ascend_is_refused(settings: type[Config], low_high: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="range"):
        settings.parse({"range": low_high})


def test_a_range_that_no_image_needs_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "plain", a=flat(1, np.uint8), b=flat(9, np.uint8))
    np.savez(tmp_path / "a.npz", images=np.stack([flat(1, np.uint8), flat(9, np.uint8)]))
    found = [load(str(place), size=None, value_range=(0, 100)) for place in (folder, tmp_path / "a.npz")]
    found.append(pack(str(folder), tmp_path / "pack", size=8, value_range=(0, 100)))
    found.append(load(str(tmp_path / "pack"), size=8, value_range=(0, 100)))
    for images in found:
        assert values(images) == [1, 9]
        assert images.provenance.value_range is None
        assert "0 to 100" in images.provenance.notes[-1] and "not used" in images.provenance.notes[-1]
    frames = written(tmp_path / "frames", a=flat(100, np.uint8, 64), b=flat(200, np.uint8, 64))
    store = prepare([frames], config=PrepareConfig(size=16, range=(0, 100)), out=tmp_path / "store", normal=["frames"])
    assert any("not used" in note for note in store.notes)


def test_floats_a_little_over_1_are_not_taken_for_bytes(tmp_path: Path) -> None:
    stored = np.stack([flat(0, np.float32), flat(1.25, np.float32)])
    np.savez(tmp_path / "a.npz", images=stored)
    with pytest.raises(InputError, match=r"0 to 1\.25"):
        load(str(tmp_path / "a.npz"), size=None)
    images = load(f"{tmp_path / 'a.npz'}@range=0:1.25", size=None)
    assert values(images) == [0, 255]
    np.savez(tmp_path / "b.npz", images=stored * 160)
    assert values(load(str(tmp_path / "b.npz"), size=None)) == [0, 200]
    alone = flat(1.25, np.float32)
    alone[0] = 0
    folder = written(tmp_path / "deep", a=alone, b=alone * 160)
    assert [int(read_image(folder / name).max()) for name in ("a.tif", "b.tif")] == [255, 200]


@pytest.mark.parametrize(
    ("lowest", "highest", "whole", "expected"),
    [
        (0, 1, True, (0, 65535)), (0, 65535, True, (0, 65535)), (-5, 10, True, (-5, 10)), (0, 70_000, True, (0, 70_000)),
        (0, 1, False, (0, 1)), (-1, 1, False, (-1, 1)), (-0.5, 0, False, (-1, 1)), (0, 255, False, (0, 255)),
        (-2, 0.5, False, (-2, 0.5)), (-1, 200, False, (-1, 200)), (0.5, 256, False, (0.5, 256)),
    ],
)  # fmt: skip
def test_the_range_of_a_type_is_the_first_that_holds_all(
    lowest: float, highest: float, whole: bool, expected: tuple[float, float]
) -> None:
    assert type_range(lowest, highest, whole) == expected


def test_values_become_bytes() -> None:
    values = np.array([-9, 0, 1, 2, 3, 99])
    np.testing.assert_array_equal(to_eight_bits(values, (0, 3)), [0, 0, 85, 170, 255, 255])
    np.testing.assert_array_equal(to_eight_bits(values.astype(np.float32), (0, 3)), [0, 0, 85, 170, 255, 255])
    np.testing.assert_array_equal(to_eight_bits(values, (3, 3)), [0] * 6)


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_a_tiff_in_which_0_is_white_is_the_negative(tmp_path: Path, bits: int, kind: type) -> None:
    picture = np.linspace(0, 2**bits - 1, 48).reshape(6, 8).astype(kind)
    Image.fromarray(picture).save(tmp_path / "black.tif")
    # Pillow itself stores the negative of 8 bits.
    Image.fromarray(picture if bits == 8 else 2**bits - 1 - picture).save(tmp_path / "white.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "white.tif") as image:
        assert image.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    found, expected = (read_image(tmp_path / f"{name}.tif") for name in ("white", "black"))
    np.testing.assert_array_equal(found, expected)
    assert expected.min() == 0 and expected.max() == 255


def test_a_tiff_whose_values_would_be_taken_for_others_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "floats.tif", tiffinfo={262: 0})
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "signed.tif", tiffinfo={339: 2})
    for name, said in (("floats", "0 is white"), ("signed", "signed bytes")):
        with pytest.raises(InputError, match=said):
            read_image(tmp_path / f"{name}.tif")


def test_the_transparent_value_of_16_bits_is_white(tmp_path: Path) -> None:
    picture = np.full((4, 4), 257 * 9, np.uint16)
    picture[1, 2] = 7
    Image.fromarray(picture).save(tmp_path / "plain.png")
    content = (tmp_path / "plain.png").read_bytes()
    chunk = b"tRNS" + (7).to_bytes(2, "big")
    at = content.index(b"IDAT") - 4
    inserted = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "clear.png").write_bytes(content[:at] + inserted + content[at:])
    found, expected = read_image(tmp_path / "clear.png"), read_image(tmp_path / "plain.png")
    assert found[1, 2, 0] == 255 and expected[1, 2, 0] == 0
    np.testing.assert_array_equal(found[picture > 7], expected[picture > 7])


def test_a_transparent_value_has_no_part_in_a_range(tmp_path: Path) -> None:
    picture = np.array([[100, 4095], [65535, 9]], np.uint16)
    Image.fromarray(picture).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    chunk, at = b"tRNS" + (65535).to_bytes(2, "big"), content.index(b"IDAT") - 4
    inserted = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:at] + inserted + content[at:])
    assert depth_of([tmp_path / "a.png"]).low_high == (0, 4095)
    assert read_image(tmp_path / "a.png", value_range=(0, 4095))[..., 0].tolist() == [[6, 255], [255, 1]]
