"""The entry point: run a command, turn what the user can mend into one line and an exit code."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelscope.cli.help import rendered

WINDOWS = "Error: Pixelscope does not run on Windows; use Linux or macOS, or the Windows Subsystem for Linux."
CLOSED_PIPE = 141
"""What a shell reports of a program whose reader (`| head`) has seen enough: 128 + SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (by default the process's own arguments) and return its exit code.

    0: done. 2: something the user can mend, told in one line on stderr. 130: interrupted. Any other error is a defect of
    the program and leaves as the exception that it is.
    """
    _open_closed_streams()
    _take_any_text()
    if sys.platform == "win32":
        print(WINDOWS, file=sys.stderr)
        return 2
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with _stopped_by_sigterm():
            _run(given)
        # A full disk or a closed pipe shows here rather than in the interpreter's shutdown, where nobody can explain it.
        sys.stdout.flush()
    except BrokenPipeError:
        _settle_output()
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        from pixelscope.cli.failures import explain

        failure = explain(error, given)
        if failure is None:
            raise
        with suppress(OSError):
            print(failure.line, file=sys.stderr)
        _settle_output()
        return failure.code
    return 0


def _open_closed_streams() -> None:
    """Write nowhere what goes to a stream that the shell has closed (`>&-`), which Python leaves as None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open as long as it runs


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that half-written files are removed; a training has a way of its own."""

    def stop(number: int, frame: object) -> None:
        from pixelscope.errors import Interrupted

        raise Interrupted("Stopped by SIGTERM; the same command, or --resume where it has one, goes on or starts again.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _take_any_text() -> None:
    """Write what the encoding of stdout lacks as a question mark, rather than stop there; stderr escapes it by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _run(arguments: Sequence[str]) -> None:
    help_text = rendered(arguments)
    if help_text is not None:
        sys.stdout.write(help_text)
        return
    from pixelscope.cli.commands import app

    app(arguments, exit_on_error=False, print_error=False, result_action="return_value")


def _settle_output() -> None:
    """Write what is left for a stream, or drop it where that fails, so that the interpreter's shutdown does not fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
