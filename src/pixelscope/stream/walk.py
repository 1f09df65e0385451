"""The files below some paths, one after the other in a fixed order, however many there are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelscope.data.decode import SUFFIXES
from pixelscope.data.listing import passed_over_notes, scan
from pixelscope.errors import InputError


@dataclass(frozen=True)
class Item:
    """One file to go through."""

    path: Path
    inner: Path
    """Where it lies below the folder that was given, or, of several paths, below that folder's name; of a file its own name."""

    @property
    def name(self) -> str:
        """Return the path as a table has it: what is no text in it is escaped."""
        return self.path.as_posix().encode("utf-8", "backslashreplace").decode()

    @property
    def png(self) -> Path:
        """Return where a PNG made of it lies below the folder made: `a/1.png` of `a/1.png`, `a/1.jpg.png` of `a/1.jpg`."""
        return self.inner if self.inner.suffix == ".png" else self.inner.with_name(f"{self.inner.name}.png")

    @property
    def is_image(self) -> bool:
        """Say whether its name is that of an image."""
        return self.path.suffix.lower() in SUFFIXES


def walk(paths: Sequence[Path]) -> Iterator[Item]:
    """Give the files in `paths` in their order; a folder's at any depth, sorted by name folder by folder.

    In folders, what is hidden, of another program, or a result of this one is passed over; see `data.listing`. One folder's
    names are held in memory at a time. Raises InputError where a path does not exist, or a folder cannot be read.
    """
    require_paths(paths)
    several = len(paths) > 1
    for path in paths:
        if path.is_dir():
            inner = Path(path.name) if several else Path()
            yield from (Item(entry.path, inner / entry.name) for entry in scan(path) if entry.kind in ("image", "other"))
        else:
            yield Item(path, Path(path.name))


def count(paths: Sequence[Path]) -> int:
    """Return how many files `walk` gives, as far as they are there now."""
    return sum(1 for _ in walk(paths))


def passed_over(paths: Sequence[Path], out: Path) -> tuple[str, ...]:
    """Say what `walk` passes over in folders, with counts; of results, those that were there before the table `out`."""
    found: dict[str, list[str]] = {"skipped": [], "own": []}
    new = (out.resolve(), out.resolve().parent)
    for entry in (entry for path in paths if path.is_dir() for entry in scan(path)):
        if entry.kind in found and entry.path.resolve() not in new:
            found[entry.kind].append(Item(entry.path, Path()).name + "/" * entry.name.endswith("/"))
    return passed_over_notes(found["skipped"], found["own"])


def require_paths(paths: Sequence[Path]) -> None:
    """Raise InputError where no path is given, or one does not exist."""
    if not paths:
        raise InputError("No images are given; name image files, or folders of them.")
    for path in paths:
        if not path.exists():
            raise InputError(f"There is no {path}; name image files, or folders of them.")


def require_apart(paths: Sequence[Path]) -> None:
    """Raise InputError where files made of one path would overwrite those of another; see `Item.inner`."""
    names = [path.name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two of the paths are called {twice}, so that their files would collide; take one at a time.")
