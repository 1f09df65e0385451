"""Names of files from standard input, and results on standard output, as text or as JSON."""

import json as json_format
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pixelscope
from pixelscope.errors import InputError, plural

STANDARD_STREAM = Path("-")


def input_paths(paths: Sequence[Path]) -> list[Path]:
    """Return the paths, with the names on standard input instead of `-`.

    Names are separated by newlines, or by NUL bytes if there are any (`find -print0`); empty lines are skipped.

    Raises:
        InputError: `-` is given twice, standard input is closed or names nothing, or a path is an unknown option.
    """
    for path in paths:
        if path.name.startswith("-") and path != STANDARD_STREAM and str(path) == path.name and not path.exists():
            raise InputError(f"Unknown option: {path}; --help lists the options, and a file of this name is given as ./{path}.")
    if list(paths).count(STANDARD_STREAM) > 1:
        raise InputError("- is given twice, but standard input can be read only once; give it once.")
    return [given for path in paths for given in (_names_on_stdin() if path == STANDARD_STREAM else [path])]


def _names_on_stdin() -> list[Path]:
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()
    names = content.split(b"\0" if b"\0" in content else b"\n")
    found = [Path(os.fsdecode(name.removesuffix(b"\r"))) for name in names if name.strip()]
    if not found:
        raise InputError("Standard input names no file; pipe one name per line into it, as `find` prints them.")
    kept = list(dict.fromkeys(found))
    if len(kept) < len(found):
        repeated = len(found) - len(kept)
        print(f"note: {plural(repeated, 'repeated name')} on standard input: each file is read once.", file=sys.stderr)
    return kept


class Result(Protocol):
    """A result of the public API."""

    def to_text(self) -> str:
        """Return the text for a terminal."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        ...


def show(result: Result, json: bool, table: Path | None = None) -> None:
    """Print a result; on stderr if standard output has the rows of its `table`."""
    text = json_format.dumps(result.to_dict(), indent=2, allow_nan=False) if json else result.to_text()
    print(text, file=sys.stderr if table == STANDARD_STREAM else sys.stdout)


def evaluate_and_report(run: Path, *, data_root: Path | None = None, json: bool = False) -> None:
    """Evaluate a trained run, write its report and print both; only the first of several processes does."""
    if not pixelscope.is_first_process():
        return
    show(pixelscope.evaluate(run, data_root=data_root), json)
    report = pixelscope.report(run)
    if not json:
        print(f"\nRun folder: {run}\nReport: {report}")
