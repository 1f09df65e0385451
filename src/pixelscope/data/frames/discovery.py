"""Find frames, their classes and kinds, and the masks beside them in folders."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pixelscope.data.formats.decode import SUFFIXES
from pixelscope.data.sources.listing import Contents, contents, not_read_notes, parts_among, passed_over_notes
from pixelscope.errors import InputError, abridged, note

Kind = Literal["normal", "abnormal"]

KINDS: dict[str, Kind] = {
    "normal": "normal",
    "healthy": "normal",
    "abnormal": "abnormal",
    # Kvasir; its normal-cecum, normal-pylorus and normal-z-line are known by how they begin.
    "dyed-lifted-polyps": "abnormal",
    "dyed-resection-margins": "abnormal",
    "esophagitis": "abnormal",
    "polyps": "abnormal",
    "ulcerative-colitis": "abnormal",
    # HyperKvasir, the labelled images.
    "barretts": "abnormal",
    "barretts-short-segment": "abnormal",
    # Poor views are not a disease, but they do not show healthy tissue either.
    "bbps-0-1": "abnormal",
    "bbps-2-3": "normal",
    "cecum": "normal",
    "esophagitis-a": "abnormal",
    "esophagitis-b-d": "abnormal",
    "hemorrhoids": "abnormal",
    "ileum": "normal",
    "impacted-stool": "abnormal",
    "pylorus": "normal",
    "retroflex-rectum": "normal",
    "retroflex-stomach": "normal",
    "ulcerative-colitis-0-1": "abnormal",
    "ulcerative-colitis-1-2": "abnormal",
    "ulcerative-colitis-2-3": "abnormal",
    "ulcerative-colitis-grade-0-1": "abnormal",
    "ulcerative-colitis-grade-1": "abnormal",
    "ulcerative-colitis-grade-1-2": "abnormal",
    "ulcerative-colitis-grade-2": "abnormal",
    "ulcerative-colitis-grade-2-3": "abnormal",
    "ulcerative-colitis-grade-3": "abnormal",
    "z-line": "normal",
}
"""Kind of classes known by their folder name; every name that starts with `normal-` is normal, too."""

RESERVED = ("all", "abnormal")
"""Names that no class of healthy frames may have next to abnormal ones: results use them for all frames of a kind."""


@dataclass(frozen=True)
class FoundFile:
    """An image file: a frame or a mask."""

    path: Path
    within: str
    """POSIX path relative to the class folder, or to the folder of masks."""
    owner: str
    """Class of the frame or of the mask."""


@dataclass(frozen=True)
class Found:
    """Content of folders, by names alone."""

    frames: list[FoundFile]
    masks: list[FoundFile]
    kinds: dict[str, Kind]
    """Kind of each class: normal classes first, then by name."""
    notes: tuple[str, ...] = ()
    """Notes on how folders were interpreted, and on files that are neither frames nor masks."""


def find_classes(
    folders: Sequence[Path], normal: Sequence[str] = (), abnormal: Sequence[str] = (), masks: Mapping[str, Path] | None = None
) -> Found:
    """Return the frames, masks and classes in `folders`, by folder names alone.

    A folder is a class if `KINDS`, `normal` or `abnormal` names it, or if it contains images; its frames may be at any depth.
    Folders of other names are searched for class folders. Folders named `masks`, or `NAME-masks` for the class NAME
    (`polyp-masks` for polyps), contain masks. A file named as a frame next to it and `_mask` (`7_mask.png` for `7.jpg`) is its
    mask. Folders named train, val, test, Training and so on (see `part_of`) are not
    classes, unless `normal` or `abnormal` names them: their files belong to the classes around or inside them.

    Args:
        folders: class folders, and folders of class folders.
        normal: names of further normal classes; they take precedence over `KINDS`.
        abnormal: names of further abnormal classes.
        masks: folders of masks with other names, by class.

    Raises:
        InputError: there are no frames; the kind of a class is unknown, unless it is the only one; class folders are nested;
            masks belong to no class; a given name does not exist; a healthy class has a name of `RESERVED`.
    """
    asked = _asked(normal, abnormal)
    given = {name: _folder(path) for name, path in (masks or {}).items()}
    masked = {path.resolve() for path in given.values()}
    listed = {folder: contents(folder) for folder in (*map(_folder, folders), *given.values())}
    parts = [_sort(folder, listed[folder].images, asked, masked, len(folders) > 1) for folder in map(_folder, folders)]
    frames = _unique([frame for part in parts for frame in part.frames])
    inner = [mask for part in parts for mask in part.masks]
    if not frames:
        what = "only masks" if inner else "no images"
        where = ", ".join(map(str, folders)) or "nothing"
        why = " ".join(_notes(listed, set()))
        text = f"There are {what} in {where}; give folders of .jpg or .png frames, one folder per class. {why}"
        raise InputError(text.rstrip())
    kinds = _kinds({frame.owner for frame in frames}, asked, alone=not inner and not given)
    named = [
        FoundFile(file, file.relative_to(folder).as_posix(), name)
        for name, folder in given.items()
        for file in listed[folder].images
    ]
    owned = [FoundFile(mask.path, mask.within, _owner(mask, kinds)) for mask in (*inner, *named)]
    halves = {name for part in parts for name in part.halves}
    return Found(frames, _unique(owned), kinds, _notes(listed, halves))


def _notes(listed: Mapping[Path, Contents], halves: set[str]) -> tuple[str, ...]:
    def below(lists: Callable[[Contents], Sequence[str]]) -> list[str]:
        prefixed = len(listed) > 1
        return [f"{folder.name}/{name}" if prefixed else name for folder, found in listed.items() for name in lists(found)]

    text = "Read as parts of a split, not as classes: {names}; their frames are joined and split again."
    return (
        *note(text, sorted(halves)),
        *not_read_notes(below(lambda found: found.others)),
        *passed_over_notes(below(lambda found: found.skipped), below(lambda found: found.own)),
    )


def _halves(folders: Collection[Path], asked: Mapping[str, Kind]) -> set[Path]:
    """Return the folders that are parts of a split, by their names and those of their siblings."""
    siblings: dict[Path, list[str]] = {}
    for folder in sorted(folders):
        siblings.setdefault(folder.parent, []).append(folder.name)
    known = {parent: parts_among([name for name in names if name not in asked]) for parent, names in siblings.items()}
    return {folder for folder in folders if folder.name in known[folder.parent]}


@dataclass(frozen=True)
class _Sorted:
    frames: list[FoundFile]
    masks: list[FoundFile]
    halves: set[str]
    """Names of the folders of frames that are parts of a split."""


def is_mask_folder(name: str) -> bool:
    """Return whether a folder of this name contains masks."""
    return _plain(name).endswith(("-masks", "-mask")) or _plain(name) in ("masks", "mask")


def _asked(normal: Sequence[str], abnormal: Sequence[str]) -> dict[str, Kind]:
    both = sorted(set(normal) & set(abnormal))
    if both:
        raise InputError(f"The class {both[0]!r} is given as normal and as abnormal; give it once.")
    kinds: dict[str, Kind] = dict.fromkeys(normal, "normal")
    kinds.update(dict.fromkeys(abnormal, "abnormal"))
    return kinds


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"There is no folder {path}; give a folder of frames, or of class folders.")
    # The name of the folder decides. `.` has no name; a link counts by the name of the link.
    return path if path.name not in ("", "..") else path.resolve()


def _kind(name: str, asked: Mapping[str, Kind]) -> Kind | None:
    if name in asked:
        return asked[name]
    return "normal" if _plain(name).startswith("normal-") else KINDS.get(_plain(name))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")


def _sort(folder: Path, files: Sequence[Path], asked: Mapping[str, Kind], given: set[Path], several: bool) -> _Sorted:
    """Return the frames and masks in a folder; a mask has the name of its class or frame.

    several: whether there are other folders, so that names start with the folder's own if it is part of a split.
    """
    chains = {here: _chain(folder, here) for here in {file.parent for file in files} if not _lies_in(here, given)}
    halves = _halves({part for chain in chains.values() for part in chain[1:]}, asked)
    holding = {_whole(here, halves) for here, chain in chains.items() if not any(is_mask_folder(part.name) for part in chain)}
    homes = {here: _home([part for part in chain if part not in halves], holding, asked) for here, chain in chains.items()}
    named = halves | (_halves({folder}, asked) if several else set())
    frames, masks = [], []
    for file in files:
        home, mask = homes.get(file.parent, (None, None))
        if mask is not None:
            owner = home.name if home else _named_by(mask.name)
            masks.append(FoundFile(file, _within(file, mask, chains[file.parent], named), owner))
        elif home is not None:
            frames.append(FoundFile(file, _within(file, home, chains[file.parent], named), home.name))
    frames, beside = _masks_beside(frames)
    masks += beside
    holding_frames = {part for file in frames for part in file.path.parents if part in named}
    return _Sorted(frames, masks, {part.name for part in holding_frames})


def _masks_beside(files: Sequence[FoundFile]) -> tuple[list[FoundFile], list[FoundFile]]:
    """Return the frames among files, and the masks: those named as a frame in the same folder, and a suffix of masks."""
    stems = {(file.owner, stem(file.within)) for file in files}
    frames: list[FoundFile] = []
    masks: list[FoundFile] = []
    for file in files:
        plain = without_mask_suffix(stem(file.within))
        (masks if plain is not None and (file.owner, plain) in stems else frames).append(file)
    return frames, masks


def _whole(folder: Path, halves: set[Path]) -> Path:
    """Return the folder that a part of a split belongs to; other folders are returned unchanged."""
    return next(part for part in (folder, *folder.parents) if part not in halves)


def _within(file: Path, home: Path, chain: Sequence[Path], halves: set[Path]) -> str:
    """Return a file's path relative to its class or mask folder, prefixed by the parts of a split around this folder."""
    around = [part.name for part in chain[: chain.index(home)] if part in halves]
    return PurePosixPath(*around, file.relative_to(home).as_posix()).as_posix()


def _lies_in(folder: Path, others: set[Path]) -> bool:
    return bool(others & {folder.resolve(), *folder.resolve().parents})


def _chain(folder: Path, here: Path) -> list[Path]:
    """Return the folders from `folder` down to `here`."""
    below = here.relative_to(folder).parts
    return [folder, *(folder.joinpath(*below[: i + 1]) for i in range(len(below)))]


def _home(chain: list[Path], holding: set[Path], asked: Mapping[str, Kind]) -> tuple[Path | None, Path | None]:
    """Return the class folder and the folder of masks that contain the last folder of a chain.

    Args:
        chain: folders, each inside the previous one.
        holding: folders that contain images, except those of masks.
        asked: kind by class name.
    """
    mask = next((part for part in chain if is_mask_folder(part.name)), None)
    above = chain if mask is None else chain[: chain.index(mask)]
    home = next((part for part in above if _kind(part.name, asked) or part in holding), None)
    if home is not None:
        _check_one_class(above[above.index(home) :], asked)
    return home, mask


def _named_by(mask_folder: str) -> str:
    plain = _plain(mask_folder)
    return plain.rpartition("-")[0] if "-" in plain else ""


def _check_one_class(chain: Sequence[Path], asked: Mapping[str, Kind]) -> None:
    home, *inner = chain
    for folder in inner:
        kind = _kind(folder.name, asked)
        if kind is not None and kind != _kind(home.name, asked):
            raise InputError(
                f"{home} is a class folder and contains another, {folder.relative_to(home)}; give each class its own folder, "
                "without images next to it."
            )


def _unique(files: Sequence[FoundFile]) -> list[FoundFile]:
    """Return the files without repetition, in the order of their names; folders may repeat or be nested."""
    by_name: dict[tuple[str, str], FoundFile] = {}
    for file in files:
        other = by_name.setdefault((file.owner, file.within), file)
        if other is not file and other.path.resolve() != file.path.resolve():
            raise InputError(
                f"Two files would have the name {file.owner}/{file.within}: {other.path} and {file.path}; rename one."
            )
    return [by_name[name] for name in sorted(by_name)]


def _kinds(classes: set[str], asked: Mapping[str, Kind], alone: bool) -> dict[str, Kind]:
    """Return the kind of each class; a single class (`alone`) of unknown kind is normal."""
    for name in asked:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=1) or sorted(classes)
            raise InputError(f"There is no class folder {name!r} with frames; the folders have {', '.join(close)}.")
    known: dict[str, Kind | None] = {name: _kind(name, asked) for name in classes}
    unknown = sorted(name for name, kind in known.items() if kind is None)
    if unknown and not (alone and len(classes) == 1):
        several = len(unknown) > 1
        names = abridged(map(repr, unknown), 10)
        raise InputError(
            f"The {'classes' if several else 'class'} {names} {'are' if several else 'is'} not known; state for each whether "
            f"it is healthy: --normal {unknown[0]} or --abnormal {unknown[0]}."
        )
    kinds: dict[str, Kind] = {name: kind or "normal" for name, kind in known.items()}
    reserved = next((name for name in RESERVED if kinds.get(name) == "normal"), None)
    if reserved is not None and "abnormal" in kinds.values():
        raise InputError(f"Results call all frames of a kind {reserved!r}; rename the class folder {reserved!r}.")
    return dict(sorted(kinds.items(), key=lambda item: (item[1] != "normal", item[0])))


def _owner(mask: FoundFile, kinds: Mapping[str, Kind]) -> str:
    """Return the class that a mask belongs to, by the name under which it was found."""
    found = list(_candidates(mask.owner, kinds))
    if len(found) != 1:
        what = f"of the class {mask.owner!r}" if mask.owner else "named `masks`"
        reason = f"could be of {' or '.join(found)}" if found else "belong to no class that is given"
        raise InputError(f"The masks {what} ({mask.path.parent}) {reason}; name their folder CLASS-masks, or leave them out.")
    return found[0]


def _candidates(owner: str, kinds: Mapping[str, Kind]) -> Iterator[str]:
    if owner in kinds:
        yield owner
    elif owner:
        names = {_plain(owner), f"{_plain(owner)}s", _plain(owner).removesuffix("s")}
        yield from (name for name in kinds if _plain(name) in names)
    elif len(kinds) == 1:
        yield from kinds
    else:
        yield from (name for name, kind in kinds.items() if kind == "abnormal")


def stem(within: str) -> str:
    """Return a file's path without suffix, which mask and frame share."""
    return PurePosixPath(within).with_suffix("").as_posix()


_MASK_SUFFIXES = ("_mask", "-mask", "_segmentation")
"""What follows the name of a frame in the name of its mask."""


def without_mask_suffix(name: str) -> str | None:
    """Return a name without the suffix of a mask; None if it has none."""
    return next((name[: -len(suffix)] for suffix in _MASK_SUFFIXES if name.lower().endswith(suffix)), None)


def is_mask_of_a_frame(path: Path, within: str) -> bool:
    """Return whether an image is a mask by its name: in a folder of masks, or next to the frame that it is named after.

    Args:
        path: the image.
        within: its POSIX path relative to the searched folder.
    """
    if any(is_mask_folder(name) for name in PurePosixPath(within).parts[:-1]):
        return True
    plain = without_mask_suffix(path.stem)
    return plain is not None and any(
        path.with_name(plain + suffix).exists() for known in SUFFIXES for suffix in (known, known.upper())
    )
