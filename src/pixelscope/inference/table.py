"""Tables written row by row: files, whose rows survive any interruption, or JSON lines on standard output."""

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pixelscope.errors import InputError, plural
from pixelscope.files import AlreadyLocked, atomic_file, csv_text, lock, naming, write_text

Row = Mapping[str, str | float | bool | None]

ERROR = "error"
"""Column, the last one, with the reason why a file has no result."""

FORMATS = (".csv", ".jsonl")
DIGITS = 4
"""Significant digits of written numbers; two runtimes agree in these, except at rounding boundaries."""

STANDARD_OUTPUT = Path("-")
"""Given as the path of a table, it means standard output."""


class Table(Protocol):
    """Takes the rows of a pipeline, in order."""

    out: Path
    columns: tuple[str, ...]
    several: bool
    """Whether consecutive rows may have one name."""
    count: int
    """Rows that exist already."""
    items: int
    """Files that these rows are of."""
    failed: int
    """Those of these rows with an error."""

    def names(self) -> Iterator[str]:
        """Yield the names of the existing rows in order."""
        ...

    def failures(self) -> Iterator[bool]:
        """Yield whether each existing row has an error; nothing if the table has no such column."""
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        ...

    def finish(self) -> None:
        """Complete the table after its last row."""
        ...

    def close(self) -> None:
        """Stop writing, complete or not."""
        ...

    def kept(self, rows: int) -> str:
        """Return what is left of `rows` rows after an interruption, for a message."""
        ...

    def how_to_continue(self) -> str:
        """Return what to do after an interruption, for a message."""
        ...


def open_table(out: Path, columns: Sequence[str], identity: Mapping[str, str], resume: bool = False) -> Table:
    """Return the table `out`, with one row per file: a file (see `ResumableTable`), or with `-` JSON lines on standard output.

    Raises:
        InputError: `out` cannot be used, or standard output is to be resumed.
    """
    if out != STANDARD_OUTPUT:
        return ResumableTable(out, columns, identity, resume)
    if resume:
        raise InputError("--resume cannot continue standard output; drop it, or name a file with --out.")
    return StandardOutput(columns)


class StandardOutput:
    """A table of JSON lines on standard output, each batch of rows passed on at once."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.out, self.columns, self.several = STANDARD_OUTPUT, tuple(columns), False
        self.count = self.items = self.failed = 0

    def names(self) -> Iterator[str]:
        """Yield nothing: no row exists."""
        return iter(())

    def failures(self) -> Iterator[bool]:
        """Yield nothing: no row exists."""
        return iter(())

    def add(self, rows: Sequence[Row]) -> None:
        """Print rows; undecodable bytes in names are escaped."""
        sys.stdout.flush()
        binary = getattr(sys.stdout, "buffer", None)
        content = _json_lines(rows, self.columns)
        if binary is None:  # a stream that a caller put in its place, such as io.StringIO
            sys.stdout.write(content.decode())
        else:
            binary.write(content)
        sys.stdout.flush()

    def finish(self) -> None:
        """Do nothing: every row is printed."""

    def close(self) -> None:
        """Do nothing: the stream stays open."""

    def kept(self, rows: int) -> str:
        """Return how many rows were printed."""
        return f"{plural(rows, 'row')} {'is' if rows == 1 else 'are'} printed"

    def how_to_continue(self) -> str:
        """Return what to do after an interruption."""
        return "run the command again"


def _lock_file(part: Path) -> Path:
    return part.with_name(part.name + ".lock")


def _locked(part: Path) -> int:
    """Lock an unfinished table; returns the descriptor that holds the lock until it is closed.

    The lock is of a file that nothing reads: on CIFS, a locked file can be read through no other descriptor.

    Raises:
        InputError: another process writes the table.
    """
    path = _lock_file(part)
    with naming(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        lock(descriptor, path)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise AlreadyLocked
    except (AlreadyLocked, FileNotFoundError):
        os.close(descriptor)
        raise InputError(f"Another process writes {part}; wait until it ends, or stop it.") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class ResumableTable:
    """A table in OUT.part, renamed to OUT after its last row.

    OUT.part.json has the identity of the rows; only rows of the same identity are added. While a process writes the table, it
    holds the lock of OUT.part.lock.
    """

    def __init__(
        self,
        out: Path,
        columns: Sequence[str],
        identity: Mapping[str, str],
        resume: bool = False,
        several: bool = False,
    ) -> None:
        """Start a table; with `resume`, continue an unfinished one.

        Args:
            out: the table, ending in .csv or .jsonl; it must not exist.
            columns: names of the columns; the first one is the rows' name.
            identity: everything that determines the rows, by name.
            resume: continue an unfinished table.
            several: consecutive rows may have one name; the possibly incomplete rows of the last name are dropped.

        Raises:
            InputError: the suffix is wrong, `out` exists, an unfinished table exists without `resume`, it has another identity,
                or another process writes it.
        """
        if out.suffix.lower() not in FORMATS:
            raise InputError(f"{out} does not end in .csv or .jsonl; change the name.")
        self.out, self.columns, self.several = out, tuple(columns), several
        self.part, self.about = (out.with_name(out.name + ending) for ending in (".part", ".part.json"))
        self._csv = out.suffix.lower() == ".csv"
        self._lock: int | None = _locked(self.part)
        try:
            self._open({"columns": list(columns), **identity}, resume)
        except BaseException:
            self._unlock()
            raise

    def _open(self, wanted: Mapping[str, Any], resume: bool) -> None:
        """Start the table, or continue it; see `__init__`."""
        if self.out.exists():
            ended = ", so that nothing is left to resume" if resume else ""
            raise InputError(f"{self.out} exists already{ended}; give another file, or move it away.")
        if self.part.exists() and not resume:
            raise InputError(f"{self.part} was left by an interrupted run; continue with --resume, or delete it.")
        if self.part.exists():
            self._check(wanted)
        else:
            write_text(self.about, json.dumps(wanted, indent=1) + "\n")
            with atomic_file(self.part) as temporary:  # with its head, or not at all
                temporary.write_bytes(self._encoded([]) if self._csv else b"")
        self.count, self.items = self._cut_off()
        self.failed = sum(self.failures())
        self._file = self.part.open("ab")

    def names(self) -> Iterator[str]:
        """Yield the names of the existing rows in order."""
        return (name for name, _ in islice(self._read(), self.count))

    def failures(self) -> Iterator[bool]:
        """Yield whether each existing row has an error; nothing if the table has no such column."""
        if self.columns[-1] != ERROR:
            return
        with self.part.open(encoding="utf-8", newline="") as file:
            if self._csv:
                failed = (bool(row[-1]) for row in islice(csv.reader(file), 1, None))
            else:
                failed = (json.loads(line)[ERROR] is not None for line in file)
            yield from islice(failed, self.count)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they are passed to the system at once."""
        with naming(self.part):
            self._file.write(self._encoded(rows, head=False))
            self._file.flush()

    def finish(self) -> None:
        """Rename the complete table to OUT."""
        with naming(self.part):
            os.fsync(self._file.fileno())
            self._file.close()
        self.part.replace(self.out)
        self.about.unlink(missing_ok=True)
        self._unlock()

    def kept(self, rows: int) -> str:
        """Return how many rows are kept, and where."""
        return f"{plural(rows, 'row')} {'is' if rows == 1 else 'are'} kept in {self.part}"

    def how_to_continue(self) -> str:
        """Return what to do after an interruption."""
        return "repeat the command with --resume"

    def close(self) -> None:
        """Close the table; it can be resumed."""
        # What a full disk did not take stays in the file's buffer, and closing would fail on it once more.
        with contextlib.suppress(OSError):
            self._file.close()
        self._unlock()

    def _unlock(self) -> None:
        """Let other processes write the table; does nothing the second time."""
        if self._lock is not None:
            _lock_file(self.part).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _check(self, wanted: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(
                f"Cannot resume: {self.about} is missing or damaged. Delete it and {self.part}, then start again."
            ) from None
        for name in wanted.keys() | found.keys():
            if wanted.get(name) != found.get(name):
                raise InputError(
                    f"{self.part} was started with another {name} ({found.get(name)}, not {wanted.get(name)}); use the "
                    "same, or delete it and start again."
                )

    def _cut_off(self) -> tuple[int, int]:
        """Remove an incomplete last row; return the number of rows, and of items."""
        count, end, items = 0, len(self._encoded([])) if self._csv else 0, 0
        before, last = (0, end), None
        for name, length in self._read():
            if not self.several or name != last:
                items, before, last = items + 1, (count, end), name
            count, end = count + 1, end + length
        if self.several and items:
            (count, end), items = before, items - 1
        with self.part.open("r+b") as file:
            file.truncate(end)
        return count, items

    def _read(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the size in bytes of each complete row."""
        with self.part.open(encoding="utf-8", errors="replace", newline="") as file:
            if self._csv:
                yield from self._read_csv(file)
            else:
                yield from self._read_lines(file)

    def _read_csv(self, file: io.TextIOBase) -> Iterator[tuple[str, int]]:
        written: list[str] = []

        def lines() -> Iterator[str]:
            for line in file:
                written.append(line)
                yield line

        reader = csv.reader(lines())
        for number, row in enumerate(reader):
            length, whole = sum(len(line.encode()) for line in written), written[-1].endswith("\n")
            written.clear()
            if not whole or len(row) != len(self.columns):
                return
            if number:
                yield row[0], length

    def _read_lines(self, file: io.TextIOBase) -> Iterator[tuple[str, int]]:
        for line in file:
            try:
                name = json.loads(line)[self.columns[0]] if line.endswith("\n") else None
            except (ValueError, KeyError, TypeError):
                return
            if name is None:
                return
            yield name, len(line.encode())

    def _encoded(self, rows: Sequence[Row], head: bool = True) -> bytes:
        if not self._csv:
            return _json_lines(rows, self.columns)
        cells = [[_cell(row.get(name)) for name in self.columns] for row in rows]
        return csv_text([self.columns, *cells] if head else cells).encode("utf-8", "backslashreplace")


def _json_lines(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    kept = [{name: _number(row.get(name)) for name in columns} for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in kept)
    return text.encode("utf-8", "backslashreplace")


def _number(value: str | float | bool | None) -> str | float | bool | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
