"""Masks of the content loss, as files and as arrays: the same masks however they are stored, each with its own image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import resume
from pixelscope.data.imageset import ImageSet
from pixelscope.data.pack import pack
from pixelscope.errors import InputError
from pixelscope.pixelda.data import load_content_masks, load_domains
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder


def _save(folder: Path, name: str, image: np.ndarray) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)


@pytest.fixture
def regions() -> np.ndarray:
    return np.random.default_rng(0).random((60, 16, 16)) < 0.4


@pytest.fixture
def folders(tmp_path: Path, regions: np.ndarray) -> Path:
    """Write 60 source images in three classes, and masks of labels 0 and 1 under the same names."""
    images, labels = tiny.pictures(60)
    for number, (image, label, region) in enumerate(zip(images, labels, regions, strict=True)):
        name = f"{label}/{number:02d}.png"
        _save(tmp_path / "source", name, image[..., 0])
        _save(tmp_path / "masks", name, region.astype(np.uint8))
    np.savez(tmp_path / "target.npz", images=tiny.pictures(60, 1, coloured=True)[0])
    return tmp_path


def _config(folder: Path, masks: str, **changes: object):
    losses = {"content": 1.0, "content_mask": masks}
    return tiny.pixelda(source=str(folder / "source"), target=str(folder / "target.npz"), losses=losses, **changes)


def _read(folder: Path, masks: str) -> ImageSet:
    config = _config(folder, masks)
    found = load_content_masks(config, load_domains(config))
    assert found is not None
    return found


def test_masks_of_labels_are_white_on_black(folders: Path, regions: np.ndarray) -> None:
    masks = _read(folders, str(folders / "masks"))
    numbers = [int(Path(name).stem) for name in masks.names]
    assert len(masks) < 60
    assert masks.images.shape[-1] == 16
    np.testing.assert_array_equal(masks.in_memory()[:, 0], regions[numbers] * 255)


def test_arrays_of_labels_are_white_on_black(folders: Path) -> None:
    files = sorted((folders / "masks").rglob("*.png"))
    labels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.savez(folders / "labels.npz", images=labels)
    by_file, by_array = _read(folders, str(folders / "masks")), _read(folders, f"arrays:{folders / 'labels.npz'}@N-H-W")
    assert np.array_equal(by_file.in_memory(), by_array.in_memory())


def test_arrays_of_several_labels_are_refused(folders: Path) -> None:
    np.savez(folders / "labels.npz", images=np.random.default_rng(0).integers(0, 6, (60, 16, 16)).astype(np.uint8))
    with pytest.raises(InputError, match="up to 5 of 255"):
        _read(folders, f"arrays:{folders / 'labels.npz'}")


def test_a_mask_beside_another_image_is_refused(folders: Path) -> None:
    """One mask is missing and another too many: their number fits, and most would lie beside another image."""
    first, *_, last = sorted((folders / "masks" / "0").iterdir())
    first.rename(last.with_name(f"{last.stem}b.png"))
    with pytest.raises(InputError, match="where the mask of the image"):
        _read(folders, str(folders / "masks"))


def _renamed(folder: Path, pattern: str) -> str:
    """Write source and masks anew, in folders without classes, the masks named by `pattern`; numbers without zeros before."""
    for kind in ("source", "masks"):
        for file in sorted((folder / kind).rglob("*.png")):
            name = pattern.format(int(file.stem)) if kind == "masks" else str(int(file.stem))
            target = folder / "flat" / kind / (file.parent.name if kind == "source" else "") / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    return str(folder / "flat" / "masks")


@pytest.mark.parametrize("pattern", ["{}_mask", "mask {}", "m{}-x"])
def test_masks_that_their_own_names_order_otherwise_are_refused(folders: Path, pattern: str) -> None:
    """Images lie in folders of classes, or come as 1, 10, 2, where masks come as 10_mask, 1_mask, 2_mask."""
    masks = _renamed(folders, pattern)
    (folders / "source").rename(folders / "old")
    (folders / "flat" / "source").rename(folders / "source")
    with pytest.raises(InputError, match="where the mask of the image"):
        _read(folders, masks)


@pytest.mark.parametrize("pattern", ["{}_mask", "mask {}", "any-{}{}"])
def test_masks_of_other_names_are_taken_in_order(folders: Path, regions: np.ndarray, pattern: str) -> None:
    for file in (folders / "masks").rglob("*.png"):
        file.rename(file.with_stem(pattern.format(file.stem, "z")))
    masks = _read(folders, str(folders / "masks"))
    numbers = [int("".join(filter(str.isdigit, Path(name).stem))) for name in masks.names]
    np.testing.assert_array_equal(masks.in_memory()[:, 0], regions[numbers] * 255)


def test_masks_whose_names_say_nothing_are_taken_in_order(folders: Path) -> None:
    expected = _read(folders, str(folders / "masks")).in_memory()
    for file in (folders / "masks").rglob("*.png"):
        file.rename(file.with_stem(file.stem.translate(str.maketrans("0123456789", "abcdefghij"))))
    assert np.array_equal(_read(folders, str(folders / "masks")).in_memory(), expected)


def test_a_pack_of_labels_is_white_on_black(folders: Path) -> None:
    pack(str(folders / "masks"), folders / "pack", size=16)
    by_file, by_pack = _read(folders, str(folders / "masks")), _read(folders, f"pack:{folders / 'pack'}")
    assert np.array_equal(by_file.in_memory().repeat(3, 1), by_pack.in_memory())


def test_a_number_of_masks_that_is_not_that_of_the_images_is_refused(folders: Path) -> None:
    next((folders / "masks" / "2").iterdir()).unlink()
    with pytest.raises(InputError, match="59 masks for 60 source images"):
        _read(folders, str(folders / "masks"))


@pytest.mark.parametrize(("content", "masks"), [(0.0, "folder:nowhere"), (1.0, "pixels")])
def test_masks_that_are_not_used_are_not_read(folders: Path, content: float, masks: str) -> None:
    config = _config(folders, masks)
    config = config.model_copy(update={"losses": config.losses.model_copy(update={"content": content})})
    assert load_content_masks(config, load_domains(config)) is None


def test_a_run_is_not_resumed_with_other_masks(folders: Path) -> None:
    run = train_pixelda(_config(folders, str(folders / "masks"), training={"images": 16}), run=folders / "run")
    before = RunFolder(run).checkpoint_files()
    for file in (folders / "masks" / "1").iterdir():
        _save(file.parent, file.name, 1 - np.asarray(Image.open(file)))
    with pytest.raises(InputError, match="masks"):
        resume(run, images=32)
    assert RunFolder(run).checkpoint_files() == before


def test_masks_without_a_weight_are_named_as_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = tiny.write_domains(tmp_path)
    config = tiny.pixelda(source=source, target=target, losses={"content_mask": "folder:absent"})
    assert load_content_masks(config, load_domains(config)) is None
    assert "folder:absent is not used" in caplog.text
