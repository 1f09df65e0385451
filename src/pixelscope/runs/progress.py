"""Progress on stderr: one bar on a terminal, plain lines of a training elsewhere."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

ProgressCallback = Callable[[int, int], None]
"""Called with the number of items done and the number of all items."""
Numbers = Mapping[str, float | list[float]]
Labels = Mapping[str, str]


def make_bar(console: Console, *, transient: bool = False) -> Progress:
    """Return the progress bar of this package: description, bar, items done and total, time elapsed and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
    )


class ProgressBar:
    """A `ProgressCallback` that shows a bar on a terminal, from the first call until all items are done.

    Example:
        with ProgressBar("scoring") as progress:
            pixelscope.endovae.score(run, paths, out, progress=progress)
    """

    def __init__(self, description: str, console: Console | None = None) -> None:
        """description: text before the bar, for example `preparing frames`."""
        self._description = description
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Move the bar to `done` of `total` items."""
        if self._bar is None:
            self._bar = make_bar(self._console, transient=True)
            self._bar.add_task(self._description, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        if done == total:
            self._bar.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # An interruption inside of rich's own start leaves nothing to stop; it must not become another error.
        with nullcontext() if error is None else suppress(IndexError):
            if self._bar is not None:
                self._bar.stop()


class Display(Protocol):
    """Shows the progress of a training."""

    def show(self, images: int, numbers: Numbers) -> None:
        """Show the latest numbers."""
        ...

    def advance(self, images: int) -> None:
        """Move the bar."""
        ...

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


class Silent:
    """Shows nothing: on every rank but the first, and in tests."""

    def show(self, images: int, numbers: Numbers) -> None:
        """Do nothing."""

    def advance(self, images: int) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TrainingBar:
    """The bar of images seen, with the latest numbers below it."""

    def __init__(self, console: Console, total: int, start: int, labels: Labels) -> None:
        self._total, self._labels = total, labels
        self._bar = make_bar(console)
        self._task = self._bar.add_task("images", total=total, completed=start)
        self._live = Live(self._bar, console=console, refresh_per_second=4)
        self._live.start()

    def show(self, images: int, numbers: Numbers) -> None:
        """Show the latest numbers below the bar."""
        self.advance(images)
        self._live.update(Group(self._bar, Text(format_numbers(numbers, self._labels))))

    def advance(self, images: int) -> None:
        """Move the bar to `images`."""
        self._bar.update(self._task, completed=min(images, self._total))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop the bar and leave it on the screen."""
        self._live.stop()


LINE_INTERVAL = 5.0
"""Minimum seconds between two plain lines of numbers."""


class TrainingLines:
    """A plain line of the latest numbers, at most every `LINE_INTERVAL` seconds.

    Numbers that come sooner wait for the next line, where a later value replaces an earlier one.
    """

    def __init__(self, console: Console, total: int, labels: Labels, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._total, self._labels, self._clock = console, total, labels, clock
        self._printed = -math.inf
        self._pending: dict[str, float | list[float]] = {}
        self._images = 0

    def show(self, images: int, numbers: Numbers) -> None:
        """Print the latest numbers, or keep them for the next line."""
        self._images = images
        self._pending |= numbers
        if self._clock() - self._printed >= LINE_INTERVAL:
            self._print()

    def _print(self) -> None:
        # The last batch may be larger than what is left.
        self.say(
            f"{min(self._images, self._total):>9,} of {self._total:,} images  {format_numbers(self._pending, self._labels)}"
        )
        self._pending, self._printed = {}, self._clock()

    def advance(self, images: int) -> None:
        """Do nothing: printed lines do not move."""

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Print the pending numbers."""
        if self._pending:
            self._print()


def training_display(total: int, start: int, labels: Labels) -> Display:
    """Return a bar if stderr is a terminal, else plain lines.

    Args:
        total: images of the whole training.
        start: images seen before.
        labels: the task's labels of the numbers to show, in order.
    """
    console = Console(stderr=True)
    return TrainingBar(console, total, start, labels) if console.is_terminal else TrainingLines(console, total, labels)


def format_numbers(numbers: Numbers, labels: Labels) -> str:
    """Return the labelled numbers as one line: speed, then those of `labels` in their order, then the time left."""
    ordered = {"images_per_second": "images/s", **labels, "time_left": "left"}
    shown = [(label, numbers[name]) for name, label in ordered.items() if name in numbers]
    return "  ".join(f"{label} {_format(label, value)}" for label, value in shown if isinstance(value, float | int))


def _format(label: str, value: float) -> str:
    if label == "images/s":
        return f"{value:.0f}"
    return f"{int(value) // 3600}:{int(value) // 60 % 60:02d}:{int(value) % 60:02d}" if label == "left" else f"{value:.3g}"
