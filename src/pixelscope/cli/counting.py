"""A bar on stderr while files are gone through."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress


class CountingBar:
    """Called with how many are done and how many there are; it appears with the first call and goes when all are done."""

    def __init__(self, what: str) -> None:
        """Name what is done, for example `preparing frames`."""
        self._what = what
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        if self._progress is None:
            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.add_task(self._what, total=total)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done)
        if done == total:
            self._progress.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
