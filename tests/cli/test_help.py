"""`--help`: its texts are rendered beforehand and as the command line would write them now; they cost no import."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pixelscope.cli import help as texts
from pixelscope.cli import main
from pixelscope.cli.commands import app

SNAPSHOTS = Path(texts.TEXTS)
COMMANDS = (
    "",
    "data",
    "data info",
    "data mnist-m",
    "data pack",
    "data render",
    "demo",
    "endovae",
    "endovae evaluate",
    "endovae generate",
    "endovae prepare",
    "endovae reconstruct",
    "endovae score",
    "endovae train",
    "export",
    "pixelda",
    "pixelda ablate",
    "pixelda search",
    "pixelda adapt",
    "pixelda baseline",
    "pixelda classify",
    "pixelda evaluate",
    "pixelda refine",
    "pixelda train",
    "report",
    "serve",
    "summary",
    "summary baseline",
    "summary endovae",
    "summary pixelda",
)


def help_text(command: str) -> str:
    console = Console(file=io.StringIO(), width=texts.WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
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


@pytest.mark.parametrize("columns", ["200", "60"])
def test_help_imports_nothing_that_computes(columns: str) -> None:
    heavy = {"torch", "lightning_fabric", "torchmetrics", "scipy", "numpy", "matplotlib", "PIL", "jinja2"}
    program = f"""
import sys
from pixelscope.cli import main
for command in {COMMANDS!r}:
    assert main([*command.split(), "--help"]) == 0
print(sorted({{"cyclopts", "pydantic"}} & set(sys.modules)), file=sys.stderr)
assert main(["--version"]) == 0
print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": columns}
    )
    rendered_now, imported = done.stderr.split("\n")[:2]
    assert rendered_now == ("[]" if columns == "200" else "['cyclopts', 'pydantic']")
    assert imported == "[]"
    assert done.stdout.count("Usage: pixelscope") == len(COMMANDS)


def test_a_narrow_window_gets_a_help_that_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["report", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.mark.parametrize("arguments", [["--help", "report"], ["report", "-h"], ["report", "--help"]])
def test_help_is_found_however_it_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: pixelscope report" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["../cli/help_texts/pixelscope", "--help"], ["nothing", "--help"], ["--help=x"]])
def test_what_is_no_command_has_no_rendered_help(arguments: list[str]) -> None:
    assert texts.rendered(arguments) is None


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: pixelscope COMMAND" in capsys.readouterr().out
