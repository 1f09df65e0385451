"""The frame store: prepared frames on disk, with an index, arrays and a summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError

from pixelscope.config import Config, Natural
from pixelscope.data.disk_array import evenly_spaced
from pixelscope.data.frames.discovery import Kind
from pixelscope.data.frames.duplicates import DISTANCE, clusters
from pixelscope.data.frames.preprocess import CENTRE_SIZE, Stages, View, ViewName, read_stages
from pixelscope.errors import InputError, plural, printable
from pixelscope.files import UNREADABLE, find_link
from pixelscope.imaging.config import MIN_LESION, PrepareConfig
from pixelscope.imaging.convert import sheet_html
from pixelscope.runs.record import ResultFile

VERSION = 3
"""Version of format and preprocessing. It changes when frames would be prepared otherwise, so that runs need a new store; not
for a few pixels of masks, or for files that were read wrongly before."""

INDEX = "index.json"
FIGURES = "figures.npz"

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]
Length = Annotated[int, Field(ge=0, lt=2**31)]
"""Pixels along a side of an original."""
Rectangle = tuple[Length, Length, Length, Length]
Read = TypeVar("Read")


class InsetRecord(Config):
    """An inset of an original frame."""

    kind: Literal["green", "black"]
    box: Rectangle
    """Left, top, width and height, in the original's pixels."""


class FrameRecord(Config):
    """Index entry of one stored frame."""

    name: str
    label: Natural
    content: Rectangle
    size: tuple[Length, Length]
    insets: tuple[InsetRecord, ...]
    lesion: bool
    sha256: str
    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class SkippedFile(Config):
    """A file without a usable frame."""

    name: str
    reason: Literal["unreadable", "black", "small"]
    message: Annotated[str, AfterValidator(printable)]
    """Error message of a strict preparation."""


class StoreIndex(Config):
    """The index of a store."""

    version: int
    key: str
    settings: PrepareConfig
    kinds: dict[str, Kind]
    notes: tuple[str, ...]
    left_out: tuple[SkippedFile, ...]
    frames: tuple[FrameRecord, ...]


@dataclass(frozen=True, eq=False)
class FrameStore:
    """Prepared frames of one or more classes.

    frames: uint8, shape (N, size, size, 3), RGB, memory-mapped.
    insets: uint8, shape (N, size, size), 1 inside an inset, memory-mapped.
    lesions: uint8, shape (N, size, size), 1 inside a lesion, memory-mapped; see `has_lesion`.
    centre, centre_insets, centre_lesions: the same of the centre view, at 224 pixels; see `view`.
    """

    path: Path
    index: StoreIndex
    frames: Bytes
    insets: Bytes
    lesions: Bytes
    centre: Bytes
    centre_insets: Bytes
    centre_lesions: Bytes
    settings: PrepareConfig
    """How the frames were prepared."""
    classes: tuple[str, ...]
    """Names of the classes, the normal ones first."""
    kinds: tuple[Kind, ...]
    """Kind of each class."""
    names: tuple[str, ...]
    """Name of each frame, `CLASS/FILE`."""
    labels: Positions
    """Class of each frame, int64 (N,), an index into `classes`."""
    abnormal: NDArray[np.bool_]
    """Whether each frame's class is abnormal, bool (N,)."""
    has_lesion: NDArray[np.bool_]
    """Whether each frame has a mask, bool (N,); without one, its `lesions` are all 0."""
    sizes: Positions
    """Width and height of the originals, int64 (N, 2)."""
    hashes: NDArray[np.uint64]
    """Perceptual hash of each prepared frame, uint64 (N,)."""

    @classmethod
    def open(cls, path: Path) -> FrameStore:
        """Open the store in the folder `path`.

        Raises:
            InputError: it is not a store, is of another version, or is damaged.
        """
        path = Path(path)
        index = read_index(path)
        records, kinds = index.frames, tuple(index.kinds.values())
        labels = np.array([frame.label for frame in records], np.int64)
        return cls(
            path,
            index,
            **{name: _array(path, name, shape) for name, shape in array_shapes(len(records), index.settings.size).items()},
            settings=index.settings,
            classes=tuple(index.kinds),
            kinds=kinds,
            names=tuple(frame.name for frame in records),
            labels=labels,
            abnormal=np.array([kind == "abnormal" for kind in kinds], bool)[labels],
            has_lesion=np.array([frame.lesion for frame in records], bool),
            sizes=np.array([frame.size for frame in records], np.int64).reshape(-1, 2),
            hashes=np.array([int(frame.hash, 16) for frame in records], np.uint64),
        )

    @staticmethod
    def is_store(path: Path) -> bool:
        """Return whether `path` is a frame store, by the name of its index."""
        return (path / INDEX).is_file()

    def __reduce__(self) -> tuple[Callable[[Path], FrameStore], tuple[Path]]:
        # Only the path is sent to another process, because NumPy would send all mapped arrays.
        return FrameStore.open, (self.path,)

    def __len__(self) -> int:
        return len(self.index.frames)

    def __repr__(self) -> str:
        size, names = self.settings.size, ", ".join(self.classes[:6]) + (", ..." if len(self.classes) > 6 else "")
        return f"<FrameStore: {plural(len(self), 'frame')} of {size} x {size} pixels, {names}, {self.path}>"

    def _repr_html_(self) -> str:
        """Return a contact sheet: up to eight frames per class, of the first ten classes."""
        members = [np.flatnonzero(self.labels == label) for label in range(len(self.classes))][:10]
        rows = [(self.classes[label], self.frames[evenly_spaced(found, 8)]) for label, found in enumerate(members)]
        return sheet_html(f"{plural(len(self), 'frame')} in {self.path}", rows)

    def view(self, name: ViewName) -> View:
        """Return all frames in one view: `full`, or `centre`, which holds no border and no inset; see `preprocess.centre_box`.

        Raises:
            InputError: there is no such view.
        """
        if name == "full":
            return View(name, self.frames, self.insets, self.lesions)
        if name == "centre":
            return View(name, self.centre, self.centre_insets, self.centre_lesions)
        raise InputError(f"There is no view {name!r}; choose full or centre.")

    def hides_lesion(self, name: ViewName, least: float = MIN_LESION) -> NDArray[np.bool_]:
        """Return the abnormal frames whose mask covers less than the fraction `least` of a view, bool (N,)."""
        lesions, hidden = self.view(name).lesions, self.abnormal & self.has_lesion
        for position in np.flatnonzero(hidden):
            hidden[position] = np.mean(lesions[position] > 0) < least
        return hidden

    def clusters(self, positions: Positions, distance: int = DISTANCE) -> Positions:
        """Return the cluster of near-duplicates of some frames, int64 (N,), by hashes and names; see `duplicates.clusters`."""
        return clusters(self.hashes[positions], distance, [self.names[i] for i in positions])

    @property
    def key(self) -> str:
        """Return the SHA-256 of the settings, names and contents that the store was made from."""
        return self.index.key

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes on skipped files."""
        return self.index.notes

    @cached_property
    def boxes(self) -> Positions:
        """Return the content areas in the originals, int64 (N, 4): left, top, width, height.

        The stored frame is the centre square of its content area, `Box.centre_square`.
        """
        return np.array([frame.content for frame in self.index.frames], np.int64)

    @property
    def figures(self) -> list[Stages]:
        """Return the stages of preparation of up to three frames per class."""
        return _or_damaged(self.path, lambda: read_stages(self.path / FIGURES))

    def gallery(self, count: int = 12) -> dict[str, Positions]:
        """Return the positions of up to `count` evenly spaced frames per class."""
        members = {name: np.flatnonzero(self.labels == label) for label, name in enumerate(self.classes)}
        return {name: evenly_spaced(positions, count) for name, positions in members.items()}

    def summary(self) -> FrameSummary:
        """Return counts and original sizes by class, and by kind."""
        labels = enumerate(zip(self.classes, self.kinds, strict=True))
        classes = [_summary(self, name, kind, [label]) for label, (name, kind) in labels]
        kinds = [
            _summary(self, f"all {kind}", kind, [label for label, other in enumerate(self.kinds) if other == kind])
            for kind in dict.fromkeys(self.kinds)
        ]
        return FrameSummary(
            store=str(self.path),
            size=self.settings.size,
            method=self.settings.method,
            count=len(self),
            classes=tuple(classes),
            kinds=tuple(kinds),
            notes=self.notes,
        )


def array_shapes(count: int, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of a store of `count` frames, all uint8, by file name."""
    sides = {"": size, "centre_": CENTRE_SIZE}
    masks = {f"{view}{name}": (count, side, side) for view, side in sides.items() for name in ("insets", "lesions")}
    return {"frames": (count, size, size, 3), "centre": (count, CENTRE_SIZE, CENTRE_SIZE, 3), **masks}


def read_index(path: Path) -> StoreIndex:
    """Read the index of the store in the folder `path`; raises InputError as `FrameStore.open` does."""
    file = path / INDEX
    if not file.is_file():
        raise InputError(f"{path} is not a frame store (no {INDEX}); give the folder that `pixelscope endovae prepare` made.")
    link = find_link(path)
    if link is not None:
        raise InputError(f"{link} is a link, which could lead to any file; if you trust it, replace it with the file itself.")
    values = _or_damaged(path, lambda: json.loads(file.read_bytes()))
    version = values.get("version") if isinstance(values, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise InputError(
            f"{path} was prepared by version {version} of the preprocessing and this is version {VERSION}; prepare the frames "
            "again, with another --out or after removing it."
        )
    index = _or_damaged(path, lambda: StoreIndex.model_validate(values))
    if any(not 0 <= frame.label < len(index.kinds) for frame in index.frames):
        raise _damaged(path, "a label names no class")
    return index


def _array(path: Path, name: str, shape: tuple[int, ...]) -> Bytes:
    array = _or_damaged(path, lambda: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False))
    if array.shape != shape or array.dtype != np.uint8:
        raise _damaged(path, f"{name}.npy is {array.dtype} {array.shape} and should be uint8 {shape}")
    return array


def _or_damaged(path: Path, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (*UNREADABLE, ValidationError) as error:
        raise _damaged(path, " ".join(str(error).split())) from None


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"The store {path} is damaged ({reason}); remove it and prepare the frames again.")


_SIZES_SHOWN = 3
"""Maximum number of original sizes listed per class; the others are counted."""


class ClassSummary(Config):
    """Frames of one class, or of all classes of one kind."""

    name: str
    kind: str
    count: Natural
    sizes: dict[str, Natural]
    """Number of frames per original size `width x height`, most frequent first."""
    masks: Natural
    """Number of frames with a lesion mask."""
    insets: dict[str, Natural]
    """Number of frames with an inset, per kind."""

    def sizes_text(self) -> str:
        """Return the most frequent sizes with their counts, and the number of other sizes."""
        shown = list(self.sizes.items())[:_SIZES_SHOWN]
        others, rest = len(self.sizes) - len(shown), self.count - sum(count for _, count in shown)
        named = [f"{count:,} at {size}" for size, count in shown]
        return ", ".join([*named, *([f"{rest:,} at {plural(others, 'other size')}"] if others else [])])

    def insets_text(self) -> str:
        """Return the number of frames with an inset, per kind; empty if there are none."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.insets.items())


class FrameSummary(ResultFile):
    """Counts and original sizes by class, and by kind; the content of frames.json in a run folder."""

    remedy: ClassVar[str] = "restore the file or train again"

    store: str
    size: Natural
    """Side of the stored frames in pixels."""
    method: str
    count: Natural
    classes: tuple[ClassSummary, ...]
    kinds: tuple[ClassSummary, ...]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return an aligned table for a terminal."""
        rows = [("class", "kind", "frames", "masks", "insets", "original sizes"), *map(_row, self.classes)]
        rows += [("", "", "", "", "", ""), *map(_row, self.kinds)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows]
        head = (
            f"{self.store}: {plural(self.count, 'frame')} of {self.size} x {self.size} pixels, content area by {self.method!r}"
        )
        return "\n".join([head, "", *table, *(f"note: {note}" for note in self.notes)])


def _summary(store: FrameStore, name: str, kind: str, labels: list[int]) -> ClassSummary:
    frames = [store.index.frames[i] for i in np.flatnonzero(np.isin(store.labels, labels))]
    sizes = Counter(f"{frame.size[0]} x {frame.size[1]}" for frame in frames)
    insets = Counter(kind for frame in frames for kind in sorted({inset.kind for inset in frame.insets}))
    return ClassSummary(
        name=name,
        kind=kind,
        count=len(frames),
        sizes=dict(sizes.most_common()),
        masks=sum(frame.lesion for frame in frames),
        insets=dict(insets.most_common()),
    )


def _row(summary: ClassSummary) -> tuple[str, ...]:
    counts = f"{summary.count:,}", f"{summary.masks:,}"
    return summary.name, summary.kind, *counts, summary.insets_text(), summary.sizes_text()


def _aligned(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in (2, 3) else text.ljust(width)
