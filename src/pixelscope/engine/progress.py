"""What a person sees while it runs: a moving bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

Numbers = Mapping[str, float | list[float]]
Labels = Mapping[str, str]


class Display(Protocol):
    """Shows how a training goes."""

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
    """Shows nothing: every rank but the first, and tests."""

    def show(self, images: int, numbers: Numbers) -> None:
        """Do nothing."""

    def advance(self, images: int) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A rich bar with time left, and under it the latest numbers."""

    def __init__(self, console: Console, total: int, start: int, labels: Labels) -> None:
        self._labels = labels
        columns = (
            TextColumn("images"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("training", total=total, completed=start)
        self._live = Live(self._bar, console=console, refresh_per_second=4)
        self._live.start()

    def show(self, images: int, numbers: Numbers) -> None:
        """Show the latest numbers under the bar."""
        self.advance(images)
        self._live.update(Group(self._bar, Text(line(numbers, self._labels))))

    def advance(self, images: int) -> None:
        """Move the bar to `images`."""
        self._bar.update(self._task, completed=images)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._live.stop()


QUIET = 5.0
"""Seconds between two plain lines of numbers: a log file is read after the run, where more of them only hide the others."""


class Lines:
    """A plain line of the latest numbers, at most every `QUIET` seconds.

    Numbers that come sooner wait for the next line, where a later value replaces an earlier one.
    """

    def __init__(self, console: Console, total: int, labels: Labels, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._total, self._labels, self._clock = console, total, labels, clock
        self._printed = -math.inf
        self._waiting: dict[str, float | list[float]] = {}
        self._images = 0

    def show(self, images: int, numbers: Numbers) -> None:
        """Print the latest numbers, or keep them for the next line."""
        self._images = images
        self._waiting |= numbers
        if self._clock() - self._printed >= QUIET:
            self._print()

    def _print(self) -> None:
        self.say(f"{self._images:>9,} of {self._total:,} images  {line(self._waiting, self._labels)}")
        self._waiting, self._printed = {}, self._clock()

    def advance(self, images: int) -> None:
        """Do nothing: lines do not move."""

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Print the numbers that still wait."""
        if self._waiting:
            self._print()


def display(total: int, start: int, labels: Labels) -> Display:
    """Return a bar where stderr is a terminal, else plain lines; `labels` are a task's."""
    console = Console(stderr=True)
    return Bar(console, total, start, labels) if console.is_terminal else Lines(console, total, labels)


def line(numbers: Numbers, labels: Labels) -> str:
    """Return the labelled ones of `numbers` as one line: the speed, what the task names in its order, the time left."""
    ordered = {"images_per_second": "images/s", **labels, "time_left": "left"}
    shown = [(label, numbers[name]) for name, label in ordered.items() if name in numbers]
    return "  ".join(f"{label} {_short(label, value)}" for label, value in shown if isinstance(value, float | int))


def _short(label: str, value: float) -> str:
    if label == "images/s":
        return f"{value:.0f}"
    return f"{int(value) // 3600}:{int(value) // 60 % 60:02d}:{int(value) % 60:02d}" if label == "left" else f"{value:.3g}"
