"""`--help`: every command prints its own, in colour on a terminal, and none imports what computes."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from pixelscope.cli.app import app
from pixelscope.cli.options import setting_names
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.refinement.config import RefineConfig

Cli = Callable[..., Any]
HEAVY = {"torch", "lightning_fabric", "scipy", "numpy", "matplotlib", "PIL", "jinja2"}


def commands(part: Any = app, prefix: str = "") -> Iterator[str]:
    """Yield every command and group of commands, as typed after `pixelscope`."""
    yield prefix
    for name in part:
        if not name.startswith("-"):
            yield from commands(part[name], f"{prefix} {name}".strip())


COMMANDS = tuple(commands())


def help_text(command: str, width: int = 800, *, terminal: bool = False) -> str:
    """Return what `--help` prints in a window of `width` columns."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    app([*command.split(), "--help"], console=console, exit_on_error=False, result_action="return_value")
    return out.getvalue()


def test_all_commands_are_found() -> None:
    assert len(COMMANDS) == 34
    assert {"", "report", "data mnist-m", "pixelda refine", "endovae score", "summary baseline"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_says_what_it_does(command: str) -> None:
    text = help_text(command)
    assert f"Usage: pixelscope {command}".strip() in text
    rows = [re.split(r"  +", line.strip("│* ")) for line in text.splitlines() if line.startswith("│")]
    assert all(len(row) == 2 and row[1][0] != "[" for row in rows if re.match("[a-z-]", row[0])), rows
    assert all("repeated" in row for row in re.findall(r"--\S+ [A-Z]+\.\.\..*", text))


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("pixelda train", PixelDAConfig),
        ("pixelda baseline", BaselineConfig),
        ("pixelda refine", RefineConfig),
        ("endovae train", EndoVAEConfig),
    ],
)
def test_every_setting_has_its_flag_in_the_help(command: str, config: Any) -> None:
    flags = set(re.findall(r"--[\w.-]+", help_text(command)))
    assert {f"--{name}".replace("_", "-") for name in setting_names(config)} - {"--run"} <= flags


def test_help_imports_nothing_that_computes() -> None:
    program = f"""
import sys
from pixelscope.cli import main
assert main(["--help"]) == main([]) == main(["--version"]) == 0
print(sorted({HEAVY | {"pydantic"}!r} & set(sys.modules)), file=sys.stderr)
for command in {COMMANDS!r}:
    assert main([*command.split(), "--help"]) == 0
print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stderr.splitlines() == ["[]", "[]"]
    assert done.stdout.count("Usage: pixelscope") == len(COMMANDS) + 2
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize("command", ["", "pixelda train"])
def test_help_is_in_colour_on_a_terminal_alone(command: str) -> None:
    assert "\x1b[36m--" in help_text(command, terminal=True)
    assert "\x1b[" not in help_text(command)


def test_help_fits_a_narrow_window() -> None:
    assert max(map(len, help_text("report", 60).splitlines())) <= 60


@pytest.mark.parametrize("arguments", [["--help", "report"], ["report", "-h"], ["report", "--help"]])
def test_help_is_printed_wherever_its_flag_stands(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.code == 0 and "Usage: pixelscope report" in done.out


def test_no_arguments_print_the_help(cli: Cli) -> None:
    assert "Usage: pixelscope COMMAND" in cli().out


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_has_a_second_name_that_empties_it(command: str) -> None:
    assert "--empty-" not in help_text(command)


def test_a_refinement_promises_no_change_that_it_refuses(cli: Cli) -> None:
    (row,) = re.findall(r"--resume .*", help_text("pixelda refine"))
    assert "length" not in row and "--self-training.teacher" in row
    for flags in (["--training.images", "9"], ["--runtime.precision", "32-true"]):
        assert "drop --" in cli("pixelda", "refine", "--resume", "somewhere", *flags).err
