"""List frames in the order of classes and names, each with its mask, without duplicates."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelscope.data.formats.decode import map_files, read_content
from pixelscope.data.frames.discovery import Found, FoundFile, Kind, stem, without_mask_suffix
from pixelscope.data.sources.listing import reading_notes
from pixelscope.errors import InputError, note, printable

_NO_CONTENT = ("", hashlib.sha256().hexdigest())
"""Digests of unreadable and of empty files."""

_MASK_RULE = "masks 2"
"""Version of how masks are read; part of the key of stores with masks, so that a change makes them again."""


@dataclass(frozen=True)
class ListedFrame:
    """Files of a frame and of its mask, if any."""

    name: str
    """`CLASS/FILE`, printable."""
    label: int
    """Index into the classes."""
    path: Path
    sha256: str
    mask: Path | None = None
    mask_sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """Frames in the order of classes and names, without duplicates."""

    frames: tuple[ListedFrame, ...]
    kinds: dict[str, Kind]
    """Kind of each class; labels index it."""
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """Notes on files that are neither frames nor masks; not part of the key."""

    def key(self, version: int, settings: Mapping[str, Any]) -> str:
        """Return a SHA-256 of the version, the settings, the classes, and the names and contents of all files."""
        frames = [(frame.name, frame.label, frame.sha256, frame.mask_sha256) for frame in self.frames]
        described = [version, dict(settings), list(self.kinds.items()), frames, self.notes]
        described += [_MASK_RULE] if any(frame.mask is not None for frame in self.frames) else []
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def list_frames(found: Found, strict: bool = False) -> Listing:
    """Read every file once and list the frames.

    Duplicates in a class are kept once, under the first name, with the mask of any of them. A mask matches the frame of its
    class that has the same path without suffix, or else the same file name without suffix; `_mask`, `-mask` or `_segmentation`
    at the end of a mask's name is not part of it.

    Args:
        found: frames, masks and classes.
        strict: refuse a mask without a frame instead of skipping it.

    Raises:
        InputError: two classes have the same content; masks match no frames, or one frame twice.
    """
    digests = _digests([file.path for file in (*found.frames, *found.masks)])
    masks, orphans = _match(found)
    if strict and orphans:
        raise InputError(
            f"The mask {orphans[0].path} has no frame in the class {orphans[0].owner!r}; add it, or remove the mask."
        )
    kept, copies = _without_copies(found.frames, digests)
    labels = {name: label for label, name in enumerate(found.kinds)}
    by_content = {digests[frame.path]: mask for frame, mask in masks.items()}
    frames = [
        _listed(file, labels[file.owner], digests, masks.get(file, by_content.get(digests[file.path])))
        for file in sorted(kept, key=lambda file: (labels[file.owner], file.within))
    ]
    notes = (
        *note(
            f"Left out {{count}} of {len(found.frames)} files, the same as others of their class: {{names}}.",
            [_name(file) for file in copies],
        ),
        *note(
            f"Left out {{count}} of {len(found.masks)} masks, without a frame: {{names}}.", [mask.path.name for mask in orphans]
        ),
    )
    kinds: dict[str, Kind] = {printable(name): kind for name, kind in found.kinds.items()}
    return Listing(tuple(frames), kinds, notes, (*found.notes, *reading_notes({file.path: _name(file) for file in kept})))


def _listed(file: FoundFile, label: int, digests: Mapping[Path, str], mask: FoundFile | None) -> ListedFrame:
    return ListedFrame(
        name=_name(file),
        label=label,
        path=file.path,
        sha256=digests[file.path],
        mask=None if mask is None else mask.path,
        mask_sha256=None if mask is None else digests[mask.path],
    )


def _name(file: FoundFile) -> str:
    return printable(f"{file.owner}/{file.within}")


def _digests(paths: Sequence[Path]) -> dict[Path, str]:
    return dict(zip(paths, map_files(_digest, paths), strict=True))


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read, which preparation reports later."""
    content = read_content(path)
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _without_copies(frames: Sequence[FoundFile], digests: Mapping[Path, str]) -> tuple[list[FoundFile], list[FoundFile]]:
    """Return the first file of each content, and the others; all empty and unreadable files are kept."""
    first: dict[str, FoundFile] = {}
    kept, copies = [], []
    for file in frames:
        other = first.setdefault(digests[file.path], file)
        empty = digests[file.path] in _NO_CONTENT
        if other.owner != file.owner and not empty:
            raise InputError(
                f"{other.path} and {file.path} are the same file in two classes, {other.owner!r} and {file.owner!r}; remove it "
                "from one, because it would be on both sides of a comparison."
            )
        (kept if other is file or empty else copies).append(file)
    return kept, copies


def _match(found: Found) -> tuple[dict[FoundFile, FoundFile], list[FoundFile]]:
    """Return the mask of each frame that has one, and the masks without a frame."""
    by_stem: dict[tuple[str, str], set[FoundFile]] = defaultdict(set)
    for frame in found.frames:
        by_stem[frame.owner, stem(frame.within)].add(frame)
        by_stem[frame.owner, frame.path.stem].add(frame)
    masks: dict[FoundFile, FoundFile] = {}
    orphans = []
    for mask in found.masks:
        frames = next(
            (by_stem[mask.owner, name] for name in _frame_names(mask) if (mask.owner, name) in by_stem), set[FoundFile]()
        )
        if not frames:
            orphans.append(mask)
            continue
        _check_pair(mask, frames, masks)
        masks[min(frames, key=_name)] = mask
    _check_owners(found, masks, orphans)
    return masks, orphans


def _frame_names(mask: FoundFile) -> Iterator[str]:
    """Yield the names that the frame of a mask may have: paths without suffix, then file names without suffix."""
    for name in (stem(mask.within), mask.path.stem):
        yield name
        plain = without_mask_suffix(name)
        if plain is not None:
            yield plain


def _check_pair(mask: FoundFile, frames: set[FoundFile], masks: Mapping[FoundFile, FoundFile]) -> None:
    first = min(frames, key=_name)
    if len(frames) > 1:
        names = " and ".join(sorted(map(_name, frames))[:2])
        raise InputError(f"The mask {mask.path} could be of {names}; give each frame a unique name.")
    if first in masks:
        raise InputError(f"The frame {first.path} has two masks, {masks[first].path} and {mask.path}; remove one.")


def _check_owners(found: Found, masks: Mapping[FoundFile, FoundFile], orphans: Sequence[FoundFile]) -> None:
    matched = {frame.owner for frame in masks}
    for mask in orphans:
        if mask.owner not in matched:
            raise InputError(
                f"No mask matches a frame of the class {mask.owner!r}, for example {mask.path}; give masks the names of their "
                "frames."
            )
