"""Any folder of images, with labels where its structure has classes."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pixelscope.data.decode import image_files, read_readable
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.errors import InputError

_NAMED = 10
"""Skipped images that a note names; the others it counts."""


@dataclass(frozen=True)
class Layout:
    """What the structure of a folder says, before any image is opened."""

    files: list[Path]
    """Images, sorted by their names from the folder, in POSIX form."""
    names: list[str]
    """Those names."""
    classes: tuple[str, ...] = ()
    """Names of the class folders, sorted; none where the folder is unlabelled."""
    labels: list[int] | None = None
    """Each image's class; None where the folder is unlabelled."""
    test: list[bool] | None = None
    """Whether each image is in the folder `test`; None where the folder is not split into `train` and `test`."""


def load_folder(folder: Path, size: int | None = 32, strict: bool = False) -> ImageSet:
    """Read the images of a folder.

    Labelled, where there are two or more sub-folders and no image beside them: each is a class, and its images may
    lie at any depth. Unlabelled otherwise: images at any depth. Sub-folders `train` and `test` (and perhaps `val`,
    which counts as training) are no classes but a split, labelled where each has class folders and no image beside them.

    Args:
        folder: where the images are.
        size: side in pixels: the shorter side is resized to it, antialiased, and the centre is kept of the longer.
            None keeps the images' own size, which must be one for all.
        strict: refuse an unreadable image, rather than skip it and say so in the provenance.

    Returns:
        Grey images (N, 1, H, W) where all files are grey, else colour (N, 3, H, W).

    Raises:
        InputError: fewer than two images can be read, a class has none, or `strict` and an image cannot be read.
    """
    layout = find_images(folder)
    images, errors = read_readable(layout.files, size)
    if errors and strict:
        raise errors[min(errors)]
    kept = [position for position in range(len(layout.files)) if position not in errors]
    _check_enough(folder, kept, errors, layout)
    return ImageSet(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        provenance=Provenance(f"folder:{folder}", _title(folder, layout), notes=_notes(layout, errors)),
        labels=None if layout.labels is None else torch.tensor([layout.labels[i] for i in kept]),
        classes=layout.classes,
        names=[layout.names[i] for i in kept],
        test=None if layout.test is None else torch.tensor([layout.test[i] for i in kept]),
    )


def find_images(folder: Path) -> Layout:
    """Return what the structure of `folder` says.

    Raises InputError where it holds no images or a class folder holds none.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give a folder of images.")
    files = image_files(folder)
    if not files:
        raise InputError(f"There are no images in {folder}; put .png or .jpg files there, in one folder a class if labelled.")
    names = [file.relative_to(folder).as_posix() for file in files]
    children = _subfolders(folder)
    if any("/" not in name for name in names) or len(children) < 2:
        return Layout(files, names)
    if {"train", "test"} <= set(children) <= {"train", "val", "test"}:
        return _split_layout(folder, files, names, children)
    classes = _classes(folder, names)
    return Layout(files, names, classes, [classes.index(name.split("/")[0]) for name in names])


def _split_layout(folder: Path, files: list[Path], names: list[str], halves: list[str]) -> Layout:
    for half in halves:
        if not any(name.startswith(f"{half}/") for name in names):
            raise InputError(f"The folder {folder / half} has no images; add some, or remove the folder.")
    test = [name.startswith("test/") for name in names]
    if any(name.count("/") < 2 for name in names):
        return Layout(files, names, test=test)
    inner = {half: [name.partition("/")[2] for name in names if name.startswith(f"{half}/")] for half in halves}
    classes = tuple(sorted({name for half in halves for name in _classes(folder / half, inner[half])}))
    return Layout(files, names, classes, [classes.index(name.split("/")[1]) for name in names], test)


def _classes(folder: Path, names: list[str]) -> tuple[str, ...]:
    """Return the class folders in `folder`; `names` are the images in it, from there."""
    children, filled = _subfolders(folder), {name.split("/")[0] for name in names}
    for child in children:
        if child not in filled:
            raise InputError(f"The class folder {folder / child} has no images; add some, or remove the folder.")
    return tuple(children)


def _subfolders(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _check_enough(folder: Path, kept: list[int], errors: dict[int, InputError], layout: Layout) -> None:
    if not kept:
        raise InputError(f"None of the {len(errors)} images in {folder} can be read; the first: {errors[min(errors)]}")
    if len(kept) == 1:
        raise InputError(f"{folder} has one readable image only, {layout.names[kept[0]]}; a set needs at least two.")
    if layout.labels is not None:
        left = {layout.labels[i] for i in kept}
        for index, name in enumerate(layout.classes):
            if index not in left:
                raise InputError(f"No image of the class {name!r} in {folder} can be read; mend some, or remove the folder.")


def _title(folder: Path, layout: Layout) -> str:
    name = folder.resolve().name
    return f"Images of {name}, {len(layout.classes)} classes" if layout.classes else f"Images of {name}, unlabelled"


def _notes(layout: Layout, errors: dict[int, InputError]) -> tuple[str, ...]:
    if not errors:
        return ()
    named = ", ".join(layout.names[i] for i in sorted(errors)[:_NAMED])
    more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return (f"Skipped {len(errors)} unreadable of {len(layout.files)} images: {named}{more}.",)
