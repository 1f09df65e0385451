"""List the contents of a folder by names alone: images, other files, and skipped files."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pixelscope.data.formats.decode import SUFFIXES, further_pages
from pixelscope.data.formats.dicom import windows
from pixelscope.errors import NAMED, InputError, note, plural

OTHER_PROGRAMS = frozenset(
    (
        # macOS: zips, icons, volumes.
        *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        # Synology and QNAP: thumbnails, recycle bins, snapshots.
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
        # Windows.
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"),
        *("lost+found", "__pycache__"),
    )
)
"""Files and folders that other programs leave among images, in lower case."""

OWN_MARK = ".pixelscope"
"""File that marks a folder as results of this package."""

RENDER_RECORD = "pixelscope-render.json"
"""File in a folder of rendered images that records how they were made."""
PHANTOM_RECORD = "phantom.json"
"""File in a folder of synthetic frames that records how they were made."""

_OWN_FOLDERS = (
    frozenset((OWN_MARK,)),
    frozenset(("manifest.csv.part",)),
    frozenset(("run.json", "config.yaml")),
    frozenset(("pack.json", "images.npy")),
    frozenset(("index.json", "frames.npy")),
)
"""Sets of files that identify a folder as ours: results, unfinished results, a run, a pack, a frame store."""

_UNFINISHED = tuple(f".{form}.part{ending}" for form in ("csv", "jsonl") for ending in ("", ".json", ".lock"))

_PARTS: dict[str, "Part"] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PART = re.compile(rf"({'|'.join(_PARTS)})([-_ .]?(set|split|data|images?|imgs?|[0-9]+))?")

Part = Literal["train", "validation", "test"]
Kind = Literal["image", "other", "folder", "skipped", "own"]


class Entry(NamedTuple):
    """A file or folder."""

    path: Path
    name: str
    """POSIX path relative to the listed folder."""
    kind: Kind
    """`other`: not an image; `skipped`: hidden or of another program; `own`: a result of this package."""


@dataclass(frozen=True)
class Contents:
    """Contents of a folder, at any depth."""

    images: list[Path]
    """Image files, sorted by their POSIX names relative to the folder."""
    names: list[str]
    """Names of the images, relative to the folder."""
    folders: list[str]
    others: list[str]
    """Files that are not images, by name."""
    skipped: list[str]
    """Files and folders skipped by name; a folder ends in `/` and is not entered."""
    own: list[str]
    """Results of this package, which are never inputs; a folder ends in `/` and is not entered."""

    def children(self, parent: str = "") -> list[str]:
        """Return the names of the folders directly in `parent`, without those that only have results of this package."""
        depth = parent.count("/") + 1 if parent else 0
        inside = [name for name in self.folders if name.count("/") == depth and name.startswith(f"{parent}/" if parent else "")]
        return [name.rpartition("/")[2] for name in inside if self.holds_images(name) or not self._is_ours(name)]

    @cached_property
    def _filled(self) -> frozenset[str]:
        homes = {name.rpartition("/")[0] for name in self.names}
        return frozenset(str(folder) for home in homes for folder in (PurePosixPath(home), *PurePosixPath(home).parents))

    def holds_images(self, folder: str) -> bool:
        """Return whether an image is in a folder, at any depth."""
        return folder in self._filled

    def notes(self, used: Collection[str] = ()) -> tuple[str, ...]:
        """Return notes on files that were not read, by name and count; `used` are other files that were."""
        others = [name for name in self.others if name not in used]
        return (*not_read_notes(others), *passed_over_notes(self.skipped, self.own))

    def _is_ours(self, folder: str) -> bool:
        return any(name.startswith(f"{folder}/") for name in self.own)


def contents(folder: Path) -> Contents:
    """List a folder at any depth; raises InputError if a sub-folder cannot be read."""
    found: dict[Kind, list[Entry]] = {"image": [], "other": [], "folder": [], "skipped": [], "own": []}
    for entry in scan(folder):
        found[entry.kind].append(entry)
    images = sorted(found["image"], key=lambda entry: entry.name)
    named = {kind: sorted(entry.name for entry in entries) for kind, entries in found.items()}
    return Contents(
        [entry.path for entry in images],
        [entry.name for entry in images],
        named["folder"],
        named["other"],
        named["skipped"],
        named["own"],
    )


def image_files(folder: Path) -> list[Path]:
    """Return the image files in `folder` at any depth, sorted by their POSIX names."""
    return contents(folder).images


def scan(folder: Path) -> Iterator[Entry]:
    """Yield the contents of a folder at any depth, sorted by name per folder; only one folder's names are in memory."""
    return _scan(folder, "")


def _scan(folder: Path, inner: str) -> Iterator[Entry]:
    found = _entries(folder)
    if inner and _is_own_folder(folder, {name for name, _, _ in found}):
        yield Entry(folder, inner, "own")
        return
    if inner:
        yield Entry(folder, inner.removesuffix("/"), "folder")
    for name, is_folder, is_file in found:
        path, within = folder / name, inner + name
        if is_passed_over(name) or (is_folder and is_symlink_loop(path)):
            yield Entry(path, within + "/" * is_folder, "skipped")
        elif is_file and _is_own_file(path):
            yield Entry(path, within, "own")
        elif is_folder:
            yield from _scan(path, f"{within}/")
        else:
            yield Entry(path, within, "image" if is_file and path.suffix.lower() in SUFFIXES else "other")


def _entries(folder: Path) -> list[tuple[str, bool, bool]]:
    """Return the name of each entry of a folder, and whether it is a folder or a file; a broken link counts as a file."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir(), entry.is_file() or entry.is_symlink()) for entry in entries)
    except OSError as error:
        raise InputError(
            f"Cannot list the folder {folder}: {error.strerror}; change its permissions, or move it away."
        ) from None


def by_ending(names: Sequence[str]) -> str:
    """Return the number of files per suffix, most frequent first."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in names)
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(NAMED))


def is_passed_over(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or left by another program."""
    return name.startswith((".", "~$")) or name.lower() in OTHER_PROGRAMS


def part_of(name: str) -> Part | None:
    """Return the part of a split that a folder name means: train, Training, val, test_set, ...; None if it means none."""
    match = _PART.fullmatch(name.lower())
    return None if match is None else _PARTS[match[1]]


def parts_among(names: Sequence[str]) -> dict[str, Part]:
    """Return the parts of a split among sibling folders, also after a common prefix: seg_train, seg_test."""
    first = min(names, default="")
    ends = [end for end in range(1, len(first) + 1) if first[end - 1] in "-_. "]
    start = next((first[:end] for end in reversed(ends) if all(name.startswith(first[:end]) for name in names)), "")
    plain: dict[str, Part] = {name: part for name in names if (part := part_of(name)) is not None}
    prefixed: dict[str, Part] = {name: part for name in names if (part := part_of(name.removeprefix(start))) is not None}
    return prefixed if len(set(prefixed.values())) > 1 else plain


def is_symlink_loop(folder: Path) -> bool:
    """Return whether a link leads to a folder that contains it, so that walking would never end."""
    here = folder.parent.resolve()
    return folder.is_symlink() and folder.resolve() in (here, *here.parents)


def not_read_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on files that are no images by their names."""
    return note(f"Not read, as no images by their names: {{count:file}} ({by_ending(names)}): {{names}}.", names)


def passed_over_notes(skipped: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Return notes on skipped files: files of other programs by number only, and results of this package.

    Records of how the images were made are not mentioned.
    """
    folders = sum(name.endswith("/") for name in skipped)
    return (
        *note(
            f"Passed over, as hidden, of another program or a link to a folder around it: {plural(folders, 'folder')}, "
            f"{plural(len(skipped) - folders, 'file')}.",
            skipped,
        ),
        *note("Skipped results of Pixelscope: {count} ({names}).", [name for name in own if not _is_record(name)]),
    )


def is_render_record(name: str) -> bool:
    """Return whether this POSIX path names a record of rendered images."""
    return name.rpartition("/")[2] == RENDER_RECORD


def _is_record(name: str) -> bool:
    """Return whether this POSIX path names a record of how images were made."""
    return name.rpartition("/")[2] in (RENDER_RECORD, PHANTOM_RECORD)


def mark_as_own(folder: Path) -> None:
    """Mark a folder as results of this package, so that its files are never inputs; it is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OWN_MARK).touch()


def _is_own_folder(folder: Path, names: set[str]) -> bool:
    if any(marks <= names for marks in _OWN_FOLDERS):
        return True
    return "manifest.csv" in names and _is_result(folder / "manifest.csv")


def _is_own_file(path: Path) -> bool:
    return (
        _is_record(path.name)
        or path.name.endswith(_UNFINISHED)
        or (path.suffix.lower() in (".csv", ".jsonl") and _is_result(path))
    )


def _is_result(path: Path) -> bool:
    """Return whether this package wrote a table, by its first line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline(10_000)
        columns = list(json.loads(line)) if path.suffix.lower() == ".jsonl" else next(csv.reader([line]), [])
    except (OSError, ValueError, TypeError, csv.Error):
        return False
    return (len(columns) > 2 and (columns[0], columns[-1]) == ("name", "error")) or columns[:2] == ["source", "file"]


def reading_notes(files: Mapping[Path, str]) -> tuple[str, ...]:
    """Return notes on files of several pages, and on DICOM files.

    files: the name to print of each file.
    """
    paged = further_pages(list(files))
    text = (
        f"Read only the first page of {{count:file}}, of {plural(sum(paged.values()), 'further page')}: {{names}}; "
        "`pixelscope data pages` writes every page as a file."
    )
    return (
        *note(text, [files[path] for path in paged]),
        *window_notes({files[path]: how for path, how in windows(list(files)).items()}),
    )


def window_notes(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return notes on DICOM files: by name, the window that was applied, or "" if there is none."""
    windowed = [f"{name} ({window})" for name, window in found.items() if window]
    return (
        *note("DICOM files, shown through the window that they store: {count}: {names}.", windowed),
        *note(
            "DICOM files without a window, shown from their minimum to their maximum: {count}: {names}.",
            [name for name, window in found.items() if not window],
        ),
    )
