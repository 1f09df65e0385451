"""Files and processes: atomic writes, CSV and JSON, the lock on a folder, identity of processes, memory.

A process is identified by its number and its start time, because the system reuses the numbers of ended processes.
"""

import csv
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

from pixelscope.errors import InputError

UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, NameError, ArithmeticError, SyntaxError, MemoryError,
    RuntimeError, TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors of NumPy and json for damaged or truncated files."""
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
"""Errors of file systems that cannot sync a folder (CIFS, some FUSE mounts); the files in it are synced before."""
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EROFS, errno.EACCES}
"""Errors of file systems without locks, or without locks for this user."""
ERRNO_BY_TEXT = {
    "No space left on device": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "Disk quota exceeded": errno.EDQUOT,
}
"""Errors that safetensors and torch raise without an error number, by the text of the system."""
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
"""Message of NumPy when the disk takes only a part of an array; it has no error number."""
DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""Errors of a full file system."""
LOCK = "lock"
TEMPORARY = ".pixelscope-"
"""Prefix of temporary names; machine, number and start time of the writing process follow."""
_OWNER = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})-(\d+)-([\w-]+?)-\w{8}(\.[^.]*)?", re.ASCII)
_tidied: set[str] = set()
"""Folders that this process has searched for files of killed processes."""
LONGEST_ENDING = 16
"""Maximum length in bytes of a suffix that a temporary name keeps."""
_PROC = Path("/proc")
_GONE = {"Z", "X", "x"}
"""States of a process that has ended: a zombie waits only for its parent to read its exit code."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Numbers of the settings in glibc's malloc.h."""


class AlreadyLocked(OSError):
    """Another process holds the lock of a folder."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; sync it and rename it to `path` when the block ends without an error.

    If an error, Ctrl-C or a full disk interrupts the block, `path` keeps its earlier content, or stays absent. The next process
    that writes to the folder removes the temporary files of killed ones.

    Raises:
        OSError: the file system refuses; the error names `path`.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only the suffix of the name is kept, because some writers need it and a full copy of the name could be too long.
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
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a hidden temporary folder next to `path`; rename it to `path` when the block ends without an error.

    `path` must not exist, and stays absent if the block is interrupted. With `replace` it may exist, and is replaced at the
    end; a process killed between the two renames leaves none. The next process that writes to the folder removes the temporary
    folders of killed ones.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        work = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        try:
            yield work
            work.chmod(0o777 & ~_umask())
            if replace and path.exists():
                _remove_folder(path)
            work.rename(path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _remove_folder(path: Path) -> None:
    """Remove a folder; a killed process leaves all of it, or nothing under its name."""
    aside = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
    try:
        path.rename(aside / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV, quoted as in RFC 4180, also cells with a carriage return; lines end with a newline."""
    return "".join(map(_csv_line, rows))


def _csv_line(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    # The writer quotes the characters that its own end of a line has, and by "\n" alone no "\r".
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()[:-2] + "\n"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors of the file system name `path`, if they name no file, a temporary one, or one in a temporary folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None and _CUT_SHORT.search(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if error.filename is None or any(part.startswith(TEMPORARY) for part in Path(os.fsdecode(error.filename)).parts):
            error.filename = str(path)
        raise
    except Exception as error:
        number = next((number for text, number in ERRNO_BY_TEXT.items() if text in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def folder_lock(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock `folder` while the block runs; the operating system releases the lock whenever the process ends.

    On a file system without locks, the block runs without one and a warning is logged.

    Args:
        folder: an existing folder; a file `lock` is created in it.
        wait: wait until another process releases the lock; else raise AlreadyLocked.
    """
    descriptor = None
    try:
        try:
            # Opened for writing, because NFS gives no exclusive lock on a file that is open for reading only.
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            _without_lock(error, folder)
        else:
            lock(descriptor, folder, wait)
        yield
    finally:
        _close(descriptor)


def lock(descriptor: int, path: Path, wait: bool = False) -> None:
    """Lock an open file for as long as it stays open; on a file system without locks a warning is logged.

    Args:
        descriptor: the file, open for writing.
        path: what the lock is for, for messages.
        wait: wait until another process releases the lock.

    Raises:
        AlreadyLocked: another process holds the lock, and `wait` is off.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise AlreadyLocked(errno.EWOULDBLOCK, "Another process is using it", str(path)) from None
    except OSError as error:
        _without_lock(error, path)


def _without_lock(error: OSError, path: Path) -> None:
    """Warn that `path` is used without a lock; raises an error that is not the lack of locks."""
    if error.errno not in NO_LOCKS:
        raise error
    logging.getLogger(__name__).warning(
        "%s cannot be locked (%s); make sure that no other process uses it.", path, error.strerror
    )


def require_absent(path: Path) -> None:
    """Raise InputError if an output exists already."""
    if path.exists():
        raise InputError(f"{path} exists already; choose another --out, or remove it.")


def find_link(folder: Path, depth: int = 2) -> Path | None:
    """Return the first symbolic link in `folder` and `depth` - 1 levels below it; None if there is none.

    A link in somebody else's folder could redirect reads and writes to any file.
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
    """Remove temporary files of this machine's ended processes, once per process and folder."""
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
    descriptor = os.open(path, os.O_RDWR)  # some file systems do not sync a file that is open for reading only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that is writable, but not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The umask can only be read by setting it. Without it, mkstemp's mode 0600 would hide results from the user's group.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(path: Path, remedy: str = "restore it or train again") -> dict[str, Any]:
    """Read a JSON object; raises InputError with the remedy if the file is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no {path}, so the run folder is incomplete; {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: its top level is a {type(values).__name__}, not an object; {remedy}.")
    return values


@dataclass(frozen=True)
class Process:
    """One process of one machine."""

    number: int
    started: str
    """Start time in the system's unit; comparable only with others of the same machine."""
    host: str

    @classmethod
    def current(cls) -> "Process":
        """Return this process."""
        return _current(os.getpid())

    def is_local(self) -> bool:
        """Return whether it runs on this machine; only then `is_alive` is meaningful."""
        return self.host == host_name()

    def is_alive(self) -> bool:
        """Return whether a process of this machine has this number and start time."""
        return self.is_local() and _start_time(self.number) == self.started


@lru_cache(maxsize=1)
def _current(number: int) -> Process:
    return Process(number, _start_time(number) or "unknown", host_name())


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def short_name(host: str) -> str:
    """Return eight characters that identify a machine in a file name."""
    return hashlib.sha256(host.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def _start_time(number: int) -> str | None:
    """Return the start time of a process; None if there is no such process."""
    return _from_proc(number) if _has_proc() else _from_ps(number)


def _from_proc(number: int) -> str | None:
    try:
        text = (_PROC / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The program name is in parentheses and may contain spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _GONE else fields[19]


def _from_ps(number: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(number)]
    try:
        fields = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown" if _exists(number) else None
    return None if not fields or fields[0][0] in _GONE else "-".join(fields[1:]).replace(":", "")


def _exists(number: int) -> bool:
    try:
        os.kill(number, 0)
    except OverflowError:
        return False
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


@lru_cache(maxsize=1)
def _has_proc() -> bool:
    return (_PROC / "self" / "stat").is_file()


def keep_heap() -> bool:
    """Let malloc keep freed memory for reuse; returns whether the C library supports it (glibc only).

    By default glibc returns large pieces to the system when they are freed, and the kernel clears every page of the next ones:
    a third of EndoVAE's step on a CPU, half of an evaluation, and most of the time that OpenCV takes for a frame's channels.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 * 2**20)])
