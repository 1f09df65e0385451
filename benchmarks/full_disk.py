"""A full disk at every write: python -m benchmarks.full_disk [--every 1] [--only CASE] [--out FILE].

Each command runs in a process of its own, on a disk that is full from its Nth write on, for every N (or every few). A library
that is loaded before the program says so, and thereby to Python, NumPy, safetensors and the system's copying alike. The command
must end with one sentence that says what is kept, and that must be there: every file whole, and those of before as they were,
or as the command was to leave them. Given again with space on the disk, it must leave what an undisturbed one leaves, to the
bit but for times. Needs a C compiler.
"""

import argparse
import ctypes
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

import pixelscope
from benchmarks.kills import CASES, Attempts, Case, contents
from benchmarks.small import small_settings
from pixelscope.cli.errors import format_error
from pixelscope.errors import InputError

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long seen = 0, room = -1;

void disk_watch(const char *path, long writes) { strncpy(folder, path, PATH_MAX - 1); seen = 0; room = writes; }
long disk_writes(void) { return seen; }

static int inside(const char *path) { return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0; }

static int no_room(const char *path) {
  if (!inside(path)) return 0;
  long number = __sync_add_and_fetch(&seen, 1);
  if (room < 0 || number <= room) return 0;
  errno = ENOSPC;
  return 1;
}

static int no_room_for(int file) {
  char name[64], path[PATH_MAX];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  int before = errno;
  ssize_t length = readlink(name, path, PATH_MAX - 1);
  errno = before;
  if (length <= 0) return 0;
  path[length] = 0;
  return no_room(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int f, const void *b, size_t n) { return no_room_for(f) ? -1 : REAL(write)(f, b, n); }
ssize_t pwrite(int f, const void *b, size_t n, off_t o) { return no_room_for(f) ? -1 : REAL(pwrite)(f, b, n, o); }
ssize_t writev(int f, const struct iovec *v, int n) { return no_room_for(f) ? -1 : REAL(writev)(f, v, n); }
size_t fwrite(const void *b, size_t s, size_t n, FILE *f) { return no_room_for(fileno(f)) ? 0 : REAL(fwrite)(b, s, n, f); }
int fsync(int f) { return no_room_for(f) ? -1 : REAL(fsync)(f); }
int mkdir(const char *p, mode_t m) { return no_room(p) ? -1 : REAL(mkdir)(p, m); }
ssize_t copy_file_range(int i, off_t *a, int o, off_t *b, size_t n, unsigned f) {
  return no_room_for(o) ? -1 : REAL(copy_file_range)(i, a, o, b, n, f);
}
ssize_t sendfile(int o, int i, off_t *a, size_t n) {
  ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile");
  return no_room_for(o) ? -1 : real(o, i, a, n);
}
static int opened(const char *name, const char *p, int flags, mode_t m) {
  if ((flags & O_CREAT) && access(p, F_OK) && no_room(p)) return -1;
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
  return real(p, flags, m);
}
#define OPEN(name) int name(const char *p, int flags, ...) { \
  va_list list; va_start(list, flags); mode_t m = flags & O_CREAT ? va_arg(list, mode_t) : 0; va_end(list); \
  return opened(#name, p, flags, m); }
OPEN(open)
OPEN(open64)
"""
PRELOADED = "PIXELSCOPE_BENCHMARK_DISK"
"""Variable that holds the library's path once it is loaded."""


@dataclass
class Count:
    """What came of one command."""

    writes: int = 0
    tried: int = 0
    same: int = 0
    different: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Each different first sentence, places left out."""


def _ablate(place: Path, given: Path) -> None:
    """Run a grid of two conditions one after another in this process, as without submitit."""
    from pixelscope.pixelda.ablation import jobs, runner

    jobs.has_extra = runner.has_extra = lambda extra: False
    settings = small_settings("pixelda", given)
    settings["training"] = {**settings["training"], "images": 32}
    conditions = {"full": {"claim": "All of it."}, "gap": {"claim": "The gap.", "system": "baseline"}}
    grid = {"preset": "paper", "seeds": [0], "reference": "full", "base": settings, "conditions": conditions}
    (given / "grid.yaml").write_text(yaml.safe_dump(grid))
    found = pixelscope.pixelda.ablate(str(given / "grid.yaml"), place / "out", resume=True)
    missing = [reason for condition in found.conditions for reason in condition.missing]
    if missing:
        raise InputError(f"{missing[0]} Finished runs are kept; give the command again with --resume.")


ALL = {**CASES, "ablate": Case("ablate", "", _ablate)}


ARGUMENTS = {"ablate": ("pixelda", "ablate")} | {
    f"train-{name}": tuple(system.command.split()) for name, system in pixelscope.SYSTEMS.items()
}
"""The first words of the command line that does the same; messages name them."""


class FullDisk(Attempts):
    """Attempts on a disk that is full from a write on."""

    def __init__(self, work: Path, cases: list[Case]) -> None:
        self.disk = ctypes.CDLL(os.environ[PRELOADED])
        self.disk.disk_writes.restype = ctypes.c_long
        super().__init__(work, random.Random(0), cases)

    def all(self, case: Case, every: int, done: Callable[[Count], None]) -> None:
        """Fill the disk at each of the command's writes, or at each `every`th."""
        count, (expected, _) = Count(), self._uninterrupted(case)
        count.writes = self._limited(case, self._place(case, self.work / "attempt"), -1)[1]
        for room in range(0, count.writes, every):
            place = self._place(case, self.work / "attempt")
            before = contents(place)
            said, _ = self._limited(case, place, room)
            wrong = what_is_wrong(said, place, before, expected)
            again = self._in_a_process(case.work, place, None)
            found = contents(place)
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            count.tried += 1
            sentence = re.sub(r"\d+", "N", said.replace(str(place), "OUT").replace(str(self.work), "WORK"))
            if again or differing or wrong:
                reason = wrong or f"then {again or ', '.join(differing)}"
                count.different.append(f"full from write {room + 1}: {said or 'no error'}; {reason}")
                print(f"{case.name}: {count.different[-1]}", flush=True)
            else:
                count.same += 1
            if sentence not in count.said and len(count.said) < 40:
                count.said.append(sentence)
            done(count)

    def _limited(self, case: Case, place: Path, room: int) -> tuple[str, int]:
        """Work on a disk with room for so many writes; returns what the command line would print, and how many there were."""
        note = self.work / "writes.json"

        def work(place: Path, given: Path) -> None:
            self.disk.disk_watch(str(place).encode(), room)
            said = ""
            try:
                case.work(place, given)
            except Exception as error:  # noqa: BLE001 - what the user would see is the result
                failure = format_error(error, ARGUMENTS.get(case.name, ()))
                said = failure.line if failure else f"{type(error).__name__}: {error}"
            note.write_text(json.dumps([said, self.disk.disk_writes()]))

        ended = self._in_a_process(work, place, None)
        if ended:
            return ended, 0
        said, writes = json.loads(note.read_text())
        return said, writes


def what_is_wrong(said: str, place: Path, before: dict[str, object], expected: dict[str, object]) -> str:
    """Return what is wrong with a command's last sentence and with what it left on a full disk; "" for nothing.

    before: contents of the place before. expected: those that an undisturbed command leaves.
    """
    if not said:  # what failed was not needed
        return ""
    if not said.startswith("Error: "):
        return "is no message"
    if not re.search("kept|checkpoint|no run was started", said):
        return "does not say what is kept"
    try:
        found = contents(place)
    except Exception as error:  # noqa: BLE001 - a half-written file is what is looked for
        return f"left a damaged file: {error}"
    lost = [name for name, content in before.items() if found.get(name) not in (content, expected.get(name))]
    if lost:
        return f"changed {', '.join(lost)}"
    named = re.search(r"its checkpoint after ([\d,]+) images", said)
    newest = sorted((place / "run" / "checkpoints").glob("images-*"))
    if named and (not newest or int(newest[-1].stem.removeprefix("images-")) != int(named[1].replace(",", ""))):
        return "names a checkpoint that is not the newest one"
    return "started a run" if "no run was started" in said and (place / "run" / "config.yaml").exists() else ""


def main() -> int:
    """Fill, compare, count; the exit code is 1 where anything differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_disk", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=1, help="every so many writes")
    parser.add_argument("--only", choices=ALL, action="append")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/full_disk.json"))
    chosen = parser.parse_args()
    if PRELOADED not in os.environ:
        return _with_library(sys.argv[1:])
    torch.set_num_threads(1)
    work, counts = Path(tempfile.mkdtemp(prefix="disk-")), dict[str, Any]()
    if chosen.out.is_file():
        counts = json.loads(chosen.out.read_text())["cases"]
    try:
        names = chosen.only or list(ALL)
        attempts = FullDisk(work, [ALL[name] for name in names])
        for name in names:

            def store(count: Count, name: str = name) -> None:
                counts[name] = vars(count)
                summary = {"command": "python -m benchmarks.full_disk", "every": chosen.every, "cases": counts}
                chosen.out.parent.mkdir(parents=True, exist_ok=True)
                chosen.out.write_text(json.dumps(summary, indent=1) + "\n")

            attempts.all(ALL[name], chosen.every, store)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({name: {key: count[key] for key in ("writes", "tried", "same")} for name, count in counts.items()}))
    return 1 if any(count["different"] for count in counts.values()) else 0


def _with_library(arguments: list[str]) -> int:
    """Build the library, and run this program again with it."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "disk.c", Path(folder) / "disk.so"
        source.write_text(SOURCE)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), PRELOADED: str(library)}
        command = [sys.executable, "-m", "benchmarks.full_disk", *arguments]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
