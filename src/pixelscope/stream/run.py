"""Files through a model into a table: read ahead on threads, computed in batches, written in order."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

from pixelscope.data.decode import bombs_refused
from pixelscope.errors import InputError, Interrupted
from pixelscope.stream.ahead import batches, in_order
from pixelscope.stream.table import Row, Table
from pixelscope.stream.walk import Item, count, passed_over, walk

P = TypeVar("P")
Report = Callable[[int, int], None]

BATCH = 64
"""Files computed at a time."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
ERROR = "error"
"""The column that says why a file has no result."""


@dataclass(frozen=True)
class Written:
    """What came of it."""

    out: str
    rows: int
    failed: int
    """Rows that were written in this sitting with an error in place of a result."""
    notes: tuple[str, ...] = ()
    """Which files in the folders were passed over."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a line, and one per note."""
        failed = f", {self.failed:,} of them with an error in place of a result" if self.failed else ""
        return "\n".join([f"{self.out}: {self.rows:,} rows{failed}", *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Stages(Generic[P]):
    """What is done with each file, and with each batch of what came of it."""

    prepare: Callable[[Item], P]
    """Called on several threads; raises InputError for a file that cannot be used, which becomes its row's error."""
    compute: Callable[[Sequence[Item], Sequence[P]], Sequence[Row | Sequence[Row]]]
    """Return the rest of the row of each item, or of its rows; called on as many threads as there are devices."""
    devices: int = 1


def stream(table: Table, paths: Sequence[Path], stages: Stages[P], report: Report | None = None) -> Written:
    """Write a row a file, in order, and finish the table; rows that are there already are not computed again.

    report: called with the rows done and all of them.
    Raises InputError where a resumed table has rows of other files, or the disk is full; Interrupted at Ctrl-C. The rows so
    far are kept in both cases.
    """
    total, done, rows, failed = count(paths), table.items, table.count, 0
    say = report or _nothing
    try:
        with bombs_refused():
            for items, some in _rows(_after(table, walk(paths)), stages, table.columns[0]):
                table.add(some)
                done, rows = done + items, rows + len(some)
                failed += sum(row.get(ERROR) is not None for row in some)
                say(done, max(done, total))
        table.finish()
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; {_kept(table, rows)}; go on with the same command and --resume.") from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        mend = "free some space, then go on with the same command and --resume"
        raise InputError(f"The disk is full; {_kept(table, rows)}; {mend}.") from None
    finally:
        table.close()
    return Written(str(table.out), rows, failed, passed_over(paths, table.out))


def unwritable(path: Path, write: Callable[[], None]) -> str | None:
    """Call `write`, which writes `path`; return what to say in its row where that fails, None where it does not.

    A name that is too long, or that the file system does not take, is no reason to stop. A full disk is, and is raised.
    """
    try:
        write()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        return f"{path} cannot be written: {error.strerror or error}."
    return None


def _kept(table: Table, rows: int) -> str:
    return f"{rows:,} rows are kept in {table.part}"


def _after(table: Table, items: Iterator[Item]) -> Iterator[Item]:
    """Give the items that the table has no row of yet."""
    names = table.names()
    for number, name in enumerate((name for name, _ in groupby(names)) if table.several else names, 1):
        item = next(items, None)
        if item is None or item.name != name:
            there = "nothing" if item is None else item.name
            raise InputError(
                f"Row {number:,} of {table.part} is of {name} and the files now have {there} there; restore them, or remove it "
                "and begin again."
            )
    return items


def _rows(items: Iterator[Item], stages: Stages[P], first: str) -> Iterator[tuple[int, Sequence[Row]]]:
    """Give the number of items of each batch, and their rows, whose column `first` is the item's name."""
    threads = os.cpu_count() or 1
    prepared = in_order(lambda item: (item, _prepared(item, stages)), items, threads, ahead=2 * BATCH)
    yield from in_order(
        lambda batch: (len(batch), _computed(batch, stages, first)),
        batches(prepared, BATCH),
        stages.devices,
        ahead=2 * stages.devices,
    )


def _prepared(item: Item, stages: Stages[P]) -> P | InputError:
    if not item.is_image:
        return InputError(f"{item.name} is no image: its name ends in {item.path.suffix or 'nothing'}.")
    try:
        return stages.prepare(item)
    except InputError as error:
        return error


def _computed(batch: Sequence[tuple[Item, P | InputError]], stages: Stages[P], first: str) -> Sequence[Row]:
    good = [(item, value) for item, value in batch if not isinstance(value, InputError)]
    found = iter(stages.compute(*map(list, zip(*good, strict=True))) if good else [])  # pyright: ignore[reportArgumentType]
    rows: list[Row] = []
    for item, value in batch:
        own = {ERROR: str(value)} if isinstance(value, InputError) else next(found)
        rows += [{first: item.name, **row} for row in ([own] if isinstance(own, Mapping) else own)]
    return rows


def _nothing(done: int, total: int) -> None:
    pass
