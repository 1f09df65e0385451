"""Real pictograms over real photos: rendered signs are framed, lit and as sharp as the photos of GTSRB."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelscope import RenderConfig, load_images, render_pictograms
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import Domains, load_domains

COUNT = 5


@pytest.fixture(scope="module")
def signs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of photos and pictograms of traffic signs, with 36 classes rendered, or skip."""
    archive = shared_data / "traffic_signs.zip"
    if not archive.is_file():
        pytest.skip(f"traffic signs are absent: no {archive}")
    root = tmp_path_factory.mktemp("signs")
    with zipfile.ZipFile(archive) as file:
        file.extractall(root)
    folder = root / "traffic_signs"
    render_pictograms(folder / "pictograms", shared_data / "bsds500", folder / "rendered", RenderConfig(count=COUNT))
    return folder


@pytest.fixture(scope="module")
def domains(signs: Path) -> Domains:
    data = {"group_by": r"^(\d+/\d+)_", "classes": "source"}
    config = PixelDAConfig.parse({"source": str(signs / "rendered"), "target": str(signs / "photos"), "data": data})
    return load_domains(config, training=False)


def quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9))


def grey(folder: Path) -> NDArray[np.float64]:
    return load_images(str(folder)).in_memory().mean(1)


def sharpness(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean absolute Laplacian of each image over its standard deviation, which light does not change."""
    inner = images[:, 1:-1, 1:-1]
    around = images[:, :-2, 1:-1] + images[:, 2:, 1:-1] + images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
    return np.abs(4 * inner - around).mean((1, 2)) / images.std((1, 2))


def test_rendered_signs_are_a_labelled_set_of_36_classes(signs: Path) -> None:
    images = load_images(str(signs / "rendered"))
    assert images.class_counts() == [COUNT] * 36
    assert tuple(images.images.shape) == (36 * COUNT, 3, 32, 32)
    assert list(images.classes) == sorted(path.stem for path in (signs / "pictograms").iterdir())


def test_rendered_signs_are_lit_and_as_sharp_as_photos(signs: Path) -> None:
    rendered, photos = grey(signs / "rendered"), grey(signs / "photos")
    light = np.log(quantiles(rendered.mean((1, 2))) / quantiles(photos.mean((1, 2))))
    assert np.abs(light).max() < np.log(1.5)
    contrast = np.log(quantiles(rendered.std((1, 2))) / quantiles(photos.std((1, 2))))
    assert np.abs(contrast).max() < np.log(1.7)
    assert np.abs(np.log(quantiles(sharpness(rendered)) / quantiles(sharpness(photos)))).max() < np.log(1.4)


def test_photos_of_36_classes_are_split_by_track(domains: Domains) -> None:
    target = domains.target
    assert target is not None and domains.target_unmeasured == ""
    assert target.count == 7842 - 804
    train, test = ({name.rpartition("_")[0] for name in part.names} for part in (target.train, target.test))
    assert not train & test
    assert len(train | test) == 1307 - 134
    assert len(target.test) / target.count == pytest.approx(0.2, abs=0.001)
    assert any(note.startswith("7,038 images are in 1,173 groups") for note in target.notes)
    assert any("Left out 804 of 7,842 images" in note and "7 classes" in note for note in target.test.provenance.notes)
