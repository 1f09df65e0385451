"""What a run folder says of how it came about."""

import sys

import pytest

from pixelscope.engine.run import command_line


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/home/someone/.venv/bin/pixelscope", "pixelscope pixelda train --out 'my runs/one'"),
        ("/home/someone/pixelscope/__main__.py", "python -m pixelscope pixelda train --out 'my runs/one'"),
    ],
)
def test_the_command_can_be_given_again(monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, "pixelda", "train", "--out", "my runs/one"])
    assert command_line() == said
