"""MNIST-M: generated here in two forms, or as originally distributed; these are different sets of images."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pixelscope.data.formats.decode import read_all, read_image
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.listing import image_files
from pixelscope.data.sources.mnist import CLASSES, MNIST_SHA256, load_mnist
from pixelscope.data.split import random_test_mask
from pixelscope.errors import InputError, plural
from pixelscope.files import UNREADABLE, atomic_file
from pixelscope.imaging.resize import resize

CITATION = "Ganin, Ustinova, Ajakan et al.: Domain-adversarial training of neural networks, JMLR 17(59), 2016"
TITLES = {
    "aligned": "MNIST-M, index-aligned (28 x 28)",
    "distributed": "MNIST-M, generated in the form as distributed (32 x 32)",
}
"""Titles of generated sets by form."""
OTHER_TITLES = {
    "aligned": "Images in MNIST's format over photos, index-aligned (28 x 28)",
    "distributed": "Images in MNIST's format over photos (32 x 32)",
}
"""Titles of sets generated from images other than MNIST, by form."""
TITLE_ORIGINAL = "MNIST-M, as originally distributed"
LICENCE_GENERATED = "digits CC BY-SA 3.0; photos as stated by their source"

RECIPE_VERSION = 2
"""Version 1, absent from its files, blended grey digits instead of masks."""
TEST_FRACTION = 0.2
"""Fraction of the digits in the test split of the aligned form."""
MARGINS = {"aligned": 0, "distributed": 2}
"""Pixels around the 28 x 28 mask by form; the aligned form is resized on reading, as MNIST is."""
DIGIT_SIDE = 28
TRAINING_DIGITS, TEST_DIGITS = 60_000, 10_000

_PROVENANCE = "pixelscope_mnist_m"
"""Key that distinguishes a generated file from other .npz files."""

Bytes = NDArray[np.uint8]
Form = Literal["aligned", "distributed"]


@dataclass(frozen=True)
class Recipe:
    """How an MNIST-M was generated, enough to generate it again bit for bit from the same digits and photos."""

    version: int
    form: Form
    seed: int
    test_fraction: float | None
    """None for MNIST's own split."""
    digits: str
    """`ImageSet.digest` of the digits at their own size."""
    photos: str
    """SHA-256 of the names and contents of the photos."""
    photos_train: int
    """Number of photos behind training digits."""
    photos_test: int
    """Number of photos behind test digits."""
    photos_apart: bool
    """Whether training and test digits have different photos."""


def generate_mnist_m(
    mnist: Path, photos: Path, out: Path, seed: int = 0, form: Form = "aligned", test_fraction: float | None = None
) -> Path:
    """Generate MNIST-M: image i is a crop of a photo, inverted where digit i of MNIST is above 0 (Ganin et al. 2016).

    Photos and positions of the crops are random. If `photos` has a folder `train` next to others, training digits get their
    backgrounds from it and test digits from the others; otherwise all photos serve both.

    Args:
        mnist: folder of MNIST's four idx files.
        photos: folder of photos, at any depth.
        out: .npz file to write; it must not exist. Contents: images (N, S, S, 3), labels (N,), test (N,), and the recipe.
        seed: seed of photos, crops and test split.
        form: `aligned`: S is 28, with a random `test_fraction` of the digits as test split. `distributed`: the mask is centred
            in S = 32 pixels, with MNIST's own split, as in the set originally distributed.
        test_fraction: fraction of the digits in the test split of the aligned form, 0.2 by default.

    Returns:
        `out`.

    Raises:
        InputError: digits or photos cannot be used, `out` exists, or a test fraction is given for the distributed form.

    Example:
        >>> pixelscope.generate_mnist_m(Path("data/mnist"), Path("data/bsds500"), Path("data/mnist-m.npz"), form="aligned")
    """
    _check_request(out, seed, form, test_fraction)
    behind_train, behind_test = find_photos(photos)
    digits = load_mnist(mnist, None)
    fraction = None if form == "distributed" else TEST_FRACTION if test_fraction is None else test_fraction
    test = digits.test if fraction is None else random_test_mask(len(digits), fraction, seed)
    assert digits.labels is not None and digits.collection is not None and test is not None
    images = blend(digits.in_memory(), test, behind_train, behind_test, seed, MARGINS[form])
    recipe = Recipe(
        RECIPE_VERSION, form, seed, fraction, digits.collection, photos_sha256(photos, sorted({*behind_train, *behind_test})),
        len(behind_train), len(behind_test), behind_train != behind_test,
    )  # fmt: skip
    with atomic_file(out) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            images=images,
            labels=digits.labels,
            test=test,
            **{_PROVENANCE: np.array(json.dumps(asdict(recipe)))},
        )
    return out


def blend(
    digits: Bytes, test: NDArray[np.bool_], behind_train: list[Path], behind_test: list[Path], seed: int, margin: int = 0
) -> Bytes:
    """Return crops inverted under digits (N, 1, H, W), those marked in `test` (N,) over `behind_test`.

    Returns:
        uint8, shape (N, H + 2 * margin, W + 2 * margin, 3).
    """
    masks = digit_masks(digits[:, 0], margin)
    blended = np.empty((*masks.shape, 3), np.uint8)
    random = np.random.default_rng(seed)
    for members, photos in ((~test, behind_train), (test, behind_test)):
        blend_over_photos(masks, np.flatnonzero(members), photos, random, blended)
    return blended


def find_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the photos for training digits and for test digits, sorted by name."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give a folder of photos, for example the images of BSDS500.")
    photos = image_files(folder)
    if not photos:
        raise InputError(f"There are no photos in {folder}; give a folder of .jpg or .png files, for example those of BSDS500.")
    train = [photo for photo in photos if photo.relative_to(folder).parts[0] == "train"]
    others = [photo for photo in photos if photo.relative_to(folder).parts[0] != "train"]
    return (train, others) if train and others else (photos, photos)


def load_mnist_m(path: Path, size: int | None = 32) -> ImageSet:
    """Read MNIST-M from a file made by `generate_mnist_m`, or from the folder originally distributed.

    Args:
        path: the .npz file, or the folder of mnist_m_train, mnist_m_test and their label files.
        size: side in pixels to which images are resized; None keeps their size.

    Raises:
        InputError: `path` is neither, or a file is missing or damaged.
    """
    if path.is_dir():
        return _load_original(path, size)
    if path.is_file():
        return _load_generated(path, size)
    raise InputError(f"There is no {path}; make MNIST-M with `pixelscope data mnist-m`, or give the original folder.")


def path_in(root: Path) -> Path:
    """Return the path of MNIST-M in a data root: a generated mnist-m.npz, or the folder mnist-m as distributed."""
    places = [root / name for name in ("mnist-m.npz", "mnist_m.npz", "mnist-m", "mnist_m")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InputError(
            f"There is no MNIST-M in {root}; make it with `pixelscope data mnist-m --out {places[0]}`, or unpack the "
            f"original distribution into {places[2]}."
        )
    return found


def is_generated(path: Path) -> bool:
    """Return whether `generate_mnist_m` wrote `path`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{_PROVENANCE}.npy" in archive.namelist()
    except UNREADABLE:
        return False


def is_original(folder: Path) -> bool:
    """Return whether `folder` has MNIST-M as originally distributed."""
    return any((folder / name).exists() for name in ("mnist_m_train", "mnist_m_train_labels.txt"))


def _load_generated(path: Path, size: int | None) -> ImageSet:
    if not is_generated(path):
        raise InputError(
            f"{path} was not written by `pixelscope data mnist-m`, or is truncated; make it again, or try arrays:{path}."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            values = json.loads(str(file[_PROVENANCE]))
            arrays = {name: file[name] for name in ("images", "labels", "test")}
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged ({error}); make it again with `pixelscope data mnist-m`.") from None
    recipe = _read_recipe(path, values)
    _check_arrays(path, recipe, arrays)
    images = np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
    return ImageSet(
        images=images if size is None else resize(images, size),
        provenance=_origin(path, recipe),
        labels=arrays["labels"],
        classes=CLASSES,
        names=[f"{i:05d}" for i in range(len(images))],
        test=arrays["test"],
        collection=recipe.digits,
        items=np.arange(len(images)),
    )


def _origin(path: Path, recipe: Recipe) -> Provenance:
    source = f"mnist-m:{path}"
    if recipe.digits == MNIST_SHA256:
        return Provenance(source, TITLES[recipe.form], LICENCE_GENERATED, CITATION, (_note(recipe),))
    other = "Its digits are not MNIST: their digest differs."
    return Provenance(source, OTHER_TITLES[recipe.form], notes=(_note(recipe), other))


def _check_arrays(path: Path, recipe: Recipe, arrays: dict[str, NDArray[Any]]) -> None:
    side = DIGIT_SIDE + 2 * MARGINS[recipe.form]
    count = len(arrays["images"]) if arrays["images"].ndim else 0
    expected = {"images": ((count, side, side, 3), "uint8"), "labels": ((count,), "int64"), "test": ((count,), "bool")}
    for name, (shape, kind) in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != kind or not count:
            raise InputError(
                f"{path} has {name} of shape {found.shape} and type {found.dtype}, where the form {recipe.form} has "
                f"{(count or 'N', *shape[1:])} and {kind}; make it again with `pixelscope data mnist-m`."
            )


def _read_recipe(path: Path, values: Any) -> Recipe:
    if not isinstance(values, dict) or "version" not in values:
        raise InputError(
            f"{path} was made by an earlier version of Pixelscope from grey digits, with a dark outline that MNIST-M lacks; "
            "generate it again with `pixelscope data mnist-m --mnist DIR --photos DIR --out NEW.npz`."
        )
    if values["version"] != RECIPE_VERSION:
        raise InputError(
            f"{path} was made by version {values['version']} of the recipe and this version of Pixelscope reads "
            f"{RECIPE_VERSION}; generate it again with `pixelscope data mnist-m`, or update Pixelscope."
        )
    if set(values) != {field.name for field in fields(Recipe)} or values["form"] not in [*MARGINS]:
        raise InputError(f"{path} has no record of how it was made; make it again with `pixelscope data mnist-m`.")
    return Recipe(**values)


def _load_original(folder: Path, size: int | None) -> ImageSet:
    parts = {part: _read_labels(folder, part) for part in ("train", "test")}
    listed = [(f"mnist_m_{part}/{name}", label) for part, labels in parts.items() for name, label in labels.items()]
    images = read_all([folder / name for name, _ in listed], size).transpose(0, 3, 1, 2)
    return ImageSet(
        images=np.repeat(images, 3, axis=1) if images.shape[1] == 1 else np.ascontiguousarray(images),
        provenance=Provenance(f"mnist-m:{folder}", TITLE_ORIGINAL, "research use; photos of BSDS500", CITATION),
        labels=np.array([label for _, label in listed], np.int64),
        classes=CLASSES,
        names=[name for name, _ in listed],
        test=np.arange(len(listed)) >= len(parts["train"]),
        collection=MNIST_SHA256,
        items=_mnist_indices(folder, parts),
    )


def _mnist_indices(folder: Path, parts: dict[str, dict[str, int]]) -> NDArray[np.int64]:
    items = np.array([_mnist_index(folder, part, name) for part, labels in parts.items() for name in labels], np.int64)
    if len(np.unique(items)) < len(items):
        raise InputError(f"Two files in {folder} are named by the same index of MNIST; unpack MNIST-M again.")
    return items


def _mnist_index(folder: Path, part: str, name: str) -> int:
    """Return the index among MNIST's 70,000 digits that is in a file name, where it counts per part."""
    stem, count = Path(name).stem, {"train": TRAINING_DIGITS, "test": TEST_DIGITS}[part]
    if not (stem.isascii() and stem.isdigit() and int(stem) < count):
        raise InputError(
            f"{folder / f'mnist_m_{part}' / name} is not named by the index of its digit in MNIST, 00000000 to "
            f"{count - 1:08d}; unpack MNIST-M again, or give folders of classes as folder:DIR."
        )
    return int(stem) + (TRAINING_DIGITS if part == "test" else 0)


def _read_labels(folder: Path, part: str) -> dict[str, int]:
    """Return the label of each image of a part by file name; images and labels must match."""
    file, images = folder / f"mnist_m_{part}_labels.txt", folder / f"mnist_m_{part}"
    for needed in (file, images):
        if not needed.exists():
            raise InputError(f"There is no {needed.name} in {folder}; MNIST-M as distributed has it: unpack it again.")
    lines = [line.split() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or line[1] not in CLASSES:
            raise InputError(f"Line {number} of {file} is not `name label` with a label of 0 to 9; unpack it again.")
    labels = {name: int(label) for name, label in lines}
    present = {path.name for path in images.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith(".")}
    _check_listing(file, images, len(lines), labels.keys(), present)
    return labels


def _check_listing(file: Path, images: Path, lines: int, listed: Set[str], present: set[str]) -> None:
    for names, complaint in ((listed - present, "is missing"), (present - listed, "has no label")):
        if names:
            counts = f"{images} has {len(present)} images and {file.name} {lines} labels"
            raise InputError(f"{counts}: {min(names)} {complaint}; unpack MNIST-M again.")
    if len(listed) < lines:
        raise InputError(f"{file} has {lines} labels for {len(listed)} images, some twice; unpack it again.")
    if not listed:
        raise InputError(f"{images} has no images; unpack MNIST-M again.")


def _note(recipe: Recipe) -> str:
    photos = (
        f"{plural(recipe.photos_train, 'photo')} behind training digits and {recipe.photos_test} others behind test digits"
        if recipe.photos_apart
        else f"{plural(recipe.photos_train, 'photo')} behind both training and test digits"
    )
    return (
        f"Generated with seed {recipe.seed} in the form {recipe.form!r} from {photos}; not the MNIST-M originally distributed."
    )


def _check_request(out: Path, seed: int, form: str, test_fraction: float | None) -> None:
    if form not in MARGINS:
        raise InputError(f"There is no form {form!r} of MNIST-M; choose one of {', '.join(MARGINS)}.")
    if form == "distributed" and test_fraction is not None:
        raise InputError(
            f"A test fraction of {test_fraction} is not available for the form 'distributed', which has MNIST's own split; "
            "drop it, or choose the form 'aligned'."
        )
    if seed < 0 or (test_fraction is not None and not 0 < test_fraction < 1):
        raise InputError(
            f"MNIST-M cannot be made with seed {seed} and test fraction {test_fraction}; "
            "give a seed of 0 or more and a fraction between 0 and 1."
        )
    if out.suffix != ".npz":
        raise InputError(f"{out} must end in .npz; give for example --out {out.with_suffix('.npz').name}.")
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or choose another --out.")


def photos_sha256(folder: Path, photos: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of photos in a folder, in their order."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(os.fsencode(photo.relative_to(folder).as_posix()))
        digest.update(hashlib.sha256(photo.read_bytes()).digest())
    return digest.hexdigest()


Masks = NDArray[np.bool_]


def digit_masks(digits: Bytes, margin: int = 0) -> Masks:
    """Return where digits (N, H, W) are above 0, with `margin` pixels of background added on every side.

    The mask is binary: grey values from antialiasing or resizing would give a dark outline around the digit.
    """
    sides = (margin, margin)
    return np.pad(digits > 0, ((0, 0), sides, sides))


def invert_under(crops: Bytes, masks: Masks) -> Bytes:
    """Return |crop - 255 * mask|: 255 - crop under the mask, and the crop elsewhere."""
    return np.where(masks, 255 - crops, crops)


def blend_over_photos(
    masks: Masks, members: NDArray[np.int64], photos: Sequence[Path], random: np.random.Generator, out: Bytes
) -> None:
    """Fill `out[members]` with random crops of random photos, inverted under `masks[members]`.

    Each photo is read once; one at a time is in memory.

    Args:
        masks: bool, shape (N, S, S).
        members: positions to fill.
        photos: image files of at least S x S pixels.
        random: generator of photos and positions, both uniform.
        out: uint8, shape (N, S, S, 3), written in place.

    Raises:
        InputError: a photo is unreadable, or smaller than S x S.
    """
    chosen = (random.random(len(members)) * len(photos)).astype(np.int64)
    places = random.random((len(members), 2))
    for index, photo in enumerate(photos):
        mine = np.flatnonzero(chosen == index)
        positions = members[mine]
        crops = cut(read_photo(photo, masks.shape[1]), places[mine], masks.shape[1])
        out[positions] = invert_under(crops, masks[positions][..., None])


def cut(photo: Bytes, places: NDArray[np.float64], size: int) -> Bytes:
    """Crop squares from one photo.

    Args:
        photo: uint8, shape (H, W, 3).
        places: shape (K, 2), the top left corner of each crop, from 0 (top, left) to below 1 (bottom, right).
        size: side of a crop in pixels.

    Returns:
        uint8, shape (K, size, size, 3).
    """
    room = np.array(photo.shape[:2]) - size + 1
    rows, columns = (places * room).astype(np.int64).T
    windows = sliding_window_view(photo, (size, size), axis=(0, 1))
    return windows[rows, columns].transpose(0, 2, 3, 1)


def read_photo(path: Path, smallest: int) -> Bytes:
    """Read a photo as RGB, shape (H, W, 3); raises InputError if it is unreadable or has a side below `smallest`."""
    photo = read_image(path)
    if min(photo.shape[:2]) < smallest:
        raise InputError(
            f"The photo {path} is {photo.shape[1]} x {photo.shape[0]} pixels, too small for crops of {smallest} x {smallest}; "
            "remove it or make it larger."
        )
    return np.broadcast_to(photo, (*photo.shape[:2], 3))
