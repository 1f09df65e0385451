"""What the user reads when a command fails for a reason that they can mend."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from cyclopts import CycloptsError
from cyclopts.exceptions import UnusedCliTokensError, ValidationError
from pydantic import ValidationError as SettingsError

import pixelscope
from pixelscope.errors import InputError, Interrupted

MENDABLE = 2
INTERRUPTED = 130

MENDS = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another place, or move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What to do about each error of the file system that a user can mend."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Failure:
    """One line for stderr and the exit code of the process."""

    line: str
    code: int


def explain(error: BaseException, arguments: Sequence[str] = ()) -> Failure | None:
    """Return what to tell the user, or None where the error is a defect of the program.

    arguments: those of the command, which may be one that trains and can be resumed.
    """
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return Failure(_one_line(str(error) or f"Interrupted; {_how_to_continue(arguments)}."), INTERRUPTED)
    sentence = _sentence(error, arguments)
    return None if sentence is None else Failure(_one_line(f"Error: {sentence}"), MENDABLE)


def _how_to_continue(arguments: Sequence[str]) -> str:
    for system in pixelscope.SYSTEMS.values():
        command = system.command.split()
        if command and list(arguments[: len(command)]) == command:
            return f"a training continues from its last checkpoint with `pixelscope {system.command} --resume RUN`"
    return "run the same command again, with --resume where it has one"


def _sentence(error: BaseException, arguments: Sequence[str]) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, CycloptsError):
        return _usage(error)
    # safetensors and torch report a full disk in classes of their own, by the system's text.
    if (isinstance(error, OSError) and error.errno in DISK_FULL) or "No space left on device" in str(error):
        return _disk_full(error, arguments)
    if isinstance(error, OSError) and error.errno in MENDS:
        where = f" {error.filename}:" if error.filename else ""
        return f"{where} {error.strerror}; {MENDS[error.errno]}.".lstrip()
    return None


def _usage(error: CycloptsError) -> str:
    """Say what is wrong with the arguments, and where to read on."""
    command = " ".join(["pixelscope", *(error.command_chain or ())])
    return f"{_fault(error)} See `{command} --help`."


def _fault(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError):
        return f"Too many arguments: {' '.join(error.unused_tokens or ())}."
    if isinstance(error, ValidationError) and isinstance(error.__cause__, SettingsError):
        first = error.__cause__.errors()[0]
        flag = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        return f"{flag}: {first['msg']} (given: {first['input']!r})."
    return str(error)


def _disk_full(error: BaseException, arguments: Sequence[str]) -> str:
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    return f"The disk is full{where}; free some space; {_how_to_continue(arguments)}."


def _one_line(text: str) -> str:
    return " ".join(text.split())
