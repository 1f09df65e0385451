"""The lock on a run folder: one process at a time writes to it.

The lock has two parts. The operating system locks the file `lock` and releases it whenever the process ends, but not every file
system supports this. `lock.json` names the process that holds the lock; its modification time is the last heartbeat.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pixelscope.errors import InputError, TrainingStopped
from pixelscope.files import UNREADABLE, AlreadyLocked, Process, folder_lock, naming, write_text

FACTS = "lock.json"
HEARTBEAT = 30.0
"""Seconds between two heartbeats."""
SILENCE = 600.0
"""Seconds without a heartbeat after which the lock of another machine may be taken over."""

State = Literal["alive", "silent", "gone"]


@dataclass(frozen=True)
class Holder:
    """The process that holds, or held, a lock."""

    process: int
    started: str
    host: str
    since: str
    """Local time at which it took the lock, with the offset from UTC."""
    task: str
    """What it does to the run, as a participle: `trained`."""
    token: str
    """Random identifier of this lock."""

    @classmethod
    def new(cls, task: str) -> "Holder":
        """Return this process as a holder."""
        own = Process.current()
        since = time.strftime("%Y-%m-%d %H:%M:%S%z")
        return cls(own.number, own.started, own.host, since, task, secrets.token_hex(8))

    def state(self, heartbeat: float) -> State:
        """Return whether the process is still running.

        A process of this machine is alive or gone. A process of another machine is alive for `SILENCE` seconds after its last
        heartbeat, and then silent, because this machine cannot know more.
        """
        process = Process(self.process, self.started, self.host)
        if process.is_local():
            return "alive" if process.is_alive() else "gone"
        return "alive" if time.time() - heartbeat < SILENCE else "silent"

    def describe(self) -> str:
        """Return the process in words, for a message."""
        return f"process {self.process} on {self.host}, since {self.since}"


def find_holder(folder: Path) -> tuple[Holder, State] | None:
    """Return the holder of the lock on a run folder, and whether it is still running; None if the folder is not locked.

    Nothing is written. A damaged lock.json counts as no lock; the operating system's lock is still in place.
    """
    path = folder / FACTS
    try:
        values, heartbeat = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
        holder = Holder(**{name: kind(values[name]) for name, kind in Holder.__annotations__.items()})
    except UNREADABLE:
        return None
    return holder, holder.state(heartbeat)


def require_free(folder: Path, take_over: bool = False) -> None:
    """Raise InputError if another process holds the lock on a run folder, or may hold it.

    take_over: ignore a process of another machine that has been silent for ten minutes.
    """
    found = find_holder(folder)
    if found is None:
        return
    holder, state = found
    if state == "alive":
        raise InputError(f"{folder} is being {holder.task} by {holder.describe()}; wait until it ends, or stop it.")
    if state == "silent" and not take_over:
        raise InputError(
            f"{folder} was being {holder.task} by {holder.describe()}, which has been silent for ten minutes; if it has "
            "ended, give --take-over."
        )


class RunLock:
    """A lock that this process holds."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        self._ended = threading.Event()
        # A daemon thread, so that it does not keep an ending process alive.
        self._thread = threading.Thread(target=self._beat, name="pixelscope-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise TrainingStopped if another process has taken over the lock; called before each write to the folder."""
        found = find_holder(self.folder)
        if found is not None and found[0].token != self.holder.token:
            raise TrainingStopped(
                f"{self.folder} has been taken over by {found[0].describe()}; this training stops and leaves the run unchanged."
            )

    def is_lost(self) -> bool:
        """Return whether another process has taken over the lock."""
        try:
            self.check()
        except TrainingStopped:
            return True
        return False

    def release(self) -> None:
        """Stop the heartbeat, and remove lock.json unless another process has taken it over."""
        self._ended.set()
        self._thread.join()
        if not self.is_lost():
            with suppress(OSError):
                (self.folder / FACTS).unlink()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            if not self.is_lost():
                with suppress(OSError):
                    os.utime(self.folder / FACTS)


@contextmanager
def locked(folder: Path, task: str, take_over: bool = False) -> Iterator[RunLock]:
    """Lock a run folder while the block runs, so that no other process writes to it.

    Args:
        folder: an existing run folder.
        task: what is done to the run, as a participle: `trained`.
        take_over: see `require_free`.

    Raises:
        InputError: another process holds the lock, or may hold it.
    """
    with ExitStack() as stack:
        require_free(folder, take_over)
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except AlreadyLocked:
            # `require_free` does not see this process: it is starting or ending, or its lock.json is unreadable.
            raise InputError(f"{folder} is being used by another process; wait until it ends, or stop it.") from None
        require_free(folder, take_over)  # on a file system without locks, it may have been taken meanwhile
        holder = Holder.new(task)
        with naming(folder / FACTS):
            write_text(folder / FACTS, json.dumps(asdict(holder), indent=1) + "\n")
        lock = RunLock(folder, holder)
        stack.callback(lock.release)
        yield lock
