"""Identifies processes, says whether one is still running, and keeps the freed memory of this one.

A process is identified by its number and its start time, because the system reuses the numbers of ended processes.
"""

import ctypes
import errno
import hashlib
import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_PROC = Path("/proc")
_GONE = {"Z", "X", "x"}
"""States of a process that has ended: a zombie waits only for its parent to read its exit code."""


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


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Numbers of the settings in glibc's malloc.h."""


def keep_heap() -> bool:
    """Let malloc keep freed memory for reuse; returns whether the C library supports it (glibc only).

    By default glibc returns large pieces to the system when they are freed, and the kernel clears every page of the next ones:
    a third of EndoVAE's step on a CPU, half of an evaluation, and most of the time that OpenCV takes for a frame's channels.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 * 2**20)])
