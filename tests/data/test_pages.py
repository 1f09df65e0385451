"""`data pages`: every page of a file becomes a file, with the same values."""

import struct
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from pixelscope import InputError, load_images, write_pages
from pixelscope.data.formats.decode import read_image
from pixelscope.data.pages import GROUP_BY
from pixelscope.data.split import group_by_name


def paged(path: Path, pages: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)
    return path


def noise(shape: tuple[int, ...], seed: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256 if dtype is np.uint8 else 65536, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "dtype"), [((6, 5), np.uint8), ((6, 5, 3), np.uint8), ((6, 5), np.uint16)])
def test_pages_of_a_tiff_keep_their_values(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    pages = [noise(shape, seed, dtype) for seed in range(3)]
    paged(tmp_path / "in" / "a" / "scan.tif", pages)
    written = write_pages(tmp_path / "in", tmp_path / "out")
    assert (written.pages, written.files, written.copied) == (3, 1, 0)
    for number, page in enumerate(pages, 1):
        with Image.open(tmp_path / "out" / "a" / f"scan-{number:04d}.tif") as image:
            assert (np.asarray(image) == page).all()


def test_pages_that_were_compressed_with_loss_are_not_compressed_so_again(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise((24, 20, 3), seed)) for seed in range(2))
    first.save(tmp_path / "scan.tif", save_all=True, append_images=[second], compression="jpeg")
    write_pages(tmp_path / "scan.tif", tmp_path / "out")
    for number in range(2):
        with Image.open(tmp_path / "scan.tif") as given, Image.open(tmp_path / "out" / f"scan-{number + 1:04d}.tif") as page:
            given.seek(number)
            assert (np.asarray(page) == np.asarray(given)).all()


def test_pages_in_which_0_is_white_are_read_as_their_file(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise((6, 5), seed, np.uint16)) for seed in (0, 1))
    first.save(tmp_path / "scan.tif", save_all=True, append_images=[second], tiffinfo={262: 0})
    write_pages(tmp_path / "scan.tif", tmp_path / "out")
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "scan-0001.tif"), read_image(tmp_path / "scan.tif"))
    with Image.open(tmp_path / "scan.tif") as image:
        image.seek(1)
        inverted = image.tag_v2[262] == 0  # pyright: ignore[reportAttributeAccessIssue]
    with Image.open(tmp_path / "out" / "scan-0002.tif") as image:
        np.testing.assert_array_equal(image, 65535 - np.asarray(second) if inverted else second)


def test_pages_of_signed_bytes_are_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise((6, 5), seed)) for seed in (0, 1))
    first.save(tmp_path / "scan.tif", save_all=True, append_images=[second], tiffinfo={339: 2})
    with pytest.raises(InputError, match="signed bytes"):
        write_pages(tmp_path / "scan.tif", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_deep_colours_keep_all_bits(tmp_path: Path) -> None:
    pages = [noise((6, 5, 3), seed, np.uint16) for seed in range(2)]
    (tmp_path / "in").mkdir()
    assert cv2.imwritemulti(str(tmp_path / "in" / "deep.tif"), pages)
    write_pages(tmp_path / "in", tmp_path / "out")
    found = cv2.imread(str(tmp_path / "out" / "deep-0002.tif"), cv2.IMREAD_UNCHANGED)
    assert found is not None and (found == pages[1]).all()


def test_class_folders_labels_and_single_pages_stay(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paged(folder / "scan.tif", [noise((6, 5), seed) for seed in range(2)])
    paged(folder / "moving.gif", [noise((6, 5), seed) for seed in range(2, 5)])
    Image.fromarray(noise((6, 5), 9)).save(folder / "one.png")
    (folder / "labels.csv").write_text("name,label\nscan.tif,a\nmoving.gif,b\none.png,a\n")
    written = write_pages(folder, tmp_path / "out")
    assert (written.pages, written.files, written.copied) == (5, 2, 1)
    images = load_images(str(tmp_path / "out"), size=None)
    assert len(images) == 6 and images.class_counts() == [3, 3]
    assert (tmp_path / "out" / "one.png").read_bytes() == (folder / "one.png").read_bytes()
    assert not any("first page" in note for note in images.provenance.notes)
    assert GROUP_BY in written.to_text()
    groups = group_by_name(images, GROUP_BY).groups
    assert groups is not None
    files = [name.split("-")[0] for name in images.names]
    assert all((one == two) == (files[i] == files[j]) for i, one in enumerate(groups) for j, two in enumerate(groups))
    for number in (1, 2):
        Image.fromarray(noise((6, 5), 9 + number)).save(folder / f"IMG-000{number}.png")
    (folder / "labels.csv").unlink()
    mistaken = write_pages(folder, tmp_path / "more")
    assert mistaken.alike == 2 and GROUP_BY not in mistaken.to_text() and "--data.group-by" in mistaken.to_text()


def test_what_cannot_be_split_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    whole = paged(tmp_path / "in" / "scan.tif", [noise((60, 50), seed) for seed in range(3)])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no images"):
        write_pages(tmp_path / "none", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("This is no image.")
    with pytest.raises(InputError, match="no images in .*notes.txt"):
        write_pages(tmp_path / "notes.txt", tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        write_pages(tmp_path / "in", tmp_path / "in")
    written = write_pages(whole, tmp_path / "single")
    assert written.pages == 3
    whole.write_bytes(whole.read_bytes().replace(noise((60, 50), 2).tobytes()[:200], b""))
    with pytest.raises(InputError, match="Cannot read page 3"):
        write_pages(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert read_image(tmp_path / "single" / "scan-0003.tif").shape == (60, 50, 1)


@pytest.mark.parametrize("other", ["scan.tiff", "scan-0002.tif"])
def test_two_files_that_would_have_one_name_are_refused(tmp_path: Path, other: str) -> None:
    folder = tmp_path / "in"
    paged(folder / "scan.tif", [noise((6, 5), seed) for seed in range(2)])
    paged(folder / other, [noise((6, 5), seed) for seed in range(2, 4 if other == "scan.tiff" else 3)])
    with pytest.raises(InputError, match="scan-000"):
        write_pages(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_pages_are_as_upright_as_their_file(tmp_path: Path, orientation: int, deep: bool) -> None:
    file = tmp_path / "in" / "scan.tif"
    file.parent.mkdir()
    if deep:
        assert cv2.imwritemulti(str(file), [noise((6, 5, 3), seed, np.uint16) for seed in range(2)])
        # OpenCV writes no orientation: it takes the place of the layout of planes, which has a default.
        planes, turned = (struct.pack("<HHIH", tag, 3, 1, value) for tag, value in ((284, 1), (274, orientation)))
        file.write_bytes(file.read_bytes().replace(planes, turned))
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        first, second = (Image.fromarray(noise((6, 5), seed)) for seed in range(2))
        first.save(file, save_all=True, append_images=[second], exif=exif)
    write_pages(file.parent, tmp_path / "out")
    page = read_image(tmp_path / "out" / "scan-0001.tif")
    assert page.shape[:2] == ((6, 5) if orientation == 3 else (5, 6))
    assert (page == read_image(file)).all()


def test_lines_of_a_label_file_are_matched_as_sources_match_them(tmp_path: Path) -> None:
    name = "caf\u00e9.tif"
    paged(tmp_path / "in" / unicodedata.normalize("NFD", name), [noise((6, 5), seed) for seed in range(2)])
    paged(tmp_path / "in" / "two.tif", [noise((6, 5), seed) for seed in range(2, 4)])
    table = tmp_path / "in" / "labels.csv"
    table.write_text(f"name,label\n{name},a\ntwo.tif,b\n", encoding="utf-8")
    write_pages(tmp_path / "in", tmp_path / "out")
    assert load_images(str(tmp_path / "out"), size=None).class_counts() == [2, 2]
    table.write_bytes(table.read_bytes().decode().encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        write_pages(tmp_path / "in", tmp_path / "other")
