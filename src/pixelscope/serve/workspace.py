"""What the app works on: run folders by name, and the studios opened of them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pixelscope
from pixelscope.errors import InputError

S = TypeVar("S")

OPEN = 4
"""Studios held open at most."""


class Workspace:
    """The runs that were named, or those in a folder; a run is only ever found by the name that it was listed with."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = list(places)
        self._studios: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def runs(self) -> list[Any]:
        """Return all runs, the newest first."""
        return pixelscope.find_runs(self.places)

    def run(self, name: str) -> Any:
        """Return one of them; raises InputError where none has this name, whatever path it may spell."""
        found = next((run for run in self.runs() if run.name == name), None)
        if found is None:
            raise InputError(f"There is no run called {name[:80]!r} (any more); choose one of the list.")
        return found

    def of(self, system: str) -> list[Any]:
        """Return the runs of a system, the newest first."""
        return [run for run in self.runs() if run.system == system]

    def for_page(self, address: str) -> list[Any]:
        """Return the runs that a page of the app works with, the newest first."""
        systems = {name for name, system in pixelscope.SYSTEMS.items() if system.page and system.page.address == address}
        return [run for run in self.runs() if run.system in systems]

    def styles(self, name: str) -> Any:
        """Return the studio of a run of PixelDA, with the newest baseline of the same classes beside it."""
        run = self.run(name)
        before = [other for other in self.of("baseline") if other.state == "finished"]
        return self._studio(("styles", name, str(run.images)), lambda: _styles(run.path, [one.path for one in before]))

    def frames(self, name: str) -> Any:
        """Return the studio of a run of EndoVAE."""
        run = self.run(name)
        key = ("frames", name, str(run.images), str(run.changed))
        return self._studio(key, lambda: pixelscope.endovae.InteractiveVAE(run.path))

    def _studio(self, key: tuple[str, ...], make: Callable[[], S]) -> S:
        with self._lock:
            if key not in self._studios:
                self._studios[key] = make()
                while len(self._studios) > OPEN:
                    self._studios.popitem(last=False)
            self._studios.move_to_end(key)
            return self._studios[key]


def _styles(run: Path, baselines: Sequence[Path]) -> Any:
    for baseline in baselines:
        try:
            return pixelscope.pixelda.InteractiveGenerator(run, baseline)
        except InputError:
            continue
    return pixelscope.pixelda.InteractiveGenerator(run)
