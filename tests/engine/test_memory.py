"""Memory that a step gives back stays with the process: counted in page faults, not in time."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from pixelscope.files import keep_heap
if sys.argv[1] == "kept":
    assert keep_heap()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    if step == 10:  # the first ones find their places
        before = faults()
    torch.zeros(12 * 2**20).add_(1)
print(faults() - before)
"""


def _faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_used_again() -> None:
    kept, returned = _faults("kept"), _faults("returned")
    assert returned >= 10 * 24  # ten tensors of 48 MB, in pages of 4 KB or, where the system has them, of 2 MB
    assert kept < returned / 4
