"""The entry point: runs one command and turns errors that a user can fix into one line and an exit code."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

WINDOWS = "Error: Pixelscope does not run on Windows; use Linux or macOS, or the Windows Subsystem for Linux."
CLOSED_PIPE = 141
"""Exit code of a program whose reader (`| head`) has closed the pipe: 128 + SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: of the command; by default sys.argv.

    Returns:
        0: success. 2: an error that the user can fix, printed as one line on stderr. 130: interrupted.

    Raises:
        Exception: any other error, which is a defect of the program.
    """
    _open_closed_streams()
    _replace_unencodable_characters()
    if sys.platform == "win32":
        print(WINDOWS, file=sys.stderr)
        return 2
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with interrupted_by_sigterm():
            _run(given)
        # A full disk or a closed pipe is reported here; at the interpreter's shutdown it could no longer be explained.
        sys.stdout.flush()
    except BrokenPipeError:
        _flush_or_discard_output()
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        from pixelscope.cli.errors import format_error

        failure = format_error(error, given)
        if failure is None:
            raise
        with suppress(OSError):
            print(failure.line, file=sys.stderr)
        _flush_or_discard_output()
        return failure.code
    return 0


def _run(arguments: Sequence[str]) -> None:
    from pixelscope.cli.app import app

    app(arguments, exit_on_error=False, print_error=False, result_action="return_value")


def _open_closed_streams() -> None:
    """Open the null device for a stream that the shell has closed (`>&-`); Python sets such a stream to None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends


def _replace_unencodable_characters() -> None:
    """Print a question mark for each character that the encoding of stdout lacks; stderr escapes such characters itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, so that half-written files are removed; a training installs another handler.

    An Exception could be caught by whatever code runs at that moment.
    """

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("Stopped by SIGTERM; run the same command again, with --resume if it has one.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _flush_or_discard_output() -> None:
    """Flush both streams; discard what cannot be written, so that the interpreter's shutdown does not fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
