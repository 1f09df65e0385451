"""Process files into a table: threads read, batches are computed, rows are written in order."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from pixelscope.data.formats.decode import decode, is_deep_file, is_flat, pages_after_first, reject_decompression_bombs
from pixelscope.data.formats.dicom import windows
from pixelscope.data.sources.listing import Entry, window_notes
from pixelscope.errors import InputError, Interrupted, note, plural
from pixelscope.files import DISK_FULL, keep_heap
from pixelscope.imaging.convert import Range
from pixelscope.inference.files import (
    InputFile,
    batches,
    count_files,
    in_order,
    is_file,
    iterate_files,
    repeated_notes,
    skipped_notes,
)
from pixelscope.inference.table import ERROR, ResumableTable, Row, Table
from pixelscope.runs.progress import ProgressCallback

P = TypeVar("P")

BATCH = 64
"""Maximum number of files per batch."""
LEAST = 16
"""Minimum number of files per batch, but for the last: smaller ones are summed in another order, and last digits differ."""


@dataclass(frozen=True)
class BatchResult:
    """Summary of a written table."""

    out: str
    rows: int
    failed: int
    """Rows with an error instead of a result."""
    notes: tuple[str, ...] = ()
    """Notes on skipped files, and on files of this session with a single colour or several pages."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the text for a terminal: a line, and one per note."""
        failed = f", {self.failed:,} of them with an error instead of a result" if self.failed else ""
        return "\n".join(
            [
                f"{'standard output' if self.out == '-' else self.out}: {plural(self.rows, 'row')}{failed}",
                *(f"note: {note}" for note in self.notes),
            ]
        )


@dataclass(frozen=True)
class Steps(Generic[P]):
    """Functions applied to each file and to each batch."""

    prepare: Callable[[InputFile], P]
    """Called by several threads; raises InputError for an unusable file, which becomes its row's error. Returns an image, a
    tuple of one image in several ranges of values, or something else; only images can be flat."""
    compute: Callable[[Sequence[InputFile], Sequence[P]], Sequence[Row | Sequence[Row]]]
    """Return the remaining row, or rows, of each item; called by one thread per device."""
    devices: int = 1
    takes: Callable[[Entry], bool] = is_file
    """Which files in folders get a row; those given by name always do."""
    value_range: Range | None = None
    """Values of images deeper than 8 bits that become 0 and 255; None: by the type of each image, with a note."""


def run_pipeline(
    table: Table, paths: Sequence[Path], stages: Steps[P], progress: ProgressCallback | None = None
) -> BatchResult:
    """Write one row per file, in order, and finish the table; existing rows are not computed again.

    progress: called with the rows done and all rows.

    Raises:
        InputError: a resumed table has rows of other files, or the disk is full; existing rows are kept.
        Interrupted: Ctrl-C; existing rows are kept.
    """
    keep_heap()
    total, done, rows, failed = count_files(paths, stages.takes), table.items, table.count, table.failed
    repeated = repeated_notes(paths, stages.takes)
    remarks = _Remarks()
    try:
        with reject_decompression_bombs():
            left = _after(table, iterate_files(paths, stages.takes))
            # Of all files, not of those left: what a resumed table computes is to the bit what it would have been.
            size = min(BATCH, max(LEAST, math.ceil(total / stages.devices)))
            for items, some in _rows(left, stages, size, table.columns[0], remarks):
                table.add(some)
                done, rows = done + items, rows + len(some)
                failed += sum(row.get(ERROR) is not None for row in some)
                if progress is not None:
                    progress(done, max(done, total))
        table.finish()
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; {table.kept(rows)}; to continue, {table.how_to_continue()}.") from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise InputError(f"The disk is full; {table.kept(rows)}; free some space, then {table.how_to_continue()}.") from None
    finally:
        table.close()
    return BatchResult(
        str(table.out), rows, failed, (*repeated, *skipped_notes(paths, table.out, stages.takes), *remarks.notes())
    )


def decode_rgb(item: InputFile, size: int, value_range: Range | None) -> np.ndarray:
    """Return an image file as uint8 (size, size, 3); see `decode`."""
    return np.broadcast_to(decode(item.path, size, value_range), (size, size, 3))


def unwritable(path: Path, write: Callable[[], None]) -> str | None:
    """Call `write`, which writes `path`; return the error for its row, None if there is none.

    A file name that is too long or invalid is such an error; a full disk is raised.
    """
    try:
        write()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return f"{path} cannot be written: {error.strerror or error}."
    return None


def _after(table: Table, items: Iterator[InputFile]) -> Iterator[InputFile]:
    """Yield the items without a row in the table."""
    names = table.names()
    for number, name in enumerate((name for name, _ in groupby(names)) if table.several else names, 1):
        item = next(items, None)
        if item is None or item.name != name:
            there = "nothing" if item is None else item.name
            part = table.part if isinstance(table, ResumableTable) else table.out
            raise InputError(
                f"Row {number:,} of {part} is of {name}, but the files now have {there}; restore them, or delete the "
                "table and start again."
            )
    return items


@dataclass(frozen=True)
class _Remarks:
    """Notes on files that have a result nevertheless."""

    paged: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    deep: list[str] = field(default_factory=list)
    """Files deeper than 8 bits that are read without a range of the model's."""
    windows: dict[str, str] = field(default_factory=dict)

    def add(self, item: InputFile, value: object, pages: int, deep: bool) -> None:
        if deep:
            self.deep.append(item.name)
        if pages and not isinstance(value, InputError):
            self.paged.append(f"{item.name} ({pages:,})")
        if not isinstance(value, InputError):
            self.windows.update((item.name, window) for window in windows([item.path]).values())
        image = value[0] if isinstance(value, tuple) else value
        if isinstance(image, np.ndarray) and is_flat(image):
            self.flat.append(item.name)

    def notes(self) -> tuple[str, ...]:
        return (
            *note("Read only the first page of {count:file} (pages left): {names}.", self.paged),
            *window_notes(self.windows),
            *note(
                "Deeper than 8 bits: {count:file} ({names}). As the model was trained on images of 8 bits, 0 became black and "
                "65535 white (floats: 1); if the values fill a part of that only, convert them to 8 bits first.",
                self.deep,
            ),
            *note("A single flat colour, so that the result is meaningless: {count} ({names}).", self.flat),
        )


def _rows(
    items: Iterator[InputFile], stages: Steps[P], size: int, first: str, remarks: _Remarks
) -> Iterator[tuple[int, Sequence[Row]]]:
    """Yield the number of items of each batch of `size`, and their rows, whose column `first` is the item's name."""

    def remarked() -> Iterator[tuple[InputFile, P | InputError]]:
        read = in_order(lambda item: (item, *_prepared(item, stages)), items, os.cpu_count() or 1, ahead=2 * BATCH)
        for item, value, pages, deep in read:
            remarks.add(item, value, pages, deep)
            yield item, value

    yield from in_order(
        lambda batch: (len(batch), _computed(batch, stages, first)),
        batches(remarked(), size),
        stages.devices,
        ahead=stages.devices + 1,
    )


def _prepared(item: InputFile, stages: Steps[P]) -> tuple[P | InputError, int, bool]:
    """Return the prepared file, or the error, the number of its pages that are not read, and if it is deep without a range."""
    if not item.is_image:
        return InputError(f"{item.name} is not an image: {_about_suffix(item.path)}."), 0, False
    try:
        prepared = stages.prepare(item)
    except InputError as error:
        return error, 0, False
    return prepared, pages_after_first(item.path), stages.value_range is None and is_deep_file(item.path)


def _about_suffix(path: Path) -> str:
    return f"its suffix is {path.suffix}" if path.suffix else "its name has no suffix"


def _computed(batch: Sequence[tuple[InputFile, P | InputError]], stages: Steps[P], first: str) -> Sequence[Row]:
    good = [(item, value) for item, value in batch if not isinstance(value, InputError)]
    found = iter(stages.compute(*map(list, zip(*good, strict=True))) if good else [])  # pyright: ignore[reportArgumentType]
    rows: list[Row] = []
    for item, value in batch:
        own = {ERROR: str(value)} if isinstance(value, InputError) else next(found)
        rows += [{first: item.name, **row} for row in ([own] if isinstance(own, Mapping) else own)]
    return rows
