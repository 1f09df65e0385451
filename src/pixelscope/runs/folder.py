"""A run folder: written by a training, and all that later stages read."""

import errno
import json
import logging
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelscope.errors import InputError, printable
from pixelscope.files import LOCK, TEMPORARY, UNREADABLE, atomic_file, find_link, naming, read_json, write_text
from pixelscope.runs.lock import FACTS, RunLock, find_holder, locked, require_free

if TYPE_CHECKING:
    import numpy as np

Stats = Mapping[str, float | list[float] | str]
START_FILES = {
    "config.yaml",
    "run.json",
    "stats.jsonl",
    "frames.json",
    "seen.safetensors",
    "samples",
    "classifiers",
    "checkpoints",
    "baseline",
    "tensorboard",
}
"""Files and folders of a run before its first checkpoint."""
FURTHER = ("frames.json", "seen.safetensors", "evaluation.csv", "anomaly.csv", "ablation.json", "search.json", "samples.npz")
"""Files of some runs only."""
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of a folder that can be read but not written to."""


class RunFolder:
    """The files of one run, by name; `create` makes a new run, `open` finds an existing one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.stats = path / "stats.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.classifiers = path / "classifiers"
        self.evaluation = path / "evaluation.json"
        self.baseline = path / "baseline"
        self.prior = path / "prior"
        self.report = path / "report.html"
        self._lock: RunLock | None = None

    @classmethod
    @contextmanager
    def create(
        cls,
        runs: Path,
        name: str,
        run: Path | None = None,
        fill: "Callable[[RunFolder], None]" = lambda folder: None,
        task: str = "trained",
    ) -> "Iterator[RunFolder]":
        """Create a run folder, and lock it while the block runs.

        A folder of a start that ended before its first checkpoint is replaced.

        Args:
            runs: parent of a folder called NUMBER-`name`, with the next free number; used if `run` is None.
            name: see `runs`.
            run: the folder to create; it must not contain a run.
            fill: writes the first files of the run, the record before all others. If it fails, the folder is removed.
            task: see `locked`.
        """
        folder = cls(_make_numbered(runs, name) if run is None else run)
        if run is not None:
            cls.refuse_existing(run)
            folder._remove_abandoned_start()
            run.mkdir(parents=True)
        with folder.locked(task):
            try:
                fill(folder)
            except BaseException:
                shutil.rmtree(folder.path, ignore_errors=True)
                raise
            yield folder

    @classmethod
    def refuse_existing(cls, path: Path) -> None:
        """Raise InputError if `path` exists, unless it is empty or an abandoned start.

        A path that is not UTF-8 is refused too, because checkpoints in it could be written but not read.
        """
        _require_usable(path)
        if path.exists() and not cls(path).is_abandoned_start():
            other = f"continue it with --resume {path}" if cls(path).record.is_file() else "remove it"
            raise InputError(f"{path} exists already; give another folder, or {other}.")
        require_free(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run; raises InputError if `path` is not a run folder, or files in it are links."""
        run = cls(Path(path))
        _require_usable(run.path)
        if run.record.is_file() and run.config.is_file():
            run._refuse_links()
            return run
        if run.path.is_dir() and run.is_abandoned_start():
            raise InputError(
                f"{path} is not a run folder yet: its training stopped before the first checkpoint; start it again with the "
                "same command, which replaces the folder."
            )
        if not run.path.exists():
            raise InputError(f"There is no file or folder {path}; give the path of one.")
        raise InputError(f"{path} is not a run folder (it has no run.json and config.yaml); give the folder of a training.")

    def is_abandoned_start(self) -> bool:
        """Return whether the folder is empty, or left by a start that ended before its first checkpoint.

        A start writes the record first, so the files of a folder without one belong to somebody else.
        """
        if self.path.is_symlink() or not self.path.is_dir():
            return False
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(TEMPORARY)} - {LOCK, FACTS}
        if not self.record.is_file():
            return not names
        return names <= START_FILES and not self.checkpoint_files() and "images" not in self._read_record_unless_damaged()

    def _refuse_links(self) -> None:
        own = [value for value in vars(self).values() if isinstance(value, Path) and value != self.path]
        for path in (*own, *(self.path / name for name in (*FURTHER, LOCK, FACTS))):
            link = path if path.is_symlink() else find_link(path, 1) if path.is_dir() else None
            if link is not None:
                raise InputError(
                    f"{link} is a link, which could lead to any file; if you trust it, replace it with the file itself."
                )

    @contextmanager
    def locked(self, task: str, take_over: bool = False) -> Iterator[None]:
        """Lock the folder while the block runs, so that no other process writes to it.

        Args:
            task: what is done to the run, as a participle: `trained`.
            take_over: take the lock of another machine's process that has been silent for ten minutes.

        Raises:
            InputError: another process holds the lock.
        """
        with locked(self.path, task, take_over) as self._lock:
            try:
                yield
            finally:
                self._lock = None

    @contextmanager
    def locked_if_free(self, task: str, take_over: bool = False) -> Iterator[bool]:
        """Lock the folder if possible; yields whether it is locked, and logs a warning with the reason if not.

        If it is not, the caller must not write to the folder.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.locked(task, take_over))
            except InputError as error:
                reason = str(error)
            except OSError as error:
                if error.errno not in READ_ONLY:
                    raise
                reason = f"{self.path} cannot be written to ({error.strerror})."
            else:
                yield True
                return
        logging.getLogger(__name__).warning("Nothing is written to the run folder: %s", reason)
        yield False

    def require_free(self, take_over: bool = False) -> None:
        """Raise InputError if another process writes to this folder, or may do so; see `locked`."""
        require_free(self.path, take_over)

    def is_in_use(self) -> bool:
        """Return whether a running process is known to write to this folder."""
        found = find_holder(self.path)
        return found is not None and found[1] == "alive"

    def was_locked(self) -> bool:
        """Return whether the folder has a lock file, whether its process is still running or not."""
        return find_holder(self.path) is not None

    def require_lock(self) -> None:
        """Raise TrainingStopped if another process has taken over the lock of this object."""
        if self._lock is not None:
            self._lock.check()

    def is_lost(self) -> bool:
        """Return whether another process has taken over the lock of this object."""
        return self._lock is not None and self._lock.is_lost()

    def _remove_abandoned_start(self) -> None:
        if self.path.exists():
            with self.locked("replaced"):
                shutil.rmtree(self.path)

    def _read_record_unless_damaged(self) -> Mapping[str, Any]:
        try:
            return self.read_record()
        except InputError:  # damaged: it may have been a run, so it is not removed
            return {"images": 0}

    def read_record(self) -> dict[str, Any]:
        """Return the content of run.json; raises InputError if it is damaged, or was written by version 0.1."""
        # Imported here, because it imports pydantic, which --help does not need.
        from pixelscope.runs.record import parse_record

        record = read_json(self.record)
        used = record.get("versions")
        writer = str(used.get("pixelscope", "")) if isinstance(used, dict) else ""
        if writer.startswith("0.1."):
            raise InputError(
                f"{self.path} is a run of version {writer} of pixelscope, which this version does not read; use that version, "
                "or train again."
            )
        parse_record(record, self.record)
        return record

    def require_finished(self, record: Mapping[str, Any] | None = None) -> None:
        """Raise InputError if the training is not finished; `record`: content of run.json, if it was read before."""
        record = self.read_record() if record is None else record
        if record.get("state") != "finished":
            raise InputError(
                f"The training of {self.path} is not finished ({record.get('images', 0):,} images so far); resume it by its "
                f"training command with --resume {self.path}, or use its newest weights as they are with --checkpoint last."
            )

    def update_record(self, **values: Any) -> None:
        """Set top-level entries of run.json, keeping the others."""
        self.require_lock()
        before = read_json(self.record) if self.record.is_file() else {}
        write_text(self.record, json.dumps(before | values, indent=2) + "\n")

    def append_stats(self, line: Stats) -> None:
        """Add one line to stats.jsonl."""
        self.require_lock()
        with naming(self.stats), self.stats.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_stats_after(self, images: int) -> None:
        """Drop the lines after the checkpoint from which a run resumes, and a truncated last line."""
        lines = self.stats.read_text(encoding="utf-8").splitlines() if self.stats.is_file() else []
        kept = [line for line in lines if _images_of(line) <= images]
        write_text(self.stats, "".join(f"{line}\n" for line in kept))

    def checkpoint_files(self) -> list[Path]:
        """Return the numbered checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("images-*.safetensors"))


def read_stats(path: Path) -> list[dict[str, Any]]:
    """Read the lines of stats.jsonl without empty entries; a truncated last line, left by a killed run, is skipped.

    Raises:
        InputError: another line is not JSON, or is not a line of statistics.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    found = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text) if text else None
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number} is not valid JSON; remove the line.") from None
        if not text:
            continue
        if not isinstance(line, dict) or not _is_line_of_statistics(line):
            raise InputError(
                f"{path}, line {number} is not a line of statistics (a kind, images, and numbers by name); remove the line."
            )
        found.append({name: value for name, value in line.items() if value is not None})
    return found


def _is_line_of_statistics(line: dict[str, Any]) -> bool:
    if not isinstance(line.get("kind"), str):
        return False
    counts = [line.get(name, 0) for name in ("images", "step")]
    if "images" not in line or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        return False
    # Measurements are named GROUP/NAME: numbers, but lists of them for histograms.
    lists = {name: isinstance(value, list) for name, value in line.items() if "/" in name and value is not None}
    if any(isinstance(line[name], str | bool) or found != name.startswith("histogram/") for name, found in lists.items()):
        return False
    return all(_is_statistic(value) for value in line.values())


def _is_statistic(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_number(one) for one in value)
    return value is None or isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    # An integer with more digits does not fit into a float.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)


def versions(packages: Iterable[str] = ("pixelscope", "torch", "lightning-fabric", "numpy", "safetensors")) -> dict[str, str]:
    """Return the version of Python and of each package."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def command_line() -> str:
    """Return the command of this process, quoted for a shell, with the program's name instead of its path."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*name, *sys.argv[1:]])


def git_revision() -> str | None:
    """Return the git revision of this package's source tree, with `+changes` if files in it differ."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _make_numbered(runs: Path, name: str) -> Path:
    """Create a folder with the next free number."""
    while True:
        taken = [int(match[1]) for path in runs.glob("*") if (match := re.match(r"(\d{5})-", path.name))]
        path = runs / f"{max(taken, default=-1) + 1:05d}-{name}"
        _require_usable(path)
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path


def _images_of(line: str) -> float:
    try:
        return json.loads(line)["images"]
    except ValueError:
        return float("inf")


def _require_usable(path: Path) -> None:
    named = printable(str(path))
    if named != str(path):
        raise InputError(f"The path {named} is not UTF-8, which checkpoints need; rename the folder, or give another.")
    try:
        path.exists()
    except OSError as error:
        raise InputError(f"The path {named[:100]} cannot be opened: {error.strerror}; give another folder.") from None


def save_arrays(path: Path, **arrays: "np.ndarray") -> None:
    """Write arrays as one .npz file, atomically."""
    import numpy as np  # the configurations import this module, and `--help` imports no NumPy

    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] - keyword arrays


def read_arrays(path: Path, dimensions: Mapping[str, int]) -> "dict[str, np.ndarray] | None":
    """Read the arrays named in `dimensions`; None if the file is missing, or an array is empty.

    Raises:
        InputError: the file is damaged, or an array has another number of dimensions.
    """
    import numpy as np

    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in dimensions}
    except UNREADABLE as error:
        raise InputError(f"{path} is damaged ({error}); delete it, or evaluate the run again.") from None
    wrong = [key for key, count in dimensions.items() if arrays[key].ndim != count]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} has shape {arrays[wrong[0]].shape}; delete the file, or evaluate again.")
    return arrays if all(len(array) for array in arrays.values()) else None
