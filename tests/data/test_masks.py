"""Masks as the tools that draw them store them: labels, palettes, depths, transparency; one region, found in all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.frames import save
from pixelscope.data.sources.masks import mask_from_values, read_mask
from pixelscope.errors import InputError

REGION = np.zeros((20, 30), bool)
REGION[4:11, 7:26] = True

CLEAR = np.zeros((20, 30, 3), np.uint8)


def _grey(value: int, kind: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(REGION, value, 0).astype(kind))


def _palette(*colours: tuple[int, int, int], transparent: int | None = None) -> Image.Image:
    image = Image.fromarray(REGION.astype(np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def _seen(colour: tuple[int, int, int], ground: tuple[int, int, int] = (0, 0, 0), opaque: bool = False) -> Image.Image:
    colours = np.where(REGION[..., None], np.array(colour, np.uint8), np.array(ground, np.uint8))
    return Image.fromarray(np.dstack([colours, np.where(REGION | opaque, 255, 0).astype(np.uint8)]))


MASKS = {
    "black and white": _grey(255),
    "label 1": _grey(1),
    "one bit": _grey(255).convert("1"),
    "16 bits, label 1": _grey(1, np.uint16),
    "16 bits, white": _grey(65535, np.uint16),
    "32 bits, label 1": _grey(1, np.int32),
    "dark red on black": Image.fromarray(np.where(REGION[..., None], np.array([128, 0, 0]), 0).astype(np.uint8)),
    "palette of colours": _palette((0, 0, 0), (128, 0, 0)),
    "palette without colours": _palette((0, 0, 0), (0, 0, 0)),
    "palette of bright colours": _palette((200, 200, 200), (255, 80, 80)),
    "palette, inside black": _palette((255, 255, 255), (0, 0, 0), transparent=0),
    "white on transparent ground": _seen((255, 255, 255)),
    "white on transparent white": _seen((255, 255, 255), (255, 255, 255)),
    "black on transparent ground": _seen((0, 0, 0)),
    "white on opaque black": _seen((255, 255, 255), opaque=True),
    "palette, inside first": _palette((255, 0, 0), (0, 0, 0)),
    "palette, outside last and transparent": _palette((0, 0, 0), (0, 0, 0), transparent=1),
    "grey on transparent ground": _seen((255, 255, 255)).convert("LA"),
    "empty alpha": Image.fromarray(np.dstack([CLEAR, np.zeros((20, 30), np.uint8)])),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_region_is_found_however_it_is_stored(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / ("mask.tif" if name.startswith("32") else "mask.png"), MASKS[name])
    expected = {
        "palette, inside first": ~REGION,
        "palette, outside last and transparent": ~REGION,
        "empty alpha": REGION & False,
    }
    np.testing.assert_array_equal(read_mask(path), expected.get(name, REGION))


@pytest.mark.parametrize(
    ("inside_has", "outside_has"),
    [
        ((0, 0, 0, 65535), (0, 0, 0, 0)),
        ((9, 9, 9, 65535), (0, 0, 0, 65535)),
        ((65535, 0, 0), (0, 0, 0)),
        ((0, 7, 0), (0, 0, 0)),
    ],
)
def test_sixteen_bits_of_colour_and_alpha(inside_has: tuple[int, ...], outside_has: tuple[int, ...], tmp_path: Path) -> None:
    """OpenCV writes what Pillow cannot: colours of 16 bits, with transparent ground and without."""
    cv2 = pytest.importorskip("cv2")
    layers = np.where(REGION[..., None], np.array(inside_has), np.array(outside_has)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "mask.png"), layers)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), REGION)


def test_faint_edges_of_a_drawing_are_outside(tmp_path: Path) -> None:
    """A brush leaves half transparent edges; half of the greatest opacity decides."""
    layers = np.array(_seen((0, 0, 0)))
    layers[0, :, 3], layers[1, :, 3] = 100, 150
    expected = REGION.copy()
    expected[1] = True
    np.testing.assert_array_equal(read_mask(save(tmp_path / "mask.png", Image.fromarray(layers))), expected)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_mask_is_set_upright(depth: type, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "mask.png", _grey(1, depth), exif=exif)
    np.testing.assert_array_equal(read_mask(path), np.rot90(REGION, -1))


def test_steps_of_resizing_are_no_labels(tmp_path: Path) -> None:
    large = np.kron(REGION, np.ones((10, 10))) > 0
    smooth = Image.fromarray(large.astype(np.uint8) * 255).resize((200, 150), Image.Resampling.BILINEAR)
    path = save(tmp_path / "mask.png", smooth)
    expected = np.asarray(Image.fromarray(large).resize((200, 150), Image.Resampling.NEAREST))
    assert (read_mask(path) == expected).mean() > 0.99


@pytest.mark.parametrize(("quality", "ending"), [(75, "jpg"), (90, "jpg"), (100, "jpg"), (75, "png"), (90, "png")])
def test_ripples_of_jpeg_are_no_labels(quality: int, ending: str, tmp_path: Path) -> None:
    """Also where the mask was stored as JPEG once, and without loss after that."""
    path = save(tmp_path / "mask.jpg", _grey(255), quality=quality)
    if ending == "png":
        path = save(tmp_path / "mask.png", Image.open(path))
    np.testing.assert_array_equal(read_mask(path), REGION)


def _spotted(values: tuple[int, ...], shape: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Return black with one pixel of each of `values` but the last, and a fifth of the last."""
    mask = np.zeros(shape, np.uint8)
    mask[:20] = values[-1]
    mask[-1, : len(values) - 1] = values[:-1]
    return mask


@pytest.mark.parametrize("values", [(1, 2), (1, 255), (1, 2, 3, 40), (10, 20, 30)])
def test_labels_of_several_classes_are_refused(values: tuple[int, ...], tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", _spotted(values))
    with pytest.raises(InputError, match=r"mask\.png has more than two values \(0, "):
        read_mask(path)


@pytest.mark.parametrize("values", [(20, 255), (1, 2, 250, 255), (*range(1, 20), 255)], ids=["step", "both sides", "many"])
def test_a_few_pixels_between_are_no_labels(values: tuple[int, ...], tmp_path: Path) -> None:
    """One step of resizing, ripples of JPEG beside both values, and more ripples than there are labels."""
    mask = _spotted(values)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "mask.png", mask)), mask > 127)


def test_half_of_the_greatest_value_decides() -> None:
    mask = _spotted((100, 150, 255))
    np.testing.assert_array_equal(mask_from_values(mask, ""), mask > 127)
    np.testing.assert_array_equal(mask_from_values((mask / 255).astype(np.float32), ""), mask > 127)


@pytest.mark.parametrize("name", ["mask.png", "mask.jpg"])
def test_a_picture_is_no_mask(name: str, tmp_path: Path) -> None:
    slope = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (100, 1))
    with pytest.raises(InputError, match="more than two values"):
        read_mask(save(tmp_path / name, slope))


def test_colours_without_black_are_refused(tmp_path: Path) -> None:
    red_on_white = np.where(REGION[..., None], np.array([255, 0, 0]), 255).astype(np.uint8)
    with pytest.raises(InputError, match="has several colours and none is black"):
        read_mask(save(tmp_path / "mask.png", red_on_white))


def test_a_mask_of_one_value() -> None:
    assert not mask_from_values(np.zeros((5, 5), np.uint8), "").any()
    assert mask_from_values(np.full((5, 5), 7, np.uint8), "").all()


@pytest.mark.parametrize("name", ["mask.png", "mask.jpg"])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (90, 90, 90)])
def test_a_file_of_one_colour_is_inside(colour: tuple[int, int, int], name: str, tmp_path: Path) -> None:
    assert read_mask(save(tmp_path / name, Image.new("RGB", (30, 20), colour))).all()


def test_a_white_mask_with_ripples_is_inside(tmp_path: Path) -> None:
    white = np.full((20, 30, 3), 255, np.uint8)
    white[::2, ::3, 1] = 200
    assert read_mask(save(tmp_path / "mask.png", white)).all()
