"""Names of files from standard input, and results on standard output: `-` instead of a path."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelscope.errors import InputError

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
    return found
