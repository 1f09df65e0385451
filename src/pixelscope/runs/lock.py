"""The lock on a run folder: one process at a time writes to it.

Two things make the lock. The operating system's lock on the file `lock` is released however a process ends, and does not exist
on every file system. `lock.json` says which process holds the lock, for people, for readers, and for other machines; its
modification time is the process's last sign of life.
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
from pixelscope.files import UNREADABLE, HeldElsewhere, held, naming, write_text
from pixelscope.processes import Process

FACTS = "lock.json"
HEARTBEAT = 30.0
"""Seconds between two signs of life."""
SILENCE = 600.0
"""Seconds without a sign of life after which the lock of another machine may be taken over."""

State = Literal["alive", "silent", "gone"]


@dataclass(frozen=True)
class Holder:
    """The process that holds, or held, a lock."""

    process: int
    started: str
    host: str
    since: str
    """When it took the lock, in local time with its offset from UTC."""
    task: str
    """What it does to the run, as a participle: `trained`."""
    token: str
    """Tells this lock from every other one."""

    @classmethod
    def new(cls, task: str) -> "Holder":
        """Return this process as a holder."""
        own = Process.current()
        since = time.strftime("%Y-%m-%d %H:%M:%S%z")
        return cls(own.number, own.started, own.host, since, task, secrets.token_hex(8))

    def state(self, heartbeat: float) -> State:
        """Return whether it lives.

        A process of this machine is alive or gone. One of another machine is alive for `SILENCE` seconds after its last
        heartbeat, then silent: nobody here can know more.
        """
        process = Process(self.process, self.started, self.host)
        if process.is_local():
            return "alive" if process.is_alive() else "gone"
        return "alive" if time.time() - heartbeat < SILENCE else "silent"

    def describe(self) -> str:
        """Return who it is, for a message."""
        return f"process {self.process} on {self.host}, since {self.since}"


def find_holder(folder: Path) -> tuple[Holder, State] | None:
    """Return who holds the lock on a run folder, and whether it lives; None where nobody does.

    Only reads. A damaged lock.json counts as none: the operating system's lock still holds.
    """
    path = folder / FACTS
    try:
        values, heartbeat = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
        holder = Holder(**{name: kind(values[name]) for name, kind in Holder.__annotations__.items()})
    except UNREADABLE:
        return None
    return holder, holder.state(heartbeat)


def require_free(folder: Path, take_over: bool = False) -> None:
    """Raise InputError where another process holds the lock on a run folder, or may hold it.

    take_over: ignore a process of another machine that has given no sign of life for ten minutes.
    """
    found = find_holder(folder)
    if found is None:
        return
    holder, state = found
    if state == "alive":
        raise InputError(f"{folder} is being {holder.task} by {holder.describe()}; wait for its end, or stop it.")
    if state == "silent" and not take_over:
        raise InputError(
            f"{folder} was being {holder.task} by {holder.describe()}, which has given no sign of life for ten minutes; if it "
            "has ended, give --take-over."
        )


class RunLock:
    """A lock that this process holds."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        self._ended = threading.Event()
        # A daemon: a process that ends must not wait for its heart.
        self._thread = threading.Thread(target=self._beat, name="pixelscope-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise TrainingStopped where another process has taken the lock; asked before each write to the folder."""
        found = find_holder(self.folder)
        if found is not None and found[0].token != self.holder.token:
            raise TrainingStopped(
                f"{self.folder} has been taken over by {found[0].describe()}; this training has stopped and leaves it alone."
            )

    def is_lost(self) -> bool:
        """Return whether another process has taken the lock."""
        try:
            self.check()
        except TrainingStopped:
            return True
        return False

    def release(self) -> None:
        """Stop the heartbeat, and remove lock.json unless it is another process's by now."""
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
    """Be the one process that writes to a run folder while the block runs.

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
            stack.enter_context(held(folder, wait=False))
        except HeldElsewhere:
            # Its holder is one that `require_free` cannot see: just starting or ending, or without a readable lock.json.
            raise InputError(f"{folder} is being used by another process; wait for its end, or stop it.") from None
        require_free(folder, take_over)  # it may have been taken since, where the file system has no locks
        holder = Holder.new(task)
        with naming(folder / FACTS):
            write_text(folder / FACTS, json.dumps(asdict(holder), indent=1) + "\n")
        lock = RunLock(folder, holder)
        stack.callback(lock.release)
        yield lock
