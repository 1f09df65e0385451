"""The line and exit code of errors that a user can fix."""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cyclopts import CycloptsError
from cyclopts.exceptions import UnusedCliTokensError, ValidationError
from pydantic import ValidationError as SettingsError

import pixelscope
from pixelscope.errors import InputError, Interrupted, missing_extra
from pixelscope.files import DISK_FULL

USER_ERROR = 2
INTERRUPTED = 130

FIXES = {
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose a writable path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "give a folder",
    errno.EISDIR: "give a file",
    errno.EEXIST: "choose another path, or remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""How to fix each error of the file system that a user can fix."""


@dataclass(frozen=True)
class Failure:
    """One line for stderr and the exit code of the process."""

    line: str
    code: int


def format_error(error: BaseException, arguments: Sequence[str] = ()) -> Failure | None:
    """Return the line to print and the exit code, or None if the error is a defect of the program.

    arguments: of the command; for a training the line names the command that resumes it.
    """
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return Failure(_one_line(str(error) or f"Interrupted; {_how_to_continue(arguments)}."), INTERRUPTED)
    sentence = _sentence(error, arguments)
    return None if sentence is None else Failure(_one_line(f"Error: {sentence}"), USER_ERROR)


def _how_to_continue(arguments: Sequence[str]) -> str:
    for system in pixelscope.SYSTEMS.values():
        command = system.command.split()
        if command and list(arguments[: len(command)]) == command:
            resume = f"continue from the last checkpoint with `pixelscope {system.command} --resume RUN`"
            return f"{resume}, or run the same command again if it has made no run folder"
    return "run the same command again, with --resume if it has one"


def _what_is_kept(arguments: Sequence[str]) -> str:
    several = list(arguments[:2]) in (["pixelda", "ablate"], ["pixelda", "search"])
    return "finished runs are kept" if several else "whatever was complete before is kept"


def _sentence(error: BaseException, arguments: Sequence[str]) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ImportError):
        missing = missing_extra(error)
        return None if missing is None else str(missing)
    if isinstance(error, CycloptsError):
        return f"{_usage_error(error)} See `{' '.join(['pixelscope', *(error.command_chain or ())])} --help`."
    # safetensors and torch raise other classes for a full disk, with the text of the operating system.
    if (isinstance(error, OSError) and error.errno in DISK_FULL) or "No space left on device" in str(error):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"The disk is full{where}; {_what_is_kept(arguments)}; free some space, then {_how_to_continue(arguments)}."
    if isinstance(error, OSError) and error.errno in FIXES:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; {FIXES[error.errno]}."
    return None


def _usage_error(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Too many arguments: {' '.join(error.unused_tokens or ())}."
    if isinstance(error, ValidationError) and isinstance(error.__cause__, SettingsError):
        from pixelscope.config import describe_invalid, describe_misfit

        if misfit := describe_misfit(error.__cause__):
            return f"{misfit}."
        where, problem = describe_invalid(error.__cause__, _as_typed)
        where = re.sub(r"(\.\d+)+$", "", where)  # a flag given several times has no numbers
        return f"--{where.replace('_', '-')} {problem}."
    return str(error)


def _as_typed(value: object) -> str:
    """Return the value of an option as it was typed."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
