"""Where images come from: `load` turns a source, `KIND:PATH`, `PATH` or `KIND`, into an ImageSet.

Each kind has one file, and `SOURCES` lists all kinds.
"""

import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixelscope.errors import InputError

if TYPE_CHECKING:
    from pixelscope.data.imageset import ImageSet


@dataclass(frozen=True)
class Options:
    """How a source is read."""

    size: int | None = 32
    """Side in pixels to which images are resized; None keeps their own size, which must be one for all."""
    strict: bool = False
    """Refuse a folder with an unreadable image, instead of skipping and counting it."""
    data_root: Path | None = None
    """Folder in which a kind alone is looked for, and downloaded to."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images deeper than 8 bits; None detects them."""

    @property
    def root(self) -> Path:
        """Return the data root: the option, else $PIXELSCOPE_DATA, else the user's cache folder."""
        if self.data_root is not None:
            return self.data_root
        if os.environ.get("PIXELSCOPE_DATA"):
            return Path(os.environ["PIXELSCOPE_DATA"])
        caches = Path("~/Library/Caches") if sys.platform == "darwin" else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        return caches.expanduser() / "pixelscope"


def _mnist(path: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources import mnist

    folder = Path(path) if path else mnist.folder_in(options.root)
    return mnist.load_mnist(folder, options.size)


def _mnist_m(path: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources import mnist_m

    return mnist_m.load_mnist_m(Path(path) if path else mnist_m.path_in(options.root), options.size)


def _arrays(path: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources import mnist, mnist_m
    from pixelscope.data.sources.arrays import load_arrays
    from pixelscope.imaging.resize import resize

    path, settings = split_settings(path)
    file = require_path("arrays", path, "a .mat, .npz or .npy file")
    if file.suffix.lower() == ".npz" and mnist_m.is_generated(file):
        return mnist_m.load_mnist_m(file, options.size)
    images = mnist.with_known_digits(load_arrays(file, None, settings, options.value_range))
    return images if options.size is None else replace(images, images=resize(images.in_memory(), options.size))


def _folder(path: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources.folder import load_folder

    return load_folder(require_path("folder", path, "a folder of images"), options.size, options.strict, options.value_range)


def _pack(path: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources.packed import load_pack

    return load_pack(require_path("pack", path, "a folder made by `pixelscope data pack`"), options.size, options.value_range)


def _demo(name: str, options: Options) -> "ImageSet":
    from pixelscope.data.sources.demo import load_demo

    return load_demo(name, options.size)


SOURCES: dict[str, "Callable[[str, Options], ImageSet]"] = {
    "mnist": _mnist,
    "mnist-m": _mnist_m,
    "arrays": _arrays,
    "folder": _folder,
    "pack": _pack,
    "demo": _demo,
}
"""The function that reads each kind of source, given the part after `KIND:` (empty for a kind alone)."""


def load(
    source: str,
    *,
    size: int | None = 32,
    strict: bool = False,
    data_root: Path | None = None,
    value_range: tuple[float, float] | None = None,
) -> "ImageSet":
    """Read images from `source`.

    Args:
        source: `KIND:PATH`; or a PATH, whose kind is detected from its files; or a KIND alone, read from the data root
            (and downloaded to it where an address is known). Arrays may be followed by @ and settings, as in
            `arrays:digits.mat@H-W-N` and `arrays:a.npz@images=x,labels=y,range=0:16`; see `data.sources.arrays.ArraySettings`.
        size: side in pixels to which images are resized; None keeps their own size, which must be one for all.
        strict: refuse a folder with an unreadable image, instead of skipping and counting it.
        data_root: folder in which a KIND alone is looked up; default $PIXELSCOPE_DATA, else the user's cache folder.
        value_range: values mapped to black and white in images deeper than 8 bits; None detects one range for all of them.

    Raises:
        InputError: the source cannot be found or read as what it is.

    Example:
        >>> images = pixelscope.load_images("arrays:digits.mat@H-W-N", size=32)
        >>> images.images.shape
    """
    if size is not None and size < 1:
        raise InputError(f"Images cannot be resized to {size} pixels; give a size of at least 1.")
    kind, rest = parse(source)
    return with_range_note(SOURCES[kind](rest, Options(size, strict, data_root, value_range)), value_range)


def with_range_note(images: "ImageSet", given: tuple[float, float] | None) -> "ImageSet":
    """Return images with a note if a range was given and no image needs one."""
    from pixelscope.imaging.convert import unused_range_note

    about = images.provenance
    if given is None or about.value_range is not None:
        return images
    return replace(images, provenance=replace(about, notes=(*about.notes, unused_range_note(given))))


def parse(source: str) -> tuple[str, str]:
    """Return the kind of `source` and what follows it: a path, a name, or nothing.

    A kind's name alone means the kind, even where a file of that name exists; write ./mnist for such a file.
    """
    if source in SOURCES:
        return source, ""
    kind, colon, rest = source.partition(":")
    if colon and kind in SOURCES:
        # A shell leaves the ~ after a colon alone.
        return kind, str(Path(rest).expanduser()) if rest.startswith("~") else rest
    path = Path(split_settings(source)[0])
    if source and path.exists():
        return detect(path), source
    raise InputError(_unknown(source, kind if colon else source))


def split_settings(path: str) -> tuple[str, str | None]:
    """Return the path of arrays and the settings that may follow it after an @, as in `digits.mat@H-W-N`."""
    before, sign, settings = path.rpartition("@")
    return (path, None) if not sign or Path(path).exists() else (before, settings)


def detect(path: Path) -> str:
    """Return the kind of source at an existing `path`, by the names of its files and, for an .npz, its keys."""
    from pixelscope.data.sources import mnist, mnist_m
    from pixelscope.data.sources.packed import is_pack

    if path.is_dir():
        if is_pack(path):
            return "pack"
        if mnist.is_mnist(path):
            return "mnist"
        return "mnist-m" if mnist_m.is_original(path) else "folder"
    if path.suffix.lower() in (".npz", ".npy", ".mat"):
        return "mnist-m" if mnist_m.is_generated(path) else "arrays"
    raise InputError(f"{path} is not a source of images; give a folder, or a .mat, .npz or .npy file.")


def require_path(kind: str, path: str, what: str) -> Path:
    """Return the path after a kind; raises InputError if it is empty or does not exist."""
    if not path:
        raise InputError(f"{kind} needs a path; write {kind}:PATH with {what}.")
    if not Path(path).exists():
        raise InputError(f"There is no {path}; give the path of {what}.")
    return Path(path)


def _unknown(source: str, name: str) -> str:
    close = difflib.get_close_matches(name, SOURCES, n=1)
    suggestion = f" Did you mean {close[0]}?" if close else ""
    return (
        f"There is no file or folder {source!r} and no kind of source with that name.{suggestion} "
        f"Give a path, KIND:PATH or a KIND; kinds are {', '.join(SOURCES)}."
    )
