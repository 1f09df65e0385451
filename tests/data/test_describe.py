"""What `data info` says of a source, and its contact sheet."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.sources import noise, write_classes, write_mnist
from pixelscope.data.describe import contact_sheet, describe_source
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.errors import InputError


def test_numbers_of_mnist(tmp_path: Path) -> None:
    described = describe_source(str(write_mnist(tmp_path, train=12, test=4)))
    pixels = np.concatenate([noise((12, 28, 28), 0), noise((4, 28, 28), 1)])
    assert described.kind == "mnist"
    assert described.count == 16
    assert described.classes == {"0": 3, "1": 3, "2": 2, "3": 2, **{str(i): 1 for i in range(4, 10)}}
    assert described.sizes == {"28 x 28": 16}
    assert described.channels == 1
    assert (described.minimum, described.maximum) == (pixels.min(), pixels.max())
    assert described.mean == pytest.approx(pixels.mean(), abs=0.01)
    assert described.split == {"training": 12, "test": 4}
    assert described.licence == "unknown"


def test_sizes_of_a_folder_are_the_original_ones(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 3, "b": 2}, side=12)
    for i in range(4):
        Image.fromarray(noise((200, 300, 3), i)).save(tmp_path / "b" / f"wide{i}.png")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "0.png").write_bytes(whole[: len(whole) // 2])  # its header, which has the size, can be read
    described = describe_source(str(tmp_path))
    assert described.sizes == {"12 x 12": 4, "300 x 200": 4}
    assert described.classes == {"a": 2, "b": 6}
    assert described.notes == ("Skipped 1 unreadable of 9 images: a/0.png.", "Values are those at 64 x 64 pixels.")


def test_small_images_of_one_size_are_not_resized(tmp_path: Path) -> None:
    described = describe_source(f"folder:{write_classes(tmp_path, {'a': 2, 'b': 2}, side=12)}")
    assert described.images.images.shape == (4, 3, 12, 12)
    assert described.notes == ()


def test_strict_is_passed_on(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match="Cannot read the image"):
        describe_source(str(tmp_path), strict=True)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no .*nowhere"):
        describe_source(f"folder:{tmp_path}/nowhere")


def test_text_has_every_fact_in_aligned_columns(tmp_path: Path) -> None:
    text = describe_source(str(write_mnist(tmp_path))).to_text()
    lines = text.splitlines()
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == {
        "source", "title", "images", "sizes", "classes", "split", "values", "licence", "note",
    }  # fmt: skip
    column = lines[0].index(str(tmp_path))
    assert all(line[column - 1] == " " != line[column] for line in lines)


def test_unlabelled_sources_say_so(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(noise((8, 8), i)).save(tmp_path / f"{i}.png")
    described = describe_source(str(tmp_path))
    assert described.classes == {}
    assert described.split is None
    assert "none: unlabelled" in described.to_text()
    assert "2, grey" in described.to_text()


def test_dict_is_json_without_the_images(tmp_path: Path) -> None:
    described = describe_source(str(write_mnist(tmp_path)))
    values = json.loads(json.dumps(described.to_dict()))
    assert values["count"] == 16
    assert values["sizes"] == {"28 x 28": 16}
    assert "images" not in values


def coloured(count: int, classes: tuple[str, ...] = (), labels: list[int] | None = None, size: int = 4) -> ImageSet:
    """Return images each of one grey value, its position."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(size, 2).repeat(size, 3)
    return ImageSet(images, Provenance("x", "Test"), None if labels is None else np.array(labels), classes)


def tiles(path: Path) -> list[list[int]]:
    """Return the grey values of a sheet's tiles, row by row: runs of at least 60 equal pixels that are no paper."""
    pixels = np.asarray(Image.open(path).convert("L"))
    rows = []
    for y in range(30, len(pixels), 68):
        middle = pixels[min(y + 48, len(pixels) - 1)]
        edges = [0, *(np.flatnonzero(np.diff(middle.astype(int))) + 1), len(middle)]
        runs = [int(middle[a]) for a, b in zip(edges, edges[1:], strict=False) if b - a == 64 and middle[a] != 255]
        rows.append(runs)
    return [row for row in rows if row]


def test_a_row_of_each_class(tmp_path: Path) -> None:
    labels = [0] * 30 + [1] * 3
    path = contact_sheet(coloured(33, ("many", "few"), labels), tmp_path / "sheet.png")
    assert tiles(path) == [list(range(0, 30, 3)), [30, 31, 32]]


def test_a_grid_where_unlabelled(tmp_path: Path) -> None:
    path = contact_sheet(coloured(200), tmp_path / "sheet.png")
    assert tiles(path) == [list(range(20 * row, 20 * row + 20, 2)) for row in range(10)]


@pytest.mark.parametrize("size", [1, 28, 64, 100])
def test_tiles_are_of_one_size(tmp_path: Path, size: int) -> None:
    assert tiles(contact_sheet(coloured(3, size=size), tmp_path / "sheet.png")) == [[0, 1, 2]]


def test_small_images_are_enlarged_without_smoothing(tmp_path: Path) -> None:
    checks = coloured(2, size=2)
    checks.images[:] = np.array([[0, 200], [200, 0]], np.uint8)
    sheet = np.asarray(Image.open(contact_sheet(checks, tmp_path / "sheet.png")).convert("L"))
    assert set(np.unique(sheet[-60:-20])) == {0, 200, 255}


def test_long_names_are_shortened_and_classes_beyond_forty_counted(tmp_path: Path) -> None:
    names = tuple(f"class {i} " + "with a very long name " * 5 for i in range(50))
    path = contact_sheet(coloured(50, names, list(range(50))), tmp_path / "sheet.png")
    with Image.open(path) as sheet:
        assert sheet.width < 500
        assert sheet.height < 41 * 68 + 60
    assert len(tiles(path)) == 40


def test_a_sheet_is_written_beside_what_is_described(tmp_path: Path) -> None:
    path = describe_source(str(write_mnist(tmp_path))).save_sheet(tmp_path / "new" / "sheet.png")
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.height > 10 * 64
