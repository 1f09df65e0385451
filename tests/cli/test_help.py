"""`--help`: its text is a snapshot in snapshots/, and it costs no import of torch."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pixelscope.cli.commands import app

SNAPSHOTS = Path(__file__).parent / "snapshots"
COMMANDS = (
    "",
    "data",
    "data info",
    "data mnist-m",
    "demo",
    "endovae",
    "endovae evaluate",
    "endovae generate",
    "endovae prepare",
    "endovae reconstruct",
    "endovae train",
    "pixelda",
    "pixelda baseline",
    "pixelda evaluate",
    "pixelda train",
    "report",
    "summary",
    "summary baseline",
    "summary endovae",
    "summary pixelda",
)


def help_text(command: str) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False, legacy_windows=False)
    app([*command.split(), "--help"], console=console, exit_on_error=False, result_action="return_value")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_it_was_agreed(command: str) -> None:
    snapshot = SNAPSHOTS / f"{'-'.join(['pixelscope', *command.split()])}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(help_text(command), encoding="utf-8")
    assert help_text(command) == snapshot.read_text(encoding="utf-8")


def test_every_command_has_a_snapshot() -> None:
    def names(part: object, prefix: str) -> list[str]:
        inner = [name for name in part if not name.startswith("-")]  # type: ignore[attr-defined]
        return [prefix, *(found for name in inner for found in names(part[name], f"{prefix} {name}".strip()))]  # type: ignore[index]

    assert sorted(names(app, "")) == sorted(COMMANDS)
    assert len(list(SNAPSHOTS.iterdir())) == len(COMMANDS)


def test_help_imports_nothing_that_computes() -> None:
    heavy = {"torch", "lightning_fabric", "torchmetrics", "scipy", "numpy", "matplotlib", "PIL", "jinja2"}
    program = f"""
import sys
from pixelscope.cli import main
for command in {COMMANDS!r}:
    assert main([*command.split(), "--help"]) == 0
assert main(["--version"]) == 0
print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.count("Usage: pixelscope") == len(COMMANDS)


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    from pixelscope.cli import main

    assert main([]) == 0
    assert "Usage: pixelscope COMMAND" in capsys.readouterr().out
