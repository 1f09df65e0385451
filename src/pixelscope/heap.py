"""Keeps freed memory in the heap of the C library."""

import ctypes
import platform

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
