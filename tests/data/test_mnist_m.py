"""MNIST-M: made here, against a plain oracle; and read as originally distributed."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from fixtures.sources import noise, write_idx, write_mnist, write_photos
from pixelscope.data import load
from pixelscope.data.sources.mnist import MNIST_SHA256, load_mnist
from pixelscope.data.sources.mnist_m import (
    OTHER_TITLES,
    TITLE_ORIGINAL,
    Form,
    blend_over_photos,
    cut,
    digit_masks,
    generate_mnist_m,
    invert_under,
    load_mnist_m,
)
from pixelscope.data.split import random_test_mask
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize

RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "mnist", train=40, test=10)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        Image.fromarray(noise((50, 60, 3), seed)).save(folder / name)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- blending ---------------------------------------------------------------------------------------------------------


@given(crop=arrays(np.uint8, (3, 4)), mask=arrays(np.bool_, (3, 4)))
def test_a_crop_under_a_mask_is_the_absolute_difference(crop: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(invert_under(crop, mask), np.abs(crop.astype(int) - 255 * mask))


def test_a_mask_holds_every_grey_above_black_in_the_middle_of_its_margin() -> None:
    digit = np.array([[[0, 1], [127, 255]]], np.uint8)
    np.testing.assert_array_equal(digit_masks(digit), [[[False, True], [True, True]]])
    wide = digit_masks(digit, margin=2)
    assert wide.shape == (1, 6, 6)
    assert wide.sum() == 3
    np.testing.assert_array_equal(wide[:, 2:4, 2:4], digit_masks(digit))


def test_blending_agrees_with_a_loop_over_images(photos: Path) -> None:
    masks, files = noise((30, 8, 8)) > 100, sorted(photos.iterdir())
    members = np.arange(3, 28)
    blended = np.zeros((30, 8, 8, 3), np.uint8)
    blend_over_photos(masks, members, files, np.random.default_rng(5), blended)

    random = np.random.default_rng(5)
    expected = np.zeros_like(blended)
    chosen, places = random.random(len(members)), random.random((len(members), 2))
    for draw, (i, (down, right)) in enumerate(zip(members, places, strict=True)):
        photo = np.asarray(Image.open(files[int(chosen[draw] * 3)])).astype(int)
        top, left = int(down * (50 - 8 + 1)), int(right * (60 - 8 + 1))
        for channel in range(3):
            expected[i, :, :, channel] = abs(photo[top : top + 8, left : left + 8, channel] - 255 * masks[i])
    np.testing.assert_array_equal(blended, expected)


def test_crops_reach_every_corner_and_no_further() -> None:
    photo = noise((10, 12, 3))
    nearly_one = np.nextafter(1.0, 0.0)
    first, last = cut(photo, np.array([[0.0, 0.0], [nearly_one, nearly_one]]), 4)
    np.testing.assert_array_equal(first, photo[:4, :4])
    np.testing.assert_array_equal(last, photo[-4:, -4:])


def test_a_photo_of_exactly_the_size_is_its_own_crop() -> None:
    photo = noise((4, 4, 3))
    np.testing.assert_array_equal(cut(photo, np.array([[0.9, 0.1]]), 4)[0], photo)


def test_grey_photos_serve_too(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 90, np.uint8)).save(tmp_path / "grey.png")
    blended = np.zeros((1, 8, 8, 3), np.uint8)
    blend_over_photos(np.full((1, 8, 8), True), np.array([0]), [tmp_path / "grey.png"], np.random.default_rng(0), blended)
    assert (blended == 165).all()


# --- generation -------------------------------------------------------------------------------------------------------


def test_image_i_shows_digit_i_over_a_photo(tmp_path: Path, mnist: Path) -> None:
    photos = write_photos(tmp_path / "plain", {"red.png": RED})
    made = load(str(generate_mnist_m(mnist, photos, tmp_path / "m.npz")), size=None)
    digits = load(str(mnist), size=None)
    background = np.array(RED)[:, None, None]
    expected = np.abs(background - 255 * (digits.in_memory() > 0))
    assert np.array_equal(made.images, expected)
    assert made.labels is not None
    assert digits.labels is not None
    assert np.array_equal(made.labels, digits.labels)
    assert made.is_aligned_with(digits)
    assert made.classes == digits.classes


@pytest.mark.parametrize("form", ["aligned", "distributed"])
def test_every_pixel_is_that_of_a_crop_or_its_complement(tmp_path: Path, mnist: Path, photos: Path, form: Form) -> None:
    made = torch.from_numpy(load(str(generate_mnist_m(mnist, photos, tmp_path / "m.npz", form=form)), size=None).in_memory())
    side = made.shape[-1]
    windows = torch.cat(
        [
            torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).unfold(1, side, 1).unfold(2, side, 1).flatten(1, 2)
            for file in sorted(photos.iterdir())
        ],
        dim=1,
    ).transpose(0, 1)
    for image in made[:10]:
        kept = (windows == image).all(1)
        inverted = (windows == 255 - image).all(1)
        fits = (kept | inverted).flatten(1).all(1)
        assert fits.sum() == 1, "one place of one photo explains the image"
        assert inverted[fits].any()


def test_the_distributed_form_has_the_mask_in_its_middle_and_the_split_of_mnist(tmp_path: Path, mnist: Path) -> None:
    photos = write_photos(tmp_path / "plain", {"train/red.png": RED, "val/blue.png": BLUE})
    made = load(str(generate_mnist_m(mnist, photos, tmp_path / "m.npz", form="distributed")), size=None)
    digits = load(str(mnist), size=None)
    masks = np.pad(digits.in_memory() > 0, ((0, 0), (0, 0), (2, 2), (2, 2)))
    behind = np.where(np.arange(50)[:, None] < 40, np.array(RED), np.array(BLUE))[..., None, None]
    assert np.array_equal(made.images, np.where(masks, 255 - behind, behind))
    assert made.test is not None and digits.test is not None
    assert np.array_equal(made.test, digits.test)
    assert made.is_aligned_with(digits)


def test_aligned_means_the_same_digits_and_not_the_same_format(tmp_path: Path, mnist: Path, photos: Path) -> None:
    made = load(str(generate_mnist_m(mnist, photos, tmp_path / "m.npz")))
    # 50 other digits in files of the same names, as those of Fashion-MNIST are.
    other = write_mnist(tmp_path / "fashion", train=40, test=10)
    images = np.random.default_rng(9).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    write_idx(other / "train-images-idx3-ubyte", images)
    assert made.is_aligned_with(load(str(mnist)))
    assert not made.is_aligned_with(load(str(other)))


def test_the_split_is_one_random_draw_of_the_seed(tmp_path: Path, mnist: Path, photos: Path) -> None:
    made = load_mnist_m(generate_mnist_m(mnist, photos, tmp_path / "m.npz", seed=3, test_fraction=0.3))
    assert made.test is not None
    assert np.array_equal(made.test, random_test_mask(50, 0.3, 3))
    assert int(made.test.sum()) == 15


def test_train_photos_are_never_under_test_digits(tmp_path: Path, mnist: Path) -> None:
    colours = {"train/deep/er/red.png": RED, "test/blue.png": BLUE, "val/green.png": GREEN}
    photos = write_photos(tmp_path / "split", colours)
    made = load_mnist_m(generate_mnist_m(mnist, photos, tmp_path / "m.npz"), None)
    # The corner of a random digit is anything, so that the photo is known by |colour - 255 * mask|.
    masks = (load_mnist(mnist, None).in_memory() > 0).astype(int)
    behind = {
        colour: (np.abs(np.array(colour)[:, None, None] - 255 * masks) == made.images).all((1, 2, 3))
        for colour in (RED, BLUE, GREEN)
    }
    assert made.test is not None
    assert np.array_equal(behind[RED], ~made.test)
    assert np.array_equal(behind[BLUE] | behind[GREEN], made.test)
    assert behind[BLUE].any()
    assert behind[GREEN].any()
    assert "1 photo behind training digits and 2 others behind test digits" in made.provenance.notes[0]


@pytest.mark.parametrize("names", [("a.png", "b.png"), ("train/a.png", "train/b.png"), ("val/a.png", "test/b.png")])
def test_photos_without_train_beside_others_serve_both(tmp_path: Path, mnist: Path, names: tuple[str, str]) -> None:
    photos = write_photos(tmp_path / "flat", dict(zip(names, (RED, BLUE), strict=True)))
    made = load_mnist_m(generate_mnist_m(mnist, photos, tmp_path / "m.npz"))
    assert "2 photos behind both training and test digits" in made.provenance.notes[0]


def test_same_seed_same_bytes(tmp_path: Path, mnist: Path, photos: Path) -> None:
    first = generate_mnist_m(mnist, photos, tmp_path / "1.npz", seed=7)
    again = generate_mnist_m(mnist, photos, tmp_path / "2.npz", seed=7)
    other = generate_mnist_m(mnist, photos, tmp_path / "3.npz", seed=8)
    assert sha256(first) == sha256(again) != sha256(other)


def test_the_seed_is_also_that_of_the_crops(tmp_path: Path, mnist: Path, photos: Path) -> None:
    made = [generate_mnist_m(mnist, photos, tmp_path / f"{seed}.npz", seed=seed, test_fraction=0.02) for seed in (7, 8)]
    assert load_mnist_m(made[0]).digest() != load_mnist_m(made[1]).digest()


def test_the_aligned_form_is_resized_on_reading_as_mnist_is(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    made = load_mnist_m(path, None).in_memory()
    assert made.shape == (50, 3, 28, 28)
    assert np.array_equal(load_mnist_m(path, 32).in_memory(), resize(made, 32))


def test_the_file_can_be_read_with_numpy_alone(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    with np.load(path, allow_pickle=False) as file:
        assert file["images"].shape == (50, 28, 28, 3)
        assert file["images"].dtype == np.uint8
        assert file["labels"].shape == file["test"].shape == (50,)
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in zipfile.ZipFile(path).infolist())


def test_an_existing_file_is_kept(tmp_path: Path, mnist: Path, photos: Path) -> None:
    out = tmp_path / "m.npz"
    out.write_text("precious")
    with pytest.raises(InputError, match=rf"{out} exists already"):
        generate_mnist_m(mnist, photos, out)
    assert out.read_text() == "precious"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, mnist: Path, photos: Path) -> None:
    (photos / "d.png").write_bytes(b"no image")
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InputError, match=r"Cannot read the image .*d\.png"):
        generate_mnist_m(mnist, photos, folder / "m.npz")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": Path("m.npy")}, r"m\.npy must end in \.npz; give for example --out m\.npz"),
        ({"seed": -1}, "seed -1"),
        ({"form": "original"}, "There is no form 'original' of MNIST-M; choose one of aligned, distributed"),
        ({"form": "distributed", "test_fraction": 0.2}, "test fraction of 0.2 .*'distributed'"),
        ({"test_fraction": 1.0}, r"test fraction 1\.0"),
        ({"test_fraction": 0.0}, r"test fraction 0\.0"),
        ({"photos": Path("nowhere")}, "There is no folder nowhere"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, mnist: Path, photos: Path, arguments: dict[str, object], message: str
) -> None:
    settings = {"mnist": mnist, "photos": photos, "out": tmp_path / "m.npz"} | arguments
    with pytest.raises(InputError, match=message):
        generate_mnist_m(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "needed"), [("aligned", 28), ("distributed", 32)])
def test_a_photo_smaller_than_the_crop_is_refused(tmp_path: Path, mnist: Path, form: Form, needed: int) -> None:
    small = write_photos(tmp_path / "small", {"s.png": RED}, width=40, height=needed - 1)
    with pytest.raises(InputError, match=rf"s\.png is 40 x {needed - 1} pixels, .* {needed} x {needed}"):
        generate_mnist_m(mnist, small, tmp_path / "m.npz", form=form)
    exact = write_photos(tmp_path / "exact", {"s.png": RED}, width=40, height=needed)
    assert generate_mnist_m(mnist, exact, tmp_path / "m.npz", form=form).is_file()


def test_a_file_of_the_recipe_with_grey_digits_is_refused(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    with np.load(path) as file:
        arrays_in_it = dict(file)
    recipe = json.loads(str(arrays_in_it.pop("pixelscope_mnist_m")))
    for changed, message in (
        ({k: v for k, v in recipe.items() if k not in ("version", "form")}, "^[^ ]*old.npz was made by an earlier version"),
        ({**recipe, "version": 3}, "^[^ ]*old.npz was made by version 3 of the recipe and this version of Pixelscope reads 2"),
        ({**recipe, "form": "round"}, "no record of how it was made"),
        ({**recipe, "form": "distributed"}, "has images of shape"),
    ):
        np.savez(tmp_path / "old.npz", pixelscope_mnist_m=np.array(json.dumps(changed)), **arrays_in_it)
        with pytest.raises(InputError, match=message):
            load(str(tmp_path / "old.npz"))


@pytest.mark.parametrize(
    "changed", [{"images": np.zeros((50, 28, 28), np.uint8)}, {"test": np.arange(50)}, {"labels": np.zeros((50, 1), np.int64)}]
)
def test_arrays_that_no_recipe_makes_are_refused(
    tmp_path: Path, mnist: Path, photos: Path, changed: dict[str, np.ndarray]
) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    with np.load(path) as file:
        arrays_in_it = dict(file)
    np.savez(tmp_path / "wrong.npz", **{**arrays_in_it, **changed})
    with pytest.raises(InputError, match=f"has {next(iter(changed))} of shape"):
        load(str(tmp_path / "wrong.npz"))


def test_a_generated_file_is_one_however_it_is_named(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    assert load(f"arrays:{path}").is_aligned_with(load(str(path)))


def test_a_folder_without_photos_is_refused(tmp_path: Path, mnist: Path) -> None:
    with pytest.raises(InputError, match="There are no photos in"):
        generate_mnist_m(mnist, mnist, tmp_path / "m.npz")


def test_a_flipped_byte_is_noticed(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged .*; make it again"):
        load_mnist_m(path)


def test_a_cut_file_is_noticed(tmp_path: Path, mnist: Path, photos: Path) -> None:
    path = generate_mnist_m(mnist, photos, tmp_path / "m.npz")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="truncated"):
        load_mnist_m(path)


def test_the_real_one(tmp_path: Path, shared_data: Path) -> None:
    few = write_mnist(tmp_path / "few", train=200, test=50)
    made = load_mnist_m(generate_mnist_m(few, shared_data / "bsds500", tmp_path / "m.npz"))
    assert "200 photos behind training digits and 300 others behind test digits" in made.provenance.notes[0]
    assert made.images.std() > 40


# --- as originally distributed ----------------------------------------------------------------------------------------


@pytest.fixture
def original(tmp_path: Path) -> Path:
    folder = tmp_path / "original"
    for part, count in (("train", 5), ("test", 3)):
        (folder / f"mnist_m_{part}").mkdir(parents=True)
        lines = []
        for i in range(count):
            name = f"{i:08d}.png"
            Image.fromarray(noise((32, 32, 3), i)).save(folder / f"mnist_m_{part}" / name)
            lines.append(f"{name} {9 - i}")
        (folder / f"mnist_m_{part}_labels.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_original_has_names_labels_and_split(original: Path) -> None:
    images = load(str(original))
    assert images.images.shape == (8, 3, 32, 32)
    np.testing.assert_array_equal(images.images[1].transpose(1, 2, 0), noise((32, 32, 3), 1))
    assert images.labels is not None
    assert images.test is not None
    assert images.labels.tolist() == [9, 8, 7, 6, 5, 9, 8, 7]
    assert images.test.tolist() == [False] * 5 + [True] * 3
    assert images.names[0] == "mnist_m_train/00000000.png"
    assert images.names[5] == "mnist_m_test/00000000.png"


def test_the_two_are_told_apart(tmp_path: Path, mnist: Path, photos: Path, original: Path) -> None:
    titles = set()
    for form in ("aligned", "distributed"):
        made = load_mnist_m(generate_mnist_m(mnist, photos, tmp_path / f"{form}.npz", form=form))
        assert made.provenance.title == OTHER_TITLES[form]
        assert (made.provenance.licence, made.provenance.citation) == ("unknown", "")
        titles.add(made.provenance.title)
    assert load_mnist_m(original).provenance.title == TITLE_ORIGINAL
    assert len({*titles, TITLE_ORIGINAL}) == 3


def test_the_original_shows_the_digits_that_its_names_count(original: Path) -> None:
    images = load_mnist_m(original)
    assert images.collection == MNIST_SHA256
    assert images.items is not None
    assert images.items.tolist() == [0, 1, 2, 3, 4, 60_000, 60_001, 60_002]


@pytest.mark.parametrize("name", ["00060000.png", "seven.png"])
def test_a_name_that_is_no_index_of_mnist_is_refused(original: Path, name: str) -> None:
    (original / "mnist_m_train" / "00000003.png").rename(original / "mnist_m_train" / name)
    labels = original / "mnist_m_train_labels.txt"
    labels.write_text(labels.read_text().replace("00000003.png", name))
    with pytest.raises(InputError, match=f"{name} is not named by the index"):
        load_mnist_m(original)


def test_grey_files_still_give_colour(original: Path) -> None:
    for file in original.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert load_mnist_m(original).images.shape[1] == 3


def test_suffixes_in_capitals_and_files_of_other_programs_do_no_harm(original: Path) -> None:
    labels = original / "mnist_m_train_labels.txt"
    (original / "mnist_m_train" / "00000003.png").rename(original / "mnist_m_train" / "00000003.PNG")
    labels.write_text("\ufeff" + labels.read_text().replace("00000003.png", "00000003.PNG"), encoding="utf-8")
    (original / "mnist_m_train" / "._00000001.png").write_bytes(b"resource fork")
    assert len(load_mnist_m(original)) == 8


def test_one_digit_under_two_names_is_refused(original: Path) -> None:
    Image.fromarray(noise((32, 32, 3), 9)).save(original / "mnist_m_train" / "3.png")
    labels = original / "mnist_m_train_labels.txt"
    labels.write_text(labels.read_text() + "3.png 6\n")
    with pytest.raises(InputError, match="named by the same index"):
        load_mnist_m(original)


def test_a_missing_image_is_named(original: Path) -> None:
    (original / "mnist_m_train" / "00000003.png").unlink()
    with pytest.raises(InputError, match=r"4 images and mnist_m_train_labels.txt 5 labels: 00000003.png"):
        load_mnist_m(original)


def test_a_missing_label_is_named(original: Path) -> None:
    file = original / "mnist_m_test_labels.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"3 images and mnist_m_test_labels.txt 2 labels: 00000002.png"):
        load_mnist_m(original)


@pytest.mark.parametrize("name", ["mnist_m_train", "mnist_m_test_labels.txt"])
def test_a_missing_part_is_named(original: Path, name: str) -> None:
    (original / name).rename(original / "elsewhere")
    with pytest.raises(InputError, match=f"There is no {name} in {original}"):
        load_mnist_m(original)


@pytest.mark.parametrize("line", ["00000000.png", "00000000.png 12", "00000000.png x"])
def test_a_wrong_line_is_named(original: Path, line: str) -> None:
    file = original / "mnist_m_train_labels.txt"
    file.write_text("\n".join([*file.read_text().splitlines()[1:], line]))
    with pytest.raises(InputError, match=r"Line 5 of .*mnist_m_train_labels.txt"):
        load_mnist_m(original)


def test_a_label_given_twice_is_noticed(original: Path) -> None:
    file = original / "mnist_m_train_labels.txt"
    file.write_text(file.read_text() + "00000000.png 3\n")
    with pytest.raises(InputError, match="has 6 labels for 5 images, some twice"):
        load_mnist_m(original)


def test_an_unreadable_image_is_refused(original: Path) -> None:
    (original / "mnist_m_train" / "00000003.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"Cannot read the image .*00000003\.png"):
        load_mnist_m(original)


def test_a_path_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no .*nowhere; make MNIST-M"):
        load_mnist_m(tmp_path / "nowhere")
    np.savez(tmp_path / "other.npz", images=noise((2, 8, 8)))
    with pytest.raises(InputError, match=r"other\.npz was not written by `pixelscope data mnist-m`"):
        load_mnist_m(tmp_path / "other.npz")


def test_the_sample_of_the_original(shared_data: Path) -> None:
    images = load(str(shared_data / "mnist_m_sample"))
    assert images.images.shape == (400, 3, 32, 32)
    assert images.labels is not None
    assert images.labels[:3].tolist() == [5, 0, 4]
