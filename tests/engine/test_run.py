"""What a run folder says of how it came about."""

import os
import sys
from pathlib import Path

import pytest

from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder, command_line


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


def test_a_path_that_is_no_text_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xe9")

    def create(run: Path) -> None:
        with RunFolder.create(tmp_path, "x", run):
            pass

    for use in (RunFolder.refuse_existing, RunFolder.open, create):
        with pytest.raises(InputError, match="not UTF-8"):
            use(path)
    assert not path.exists()
