"""Help rendered beforehand, one file a command in help_texts/, so that `--help` costs little more than Python's own start.

The command line's own library takes longer to import than that. It wrote these texts, and a test holds that it would write
the same today; see CONTRIBUTING.md for how they are renewed.
"""

import os
import sys
from collections.abc import Sequence

TEXTS = os.path.join(os.path.dirname(__file__), "help_texts")  # noqa: PTH118, PTH120 - pathlib alone would cost a third of it
WIDTH = 100
"""Columns of the texts."""


def rendered(arguments: Sequence[str]) -> str | None:
    """Return the help that `arguments` ask for; None where they ask for something else or the window is too narrow for it."""
    *words, last = arguments or ["--help"]
    if last not in ("--help", "-h") or not all(word.replace("-", "").isalnum() for word in words) or _columns() < WIDTH:
        return None
    try:
        with open(os.path.join(TEXTS, "-".join(["pixelscope", *words]) + ".txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return file.read()
    except FileNotFoundError:
        return None


def _columns() -> int:
    """Return the width of the window, or what COLUMNS says; as wide as needed where there is neither."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"])
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return WIDTH
