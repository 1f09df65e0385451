"""Names from standard input, rows on standard output, and completion in the shell."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixelscope.cli.app import app
from pixelscope.cli.streams import input_paths

Cli = Callable[..., Any]
Process = Callable[..., "subprocess.Popen[str]"]


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_names_come_in_and_rows_go_out(process: Process, cli: Cli, trained: Path, images: Path, tmp_path: Path) -> None:
    files = sorted((images / "target").rglob("*.png"))[:5]
    with process("pixelda", "classify", trained, "-", "--out", "-", stdin=subprocess.PIPE) as running:
        out, err = running.communicate("".join(f"{file}\n" for file in files))
    assert running.returncode == 0, err
    assert "5 rows" in err
    assert cli("pixelda", "classify", trained, *files, "--out", tmp_path / "labels.jsonl").code == 0
    assert rows(out) == rows((tmp_path / "labels.jsonl").read_text())
    assert [row["name"] for row in rows(out)] == [str(file) for file in files]


def test_the_summary_in_json_leaves_standard_output_to_the_rows(cli: Cli, trained: Path, images: Path) -> None:
    done = cli("pixelda", "classify", trained, images / "target" / "dark", "--out", "-", "--json")
    assert (done.code, len(rows(done.out))) == (0, 10)
    assert json.loads(done.err[done.err.index("{") :])["rows"] == 10


def test_names_that_are_missing_or_cannot_be_resumed_are_refused(
    process: Process, cli: Cli, trained: Path, images: Path, tmp_path: Path
) -> None:
    with process("pixelda", "classify", trained, "-", "--out", "-", stdin=subprocess.PIPE) as running:
        out, err = running.communicate("\n")
    assert (running.returncode, out) == (2, "") and "names no file" in err
    done = cli("pixelda", "classify", trained, "-", "-", "--out", tmp_path / "a.csv")
    assert done.code == 2 and "twice" in done.err
    done = cli("pixelda", "classify", trained, images, "--out", "-", "--resume")
    assert done.code == 2 and "--resume" in done.err


def test_a_reader_that_leaves_ends_the_command(trained: Path, images: Path) -> None:
    """`| head -1` closes the pipe; the command stops without a traceback, as programs on a pipe do."""
    command = f'"{sys.executable}" -m pixelscope pixelda classify "{trained}" "{images / "target"}" --out - | head -1'
    shell = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert len(rows(done.stdout)) == 1
    assert "Traceback" not in done.stderr


COMPLETED = ("classify", "endovae", "generator.blocks")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_knows_commands_and_settings(shell: Any) -> None:
    script = app.generate_completion(shell=shell)
    assert all(name in script for name in COMPLETED)


def test_completion_of_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(app.generate_completion(shell="bash"))
    assert all(name in script.read_text() for name in COMPLETED)
    code = f'source "{script}"; COMP_WORDS=(pixelscope pixelda cla); COMP_CWORD=2; _pixelscope; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["classify"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_names_are_separated_by_the_ends_of_lines_or_by_zero_bytes(monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    given = "".join(f"{name}{separator}" for name in ("a b.png", "c.png"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert input_paths([Path("-")]) == [Path("a b.png"), Path("c.png")]


def test_a_name_given_twice_is_read_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb.png\na.png\n")))
    assert input_paths([Path("-")]) == [Path("a.png"), Path("b.png")]
    assert "1 repeated name " in capsys.readouterr().err
    assert input_paths([Path("a.png"), Path("b.png")]) == [Path("a.png"), Path("b.png")]
    assert capsys.readouterr().err == ""


def test_detect_refuses_an_output_before_it_imports_what_computes(tmp_path: Path) -> None:
    code = (
        "import sys; from pixelscope.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'sklearn', 'matplotlib'} & sys.modules.keys(); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "endovae", "detect", "absent", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "exists already" in done.stderr
