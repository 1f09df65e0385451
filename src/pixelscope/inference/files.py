"""Iterate over input files in a fixed order; of several paths, only names are all in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pixelscope.data.formats.decode import SUFFIXES
from pixelscope.data.frames.discovery import is_mask_of_a_frame
from pixelscope.data.sources.folder import is_label_file
from pixelscope.data.sources.listing import Entry, not_read_notes, part_of, passed_over_notes, scan
from pixelscope.errors import InputError, note, plural, printable

In = TypeVar("In")
Out = TypeVar("Out")

MANIFEST = "manifest.csv"
"""Table in a folder of generated images: one row per file, with the image that it was made from."""
COLUMNS = ("source", "file", "label", "style")
"""Path of the input image, file in the folder, class of the image, and number of the noise sample; empty if unknown."""


@dataclass(frozen=True)
class InputFile:
    """One input file."""

    path: Path
    inner: Path
    """Path below the given folder; with several paths, prefixed by that folder's name; for a given file its name."""

    @property
    def name(self) -> str:
        """Return the path for a table, with undecodable bytes escaped."""
        return text_of(self.path)

    @property
    def png(self) -> Path:
        """Return the output path of a PNG made from it: `a/1.png` for `a/1.png`, `a/1.jpg.png` for `a/1.jpg`."""
        return self.inner if self.inner.suffix == ".png" else self.inner.with_name(f"{self.inner.name}.png")

    @property
    def is_image(self) -> bool:
        """Return whether it has the suffix of an image."""
        return self.path.suffix.lower() in SUFFIXES


def is_frame(entry: Entry) -> bool:
    """Return whether a file in a folder is a frame, by the rule of `endovae prepare`: an image, and no mask."""
    return entry.kind == "image" and not is_mask_of_a_frame(entry.path, entry.name)


def is_file(entry: Entry) -> bool:
    """Return whether an entry of a folder is a file that no other rule skips, and no label file."""
    return entry.kind in ("image", "other") and not is_label_file(entry.name)


def iterate_files(paths: Sequence[Path], takes: Callable[[Entry], bool] = is_file) -> Iterator[InputFile]:
    """Yield the files in `paths` in order; a folder's at any depth, sorted by name per folder.

    In folders, files that are hidden, of other programs, or results of this one are skipped; see `data.sources.listing`. A file
    in several of the paths is yielded once.

    Args:
        paths: files, which are all yielded, and folders.
        takes: which entries of folders are yielded.

    Raises:
        InputError: a path does not exist, or a folder cannot be read.
    """
    require_paths(paths)
    files = _given(paths, takes)
    yield from files if len(paths) == 1 else _distinct(files)


def _distinct(files: Iterable[InputFile]) -> Iterator[InputFile]:
    """Yield each file once, even if its folder is named in several ways; a link to a file is a file."""
    seen: set[str] = set()
    for item, place in _places(files):
        if place not in seen:
            seen.add(place)
            yield item


def _places(files: Iterable[InputFile]) -> Iterator[tuple[InputFile, str]]:
    """Yield each file with its path, of which the folder has no links."""
    folders: dict[Path, Path] = {}
    for item in files:
        parent = item.path.parent
        if parent not in folders:
            folders[parent] = parent.resolve()
        yield item, str(folders[parent] / item.path.name)


def _given(paths: Sequence[Path], takes: Callable[[Entry], bool]) -> Iterator[InputFile]:
    """Yield the files in `paths`, as often as they are in them."""
    several = len(paths) > 1
    for path in paths:
        if path.is_dir():
            inner = Path(_folder_name(path)) if several else Path()
            yield from (InputFile(entry.path, inner / entry.name) for entry in scan(path) if takes(entry))
        else:
            yield InputFile(path, Path(path.name))


def _folder_name(folder: Path) -> str:
    """Return the name of a folder, also where its path ends in `.` or `..`."""
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def count_files(paths: Sequence[Path], takes: Callable[[Entry], bool] = is_file) -> int:
    """Return the number of files that `iterate_files` yields at present."""
    return sum(1 for _ in iterate_files(paths, takes))


def repeated_notes(paths: Sequence[Path], takes: Callable[[Entry], bool] = is_file) -> tuple[str, ...]:
    """Return a note on the files that are in several of the paths, with their number."""
    if len(paths) == 1:
        return ()
    given = [place for _, place in _places(_given(paths, takes))]
    repeated = len(given) - len(set(given))
    return (f"{plural(repeated, 'file')} given more than once: each is read once.",) if repeated else ()


def skipped_notes(paths: Sequence[Path], out: Path, takes: Callable[[Entry], bool] = is_file) -> tuple[str, ...]:
    """Return notes on files that `iterate_files` skips in folders, with counts; of results only those older than `out`.

    Label files have none: they belong to the images.
    """
    found: dict[str, list[str]] = {"skipped": [], "own": [], "image": [], "other": []}
    new = (out.resolve(), out.resolve().parent)
    for entry in (entry for path in paths if path.is_dir() for entry in scan(path)):
        skipped = entry.kind in found and not takes(entry) and not is_label_file(entry.name)
        if skipped and entry.path.resolve() not in new:
            found[entry.kind].append(InputFile(entry.path, Path()).name + "/" * entry.name.endswith("/"))
    return (
        *not_read_notes(found["other"]),
        *note("Skipped {count:mask}: {names}.", found["image"]),
        *passed_over_notes(found["skipped"], found["own"]),
    )


def require_paths(paths: Sequence[Path]) -> None:
    """Raise InputError if no path is given, or one does not exist."""
    if not paths:
        raise InputError("No images are given; give image files, or folders of them.")
    for path in paths:
        if not path.exists():
            raise InputError(f"There is no {path}; give image files, or folders of them.")


def require_files(paths: Sequence[Path], takes: Callable[[Entry], bool] = is_file) -> None:
    """Raise InputError if there is nothing to process in `paths`; see `iterate_files`."""
    if next(iterate_files(paths, takes), None) is None:
        raise InputError(f"There are no images in {', '.join(map(str, paths))}; give image files, or folders of them.")


def require_distinct_names(paths: Sequence[Path], takes: Callable[[Entry], bool] = is_file) -> None:
    """Raise InputError if the PNG made from one file would overwrite that from another; see `InputFile.png`."""
    names = [_folder_name(path) if path.is_dir() else InputFile(path, Path(path.name)).png.name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two of the paths are called {twice}, so their files would collide; process one at a time.")
    folders = [path for path in paths if path.is_dir()]
    for item in iterate_files(folders, takes) if folders else ():
        other = InputFile(item.path.with_suffix(""), item.inner.with_suffix(""))
        if item.png == other.png and other.is_image and other.path.is_file():
            raise InputError(f"The files of {item.path} and {other.path.name} would have one name; rename one of them.")


def label_of(item: InputFile) -> str:
    """Return the class of an image by its topmost folder, "" if it has none; a folder that is a part of a split is no class."""
    folders = [name for name in item.inner.parts[:-1] if part_of(name) is None]
    return text_of(Path(folders[0])) if folders else ""


def text_of(path: Path) -> str:
    """Return a path for a table, with undecodable bytes escaped."""
    return printable(path.as_posix())


def in_order(function: Callable[[In], Out], items: Iterable[In], workers: int, ahead: int) -> Iterator[Out]:
    """Yield `function(item)` for each item in order, computed by `workers` threads, at most `ahead` items in advance.

    An exception of `function` is raised instead of returning its result. Items are taken from the caller's thread.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Yield lists of `size` items; the last one may be shorter."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch
