"""Frames to prepare, with what each file contains: the basis of a store's key."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelscope.data.decode import further_pages
from pixelscope.data.frame_classes import Found, FoundFile, Kind, stem
from pixelscope.data.listing import note
from pixelscope.errors import InputError

_NO_CONTENT = ("", hashlib.sha256().hexdigest())
"""Digests of files that are unreadable, or empty."""

_MASK_RULE = "masks 2"
"""How masks are read; a part of the key of stores that have any, so that they are made again where the rule has changed."""


@dataclass(frozen=True)
class ListedFrame:
    """A frame's file, and its mask's where it has one."""

    name: str
    """`CLASS/FILE`."""
    label: int
    """Index into the classes."""
    path: Path
    sha256: str
    mask: Path | None = None
    mask_sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """Frames in the order of their classes and names, each content once."""

    frames: tuple[ListedFrame, ...]
    kinds: dict[str, Kind]
    """The kind of each class; labels count along it."""
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """Notes on files that are neither frames nor masks; they are no part of the key."""

    def key(self, version: int, settings: Mapping[str, Any]) -> str:
        """Return a SHA-256 over the version, the settings, the classes, and names and contents of all files."""
        frames = [(frame.name, frame.label, frame.sha256, frame.mask_sha256) for frame in self.frames]
        described = [version, dict(settings), list(self.kinds.items()), frames, self.notes]
        described += [_MASK_RULE] if any(frame.mask is not None for frame in self.frames) else []
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def list_frames(found: Found, strict: bool = False) -> Listing:
    """Read every file once and list the frames.

    A content that appears twice in one class is kept once, under the first name. A mask is matched to the frame of its
    class with the same path but for the ending, or else with the same file name but for the ending.

    Args:
        found: frames, masks and classes.
        strict: refuse a mask without a frame, rather than leave it out and count it.

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
    frames = [
        ListedFrame(
            name=_name(file),
            label=labels[file.owner],
            path=file.path,
            sha256=digests[file.path],
            mask=masks[file].path if file in masks else None,
            mask_sha256=digests[masks[file].path] if file in masks else None,
        )
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
    return Listing(tuple(frames), found.kinds, notes, (*found.notes, *_page_notes(kept)))


def _page_notes(frames: Sequence[FoundFile]) -> tuple[str, ...]:
    paged = further_pages([file.path for file in frames])
    text = f"Read the first page alone of {{count}} files, of {sum(paged.values()):,} further pages: {{names}}."
    return note(text, [_name(file) for file in frames if file.path in paged])


def _name(file: FoundFile) -> str:
    return f"{file.owner}/{file.within}"


def _digests(paths: Sequence[Path]) -> dict[Path, str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(_digest, paths), strict=True))


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; nothing where it cannot be read, which its preparation then says."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _without_copies(frames: Sequence[FoundFile], digests: Mapping[Path, str]) -> tuple[list[FoundFile], list[FoundFile]]:
    """Return the first file of each content, and the others; empty and unreadable files are all kept."""
    first: dict[str, FoundFile] = {}
    kept, copies = [], []
    for file in frames:
        other = first.setdefault(digests[file.path], file)
        empty = digests[file.path] in _NO_CONTENT
        if other.owner != file.owner and not empty:
            raise InputError(
                f"{other.path} and {file.path} are the same file in two classes, {other.owner!r} and {file.owner!r}; remove it "
                "from one, or it would stand on both sides of a comparison."
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
        frames = by_stem.get((mask.owner, stem(mask.within))) or by_stem.get((mask.owner, mask.path.stem), set())
        if not frames:
            orphans.append(mask)
            continue
        _check_pair(mask, frames, masks)
        masks[min(frames, key=_name)] = mask
    _check_owners(found, masks, orphans)
    return masks, orphans


def _check_pair(mask: FoundFile, frames: set[FoundFile], masks: Mapping[FoundFile, FoundFile]) -> None:
    first = min(frames, key=_name)
    if len(frames) > 1:
        names = " and ".join(sorted(map(_name, frames))[:2])
        raise InputError(f"The mask {mask.path} could be of {names}; give each frame a name of its own.")
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
