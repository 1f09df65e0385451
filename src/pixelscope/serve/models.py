"""The runs and detectors that the app lists, their opened models, and the thread that calls these models.

The thread has a bounded queue. A request gets 503 with Retry-After if the queue is full or the wait is too long.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pixelscope
from pixelscope.errors import InputError

T = TypeVar("T")

MAX_OPEN = 4
"""Maximum number of models in memory."""
QUEUE_SIZE = 48
"""Maximum number of calls that wait or run."""
PATIENT = 4
"""Number of calls that wait for their turn without a time limit."""
LONGEST_WAIT = 2.0
"""Seconds that each further call waits for its turn; after that the request is answered with 503."""


class ModelCache:
    """Runs and detectors in some folders, and the models last used; each is found by its listed name only."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = list(places)
        self._models: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def runs(self) -> list[Any]:
        """Return all runs, the newest first; no two runs or detectors have one name."""
        return self._listed()[0]

    def runs_of(self, system: str) -> list[Any]:
        """Return the runs of a system, the newest first."""
        return [run for run in self.runs() if run.system == system]

    def detectors(self) -> list[Any]:
        """Return all detectors, the newest first."""
        return self._listed()[1]

    def run(self, name: str) -> Any:
        """Return the run of this name; raises InputError if no listed run has it, whatever path it spells."""
        found = next((run for run in self.runs() if run.name == name), None)
        if found is None:
            raise InputError(f"There is no run {name[:80]}, or it was removed; choose one from the list of runs.")
        return found

    def detector(self, name: str) -> Any:
        """Return the detector of this name, or None if no listed detector has it."""
        return next((one for one in self.detectors() if one.name == name), None)

    def generator(self, name: str) -> Any:
        """Return the generator of a run of PixelDA, with the newest finished baseline of the same classes."""
        run = self.run(name)
        baselines = [other for other in self.runs_of("baseline") if other.state == "finished"]
        key = ("generator", *(part for one in (run, *baselines) for part in (str(one.path), str(one.changed))))
        return self._open(key, lambda: _open_generator(run.path, [other.path for other in baselines]))

    def vae(self, name: str) -> Any:
        """Return the VAE of a run of EndoVAE."""
        run = self.run(name)
        key = ("vae", str(run.path), str(run.images), str(run.changed))
        return self._open(key, lambda: pixelscope.endovae.InteractiveVAE(run.path))

    def analyzer(self, name: str) -> Any:
        """Return the detector of this name, or else the VAE of a run, to analyze frames with."""
        found = self.detector(name)
        if found is None:
            return self.vae(name)
        key = ("detector", str(found.path), str(found.changed))
        return self._open(key, lambda: pixelscope.endovae.InteractiveDetector(found.path))

    def _listed(self) -> tuple[list[Any], list[Any]]:
        """Return runs and detectors with names that tell them apart."""
        runs, detectors = pixelscope.find_runs(self.places), pixelscope.endovae.find_detectors(self.places)
        folders = [*(run.path for run in runs), *(one.folder for one in detectors)]
        return (
            [replace(run, name=_own_name(run.path, folders)) for run in runs],
            [replace(one, name=_own_name(one.folder, folders)) for one in detectors],
        )

    def _open(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._models:
                self._models[key] = make()
                while len(self._models) > MAX_OPEN:
                    self._models.popitem(last=False)
            self._models.move_to_end(key)
            return self._models[key]


def _own_name(folder: Path, folders: Sequence[Path]) -> str:
    """Return the name of a folder, followed by as many of those above it as tell it from the others of that name."""
    alike, depth = {other.parts for other in folders if other.name == folder.name}, 1
    while sum(parts[-depth:] == folder.parts[-depth:] for parts in alike) > 1:
        depth += 1
    return " in ".join(reversed(folder.parts[-depth:]))


def _open_generator(run: Path, baselines: Sequence[Path]) -> Any:
    for baseline in baselines:
        try:
            return pixelscope.pixelda.InteractiveGenerator(run, baseline)
        except InputError:
            continue
    return pixelscope.pixelda.InteractiveGenerator(run)


class QueueFull(Exception):
    """Too many calls wait, or those before this one take too long."""


class Worker:
    """Runs the calls of many requests one after the other: a network on a CPU uses all cores by itself."""

    def __init__(self, queue_size: int = QUEUE_SIZE, longest_wait: float = LONGEST_WAIT) -> None:
        self.queue_size, self.longest_wait, self._taken = queue_size, longest_wait, 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pixelscope-serve")

    async def submit(self, call: Callable[[], T]) -> T:
        """Run `call` in its turn and return its result; raises QueueFull if too many calls wait, or it would wait too long."""
        if self._taken >= self.queue_size:
            raise QueueFull
        job, loop = self._pool.submit(call), asyncio.get_running_loop()
        # Cancels it only while it waits.
        deadline = loop.call_later(self.longest_wait, job.cancel) if self._taken >= PATIENT else None
        self._taken += 1
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # not the request, but the job was cancelled
                raise QueueFull from None
            raise
        finally:
            self._taken -= 1
            if deadline is not None:
                deadline.cancel()

    def close(self) -> None:
        """Finish the running call, drop the waiting ones and stop."""
        self._pool.shutdown(cancel_futures=True)
