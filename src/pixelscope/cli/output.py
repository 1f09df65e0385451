"""Prints results, as text or as JSON."""

import json as json_format
import sys
from pathlib import Path
from typing import Any, Protocol

import pixelscope
from pixelscope.cli.pipes import STANDARD_STREAM


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
