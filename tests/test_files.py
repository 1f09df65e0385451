"""Files on file systems that can do less than a local disk, and what is said where one refuses."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from pixelscope.files import TEMPORARY, AlreadyLocked, atomic_folder, folder_lock, naming, write_text

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <stdlib.h>
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  struct stat s;
  if (fstat(fd, &s) == 0 && S_ISDIR(s.st_mode) == !getenv("FILES")) { errno = atoi(getenv("ERRNO")); return -1; }
  return real(fd);
}
int flock(int fd, int operation) { errno = atoi(getenv("ERRNO")); return -1; }
"""


@pytest.fixture(scope="module")
def poor_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that, loaded before a program, lets fsync and flock fail with the number in $ERRNO."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "disk.c").write_text(SOURCE)
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "disk.so"), str(folder / "disk.c"), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler")
    return folder / "disk.so"


def _run(program: str, folder: Path, library: Path, number: int, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LD_PRELOAD": str(library), "ERRNO": str(number), **more}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


WRITE = "from pathlib import Path; from pixelscope.files import write_text; write_text(Path('a.txt'), 'whole')"
HOLD = (
    "from pathlib import Path; from pixelscope.files import folder_lock\nwith folder_lock(Path('.'), wait=False): print('done')"
)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_is_passed_over(tmp_path: Path, poor_disk: Path, number: int) -> None:
    done = _run(WRITE, tmp_path, poor_disk, number)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize(("number", "more"), [(errno.EIO, {}), (errno.EIO, {"FILES": "1"}), (errno.EINVAL, {"FILES": "1"})])
def test_an_error_of_the_disk_is_not_passed_over(tmp_path: Path, poor_disk: Path, number: int, more: dict[str, str]) -> None:
    done = _run(WRITE, tmp_path, poor_disk, number, **more)
    assert done.returncode == 1
    assert "a.txt" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_it_goes_on_with_a_note(tmp_path: Path, poor_disk: Path, number: int) -> None:
    done = _run(HOLD, tmp_path, poor_disk, number)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "cannot be locked" in done.stderr


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(AlreadyLocked), folder_lock(tmp_path, wait=False):
        pass
    with folder_lock(tmp_path, wait=False):
        pass


def test_a_folder_whose_replacement_is_interrupted_is_not_left_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / "prior" / name, name)

    def interrupted(folder: Path, **_: object) -> None:
        next(path for path in sorted(Path(folder).rglob("*")) if path.is_file()).unlink()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "prior", replace=True) as work:
        write_text(work / "c", "c")
        monkeypatch.setattr(shutil, "rmtree", interrupted)
    assert {path.name for path in (tmp_path / "prior").glob("*")} in (set(), {"a", "b"}, {"c"})


def test_an_error_in_a_temporary_folder_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, atomic_folder(tmp_path / "new") as work:
        (work / "frames" / "1.txt").read_bytes()
    assert missing.value.filename == str(tmp_path / "new")


def test_a_temporary_file_is_told_by_the_name_it_was_to_get(tmp_path: Path) -> None:
    target = tmp_path / "stats.jsonl"
    with pytest.raises(OSError, match="No space") as full, naming(target):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(target))
    with pytest.raises(OSError, match="Read-only") as sealed, naming(target):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / f"{TEMPORARY}x1.jsonl"))
    assert sealed.value.filename == str(target)
    with pytest.raises(OSError, match="other") as other, naming(target):
        raise FileNotFoundError(errno.ENOENT, "No such file", "other.png")
    assert other.value.filename == "other.png"
    with pytest.raises(ValueError, match="a defect"), naming(target):
        raise ValueError("a defect")


@pytest.mark.skipif(not Path("/proc/version").is_file(), reason="no file system that takes no file")
def test_where_no_file_can_be_made_the_file_is_named() -> None:
    with pytest.raises(OSError, match="/proc/never.txt"):
        write_text(Path("/proc/never.txt"), "text")
