"""A run folder: the only thing that the stages after training read."""

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from pixelscope.errors import InputError
from pixelscope.files import LOCK, HeldElsewhere, held, naming, write_text

Stats = Mapping[str, float | list[float] | str]
UNBEGUN = {
    "config.yaml",
    "run.json",
    "stats.jsonl",
    "frames.json",
    "seen.safetensors",
    "samples",
    "classifiers",
    "checkpoints",
    "baseline",
}
"""What may lie in a run folder before the first checkpoint."""
_HALF_WRITTEN = re.compile(r"\.(run|config|frames|seen)-\w+\.(json|yaml|safetensors)")


class RunFolder:
    """The files of one run, by name; made by `create`, found again by `open`."""

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
        self.report = path / "report.html"

    @classmethod
    def create(
        cls, runs: Path, name: str, run: Path | None = None, fill: "Callable[[RunFolder], None] | None" = None
    ) -> "RunFolder":
        """Make a run folder: `run` where given, which must not hold a run yet, else the next number and `name` in `runs`.

        A folder left by a start that died before its first checkpoint is replaced.
        fill: writes what the run begins with, the record first; where it fails, no folder is left.
        """
        path = run or runs / f"{_next_number(runs):05d}-{name}"
        cls.refuse_existing(path)
        folder = cls(path)
        if path.exists():
            folder._remove_unbegun()
        path.mkdir(parents=True)
        try:
            if fill is not None:
                fill(folder)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return folder

    @classmethod
    def refuse_existing(cls, path: Path) -> None:
        """Raise InputError where `path` exists, unless it is empty or left by a start that died before its first checkpoint.

        A path that is no UTF-8 is refused too: checkpoints in it could be written and not read.
        """
        _require_text(path)
        if path.exists() and not cls(path).is_unbegun():
            other = f"continue it with --resume {path}" if cls(path).record.is_file() else "remove it"
            raise InputError(f"{path} exists already; name another folder, or {other}.")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Find an existing run; raises InputError where `path` is not one."""
        run = cls(Path(path))
        _require_text(run.path)
        if run.record.is_file() and run.config.is_file():
            return run
        if run.path.is_dir() and run.is_unbegun():
            raise InputError(
                f"{path} is not a run folder yet: its training was stopped before anything was written; give the command that "
                "started it once more, which replaces the folder."
            )
        raise InputError(f"{path} is not a run folder (no run.json and config.yaml in it); give one that training made.")

    def is_unbegun(self) -> bool:
        """Return whether the folder is empty, or left by a start that died before its first checkpoint.

        The record is the first file that a start writes; a folder without one holds somebody else's files.
        """
        if self.path.is_symlink() or not self.path.is_dir():
            return False
        names = {path.name for path in self.path.iterdir() if not _HALF_WRITTEN.fullmatch(path.name)} - {LOCK}
        if not self.record.is_file():
            return not names
        return names <= UNBEGUN and not self.checkpoint_files() and "images" not in self._begun()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that trains this run; raises InputError where another one does."""
        try:
            with held(self.path, wait=False):
                yield
        except HeldElsewhere:
            raise InputError(f"{self.path} is being trained by another process; wait for its end, or stop it.") from None

    def _remove_unbegun(self) -> None:
        with self.held():
            shutil.rmtree(self.path)

    def _begun(self) -> Mapping[str, Any]:
        try:
            return self.read_record()
        except InputError:  # damaged: it may have been a run, so it is not removed
            return {"images": 0}

    def read_record(self) -> dict[str, Any]:
        """Return the content of run.json; raises InputError where it is damaged, or was written by version 0.1."""
        record = read_json(self.record)
        used = record.get("versions")
        writer = str(used.get("pixelscope", "")) if isinstance(used, dict) else ""
        if writer.startswith("0.1."):
            raise InputError(
                f"{self.path} is a run of version {writer} of pixelscope, which this version does not read; use that version, "
                "or train again."
            )
        return record

    def require_finished(self, record: Mapping[str, Any] | None = None) -> None:
        """Raise InputError where the training has not come to its end; `record`: run.json, where it was read already."""
        record = self.read_record() if record is None else record
        if record.get("state") != "finished":
            raise InputError(
                f"The training of {self.path} is not finished ({record.get('images', 0):,} images so far); continue with "
                f"--resume {self.path}, or use its newest weights as they are with --checkpoint last."
            )

    def update_record(self, **values: Any) -> None:
        """Set top-level entries of run.json, keeping the others."""
        before = read_json(self.record) if self.record.is_file() else {}
        write_text(self.record, json.dumps(before | values, indent=2) + "\n")

    def append_stats(self, line: Stats) -> None:
        """Add one line to stats.jsonl."""
        with naming(self.stats), self.stats.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def forget_stats_after(self, images: int) -> None:
        """Drop the lines written after a checkpoint that a resumed run starts from, a cut-off last line too."""
        lines = self.stats.read_text(encoding="utf-8").splitlines() if self.stats.is_file() else []
        kept = [line for line in lines if _images_of(line) <= images]
        write_text(self.stats, "".join(f"{line}\n" for line in kept))

    def checkpoint_files(self) -> list[Path]:
        """Return the numbered checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("images-*.safetensors"))


def read_json(path: Path, remedy: str = "restore it or train again") -> dict[str, Any]:
    """Read a JSON object; raises InputError with the remedy where the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no {path}; is the run folder complete?") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}.") from None


def read_stats(path: Path) -> list[dict[str, Any]]:
    """Read the lines of stats.jsonl; a last line that a killed run left unfinished is skipped.

    Raises:
        InputError: another line is not JSON, or has no kind and number of images.
    """
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    found = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text) if text else None
        except ValueError:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number} is not valid JSON; remove the line.") from None
        if not text:
            continue
        if not isinstance(line, dict) or not isinstance(line.get("images"), int) or "kind" not in line:
            raise InputError(f"{path}, line {number} is not a line of statistics (no kind and images); remove the line.")
        found.append(line)
    return found


def versions(packages: Iterable[str] = ("pixelscope", "torch", "lightning-fabric", "numpy", "safetensors")) -> dict[str, str]:
    """Return the version of Python and of each package."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def command_line() -> str:
    """Return the command of this process, quoted for a shell; the program by its name alone."""
    program = Path(sys.argv[0])
    name = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*name, *sys.argv[1:]])


def git_revision() -> str | None:
    """Return the revision of the source tree that this package runs from, with `+changes` where it was edited."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _next_number(runs: Path) -> int:
    taken = [int(match[1]) for path in runs.glob("*") if (match := re.match(r"(\d{5})-", path.name))]
    return max(taken, default=-1) + 1


def _images_of(line: str) -> float:
    try:
        return json.loads(line)["images"]
    except ValueError:
        return float("inf")


def _require_text(path: Path) -> None:
    named = str(path).encode("utf-8", "backslashreplace").decode()
    if named != str(path):
        raise InputError(f"The path {named} is not UTF-8, which checkpoints need; rename the folder, or name another.")
