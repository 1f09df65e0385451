"""What a store of frames holds, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pixelscope.config import Config
from pixelscope.results import ResultFile

if TYPE_CHECKING:
    from pixelscope.data.frame_store import FrameStore

_SIZES_SHOWN = 3


class ClassSummary(Config):
    """Frames of one class, or of all classes of one kind."""

    name: str
    kind: str
    count: int
    sizes: dict[str, int]
    """Frames of each original size, `width x height`, most frequent first."""
    masks: int
    """Frames with a mask of the lesion."""
    insets: dict[str, int]
    """Frames with an inset of each sort."""


class FrameSummary(ResultFile):
    """Counts and original sizes by class, and by kind; the content of frames.json in a run folder."""

    remedy: ClassVar[str] = "restore the file or train again"

    store: str
    size: int
    """Side of the stored frames in pixels."""
    method: str
    count: int
    classes: tuple[ClassSummary, ...]
    kinds: tuple[ClassSummary, ...]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return it as an aligned table for a terminal."""
        rows = [("class", "kind", "frames", "masks", "insets", "original sizes"), *map(_row, self.classes)]
        rows += [("", "", "", "", "", ""), *map(_row, self.kinds)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows]
        head = f"{self.store}: {self.count:,} frames of {self.size} x {self.size} pixels, content area by {self.method!r}"
        return "\n".join([head, "", *table, *(f"note: {note}" for note in self.notes)])


def summarise(store: FrameStore) -> FrameSummary:
    """Return counts and original sizes by class, and by kind."""
    classes = [
        _summary(store, name, kind, [label]) for label, (name, kind) in enumerate(zip(store.classes, store.kinds, strict=True))
    ]
    kinds = [
        _summary(store, f"all {kind}", kind, [label for label, other in enumerate(store.kinds) if other == kind])
        for kind in dict.fromkeys(store.kinds)
    ]
    return FrameSummary(
        store=str(store.path),
        size=store.settings.size,
        method=store.settings.method,
        count=len(store),
        classes=tuple(classes),
        kinds=tuple(kinds),
        notes=store.notes,
    )


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
    shown = list(summary.sizes.items())[:_SIZES_SHOWN]
    others = len(summary.sizes) - len(shown)
    rest = (
        [f"{summary.count - sum(count for _, count in shown):,} at {others} other size{'s' if others > 1 else ''}"]
        if others
        else []
    )
    sizes = ", ".join([*(f"{count:,} at {size}" for size, count in shown), *rest])
    insets = ", ".join(f"{count:,} {kind}" for kind, count in summary.insets.items())
    return summary.name, summary.kind, f"{summary.count:,}", f"{summary.masks:,}", insets, sizes


def _aligned(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in (2, 3) else text.ljust(width)
