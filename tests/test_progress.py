"""What a person sees while a training runs."""

import io

import pytest
from rich.console import Console

from pixelscope.runs.progress import ProgressBar, TrainingBar, TrainingLines, format_numbers

NUMBERS = {"loss/b": 0.25, "images_per_second": 61.7, "loss/a": 1.0, "time_left": 3725.0, "histogram": [0.5], "other": 9.0}
LABELS = {"loss/a": "A", "loss/b": "B"}


def test_a_line_shows_what_the_task_labels_in_its_order() -> None:
    assert format_numbers(NUMBERS, LABELS) == "images/s 62  A 1  B 0.25  left 1:02:05"


def test_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    TrainingLines(Console(file=out, width=40), 1000, LABELS).show(500, NUMBERS)
    assert out.getvalue() == "      500 of 1,000 images  images/s 62  A 1  B 0.25  left 1:02:05\n"


def test_progress_is_at_most_the_total() -> None:
    """The last batch of a small set is larger than what is left of it."""
    out = io.StringIO()
    TrainingLines(Console(file=out, width=80), 144, LABELS).show(256, {"loss/a": 1.0})
    assert "144 of 144 images" in out.getvalue()
    out = io.StringIO()
    bar = TrainingBar(Console(file=out, width=100, force_terminal=True, color_system=None), 144, 0, LABELS)
    bar.advance(256)
    bar.close()
    assert "144/144" in out.getvalue() and "256" not in out.getvalue()


def test_plain_lines_come_at_most_every_five_seconds_and_lose_no_number() -> None:
    out, now = io.StringIO(), [0.0]
    lines = TrainingLines(Console(file=out, width=80), 1000, LABELS, clock=lambda: now[0])
    for second, numbers in (
        (0, {"loss/a": 1.0}),
        (1, {"loss/a": 2.0, "loss/b": 5.0}),
        (4.9, {"loss/a": 3.0}),
        (6, {"loss/a": 4.0}),
    ):
        now[0] = second
        lines.show(100 + int(second), numbers)
    now[0] = 7
    lines.show(200, {"loss/b": 6.0})
    lines.close()
    lines.close()
    assert out.getvalue().splitlines() == [
        "      100 of 1,000 images  A 1",
        "      106 of 1,000 images  A 4  B 5",
        "      200 of 1,000 images  B 6",
    ]


def test_a_bar_shows_the_items_done_on_a_terminal_and_nothing_on_a_pipe() -> None:
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
        with ProgressBar("scoring", console) as progress:
            progress(3, 8)
            progress(8, 8)
        assert ("scoring" in out.getvalue() and "8/8" in out.getvalue()) == terminal
        assert bool(out.getvalue().strip()) == terminal


def test_a_bar_that_is_never_called_shows_nothing() -> None:
    out = io.StringIO()
    with ProgressBar("scoring", Console(file=out, force_terminal=True)):
        pass
    assert out.getvalue() == ""


def test_an_interruption_while_a_bar_starts_stays_an_interruption() -> None:
    class Interrupted(Console):
        def show_cursor(self, show: bool = True) -> bool:
            if not show:
                raise KeyboardInterrupt
            return super().show_cursor(show)

    with pytest.raises(KeyboardInterrupt), ProgressBar("scoring", Interrupted(file=io.StringIO())) as progress:
        progress(3, 8)


def test_a_terminal_shows_bar_numbers_and_warnings() -> None:
    out = io.StringIO()
    bar = TrainingBar(Console(file=out, width=100, force_terminal=True, color_system=None), 1000, 0, LABELS)
    bar.show(500, NUMBERS)
    bar.say("warning: [D] overpowers")
    bar.close()
    assert "500/1000" in out.getvalue()
    assert "A 1  B 0.25" in out.getvalue()
    assert "warning: [D] overpowers" in out.getvalue()
