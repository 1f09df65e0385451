"""Files that are written whole or not at all, and folders that one process at a time works in."""

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

from pixelscope.errors import InputError
from pixelscope.processes import Process, short_name

UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, NameError, ArithmeticError, SyntaxError, MemoryError,
    NotImplementedError, RecursionError, TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy, SciPy and json raise for files that are damaged or cut off."""
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
"""What file systems answer that cannot sync a folder (CIFS, some FUSE mounts); what lies in it is synced by then."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EROFS, errno.EACCES}
"""What file systems answer that have no locks, or none for this user."""
TOLD_AS_TEXT = {
    "No space left on device": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "Disk quota exceeded": errno.EDQUOT,
}
"""Errors of the file system that safetensors and torch report in classes of their own, by the system's text."""
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
"""How NumPy says that the disk did not take all of an array, without a number of the system."""
DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What file systems answer that are full."""
LOCK = "lock"
TEMPORARY = ".pixelscope-"
"""What temporary names begin with; the machine, the number and the start of the process that writes follow."""
_OWNER = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})-(\d+)-([\w-]+?)-\w{8}(\.[^.]*)?", re.ASCII)
_tidied: set[str] = set()
"""Folders in which this process has looked for what killed processes left."""
LONGEST_ENDING = 16
"""Bytes of the ending that a temporary name takes over at most."""


class HeldElsewhere(OSError):
    """Another process works in a folder."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, sync it and rename it to `path`.

    Whatever interrupts the block (an error, Ctrl-C, a full disk), `path` keeps its earlier content, or stays absent. What a
    killed process leaves is removed by the next one that writes to the folder.
    Raises OSError that names `path` where the file system refuses.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of the name its ending alone, which some writers ask for, lest this name is too long where `path` is not.
        ending = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_ENDING else ""
        _remove_abandoned(path.parent)
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=ending, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give a hidden temporary folder beside `path`; when the block ends well, rename it to `path`, which must not exist.

    Whatever interrupts the block, `path` stays absent. What a killed process leaves is removed by the next one that writes
    to the folder.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        work = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        try:
            yield work
            work.chmod(0o777 & ~_umask())
            work.rename(path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the file system that names no file, or a temporary one beside `path`, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None and _CUT_SHORT.search(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if error.filename is None or Path(os.fsdecode(error.filename)).name.startswith(TEMPORARY):
            error.filename = str(path)
        raise
    except Exception as error:
        number = next((number for text, number in TOLD_AS_TEXT.items() if text in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def held(folder: Path, wait: bool = True) -> Iterator[None]:
    """Keep other processes out of `folder` while the block runs; the system lets go of it however a process ends.

    On a file system without locks the block runs all the same, with a note.

    Args:
        folder: an existing folder; a file `lock` is made in it.
        wait: wait for another process that holds it; else raise HeldElsewhere.
    """
    descriptor = None
    try:
        # Opened for writing: NFS has no exclusive lock on what is open for reading only.
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        _close(descriptor)
        raise HeldElsewhere(errno.EWOULDBLOCK, "Another process works in it", str(folder)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            _close(descriptor)
            raise
        logging.getLogger(__name__).warning(
            "%s cannot be locked (%s); make sure that no other process works in it.", folder, error.strerror
        )
    try:
        yield
    finally:
        _close(descriptor)


def find_link(folder: Path, depth: int = 2) -> Path | None:
    """Return a symbolic link in `folder`, or in its folders down to `depth` levels; None where there is none.

    What comes from somebody else may have links that lead writing, and reading, to files anywhere.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                return Path(entry.path)
            found = find_link(Path(entry.path), depth - 1) if depth > 1 and entry.is_dir(follow_symlinks=False) else None
            if found is not None:
                return found
    return None


def _prefix() -> str:
    own = Process.current()
    return f"{TEMPORARY}{short_name(own.host)}-{own.number}-{own.started}-"


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files and folders of this machine's processes that have ended; once per process and folder."""
    known = str(folder.absolute())
    if known in _tidied:
        return
    _tidied.add(known)
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(TEMPORARY) and _is_abandoned(entry.name):
                _remove(entry)


def _is_abandoned(name: str) -> bool:
    owner, here = _OWNER.fullmatch(name), Process.current().host
    return owner is not None and owner[1] == short_name(here) and not Process(int(owner[2]), owner[3], here).is_alive()


def _remove(entry: "os.DirEntry[str]") -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        with suppress(OSError):
            Path(entry.path).unlink()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # some file systems sync nothing that is open for reading only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that can be written to and not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The only way to read the umask is to set it; mkstemp's own 0600 would hide results from a user's group.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(path: Path, remedy: str = "restore it or train again") -> dict[str, Any]:
    """Read a JSON object; raises InputError with the remedy where the file is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no {path}; is the run folder complete?") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: its top level is a {type(values).__name__}, not names and values; {remedy}.")
    return values
