"""A user error is one line on stderr and exit code 2; an interruption is one line and 130; a defect stays an exception."""

import contextlib
import errno
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError

from fixtures.sources import write_photos
from pixelscope import SYSTEMS
from pixelscope.cli.errors import format_error
from pixelscope.cli.main import interrupted_by_sigterm
from pixelscope.errors import InputError, TrainingStopped

Cli = Callable[..., Any]
CLOSED = (">&-", "2>&-", ">&- 2>&-")
"""Redirections of the shell that close standard streams."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pixelda trian", '"train"?'),
        ("pixelda train --generator.blocs 3", "--generator.blocks?"),
        ("pixelda train --generator.blocks x", "--generator.blocks must be a whole number, got x"),
        ("pixelda train --generator.blocks -1", "--generator.blocks must be at least 0, got -1"),
        ("pixelda train --data.size 20", "--data.size must be a multiple of 8, got 20"),
        ("pixelda train --losses.classifier-inputs bot", "'generated'"),
        ("endovae prepare here --range 5 2", "--range is invalid: a range goes from LOW to a higher HIGH"),
        ("endovae detect here --out there --detectors fit", "--detectors must be 'lite0-matched-filters'"),
        ("endovae train --model.kind spatial", "The settings do not fit each other: a spatial code has no cross-entropy"),
        ("endovae train --model.kind spatial --model.stride 3", "The settings do not fit each other: a stride of 3"),
        ("endovae train --preset spatial --model.stride 3", "The settings do not fit each other: a stride of 3"),
        ("endovae train --preset spatial --losses.kl inf", "losses.kl must be a finite number, got inf"),
        ("endovae train --prepare.size 8", "--prepare.size must be at least 16, got 8"),
        ("export absent.onnx --out out.onnx", "no file or folder absent.onnx"),
        ("pixelda train --preset dem", '"demo"?'),
        ("pixelda train --seed 1 --seed 2", "--seed"),
        ("pixelda train these those", "these those"),
        ("pixelda train --config absent.yaml", "absent.yaml"),
        ("pixelda train --resume absent", "absent"),
        ("pixelda train", "source"),
        ("pixelda train --source absent.npz --target absent", "absent"),
        ("pixelda baseline", "source"),
        ("pixelda evaluate absent", "absent"),
        ("pixelda evaluate absent --checkpoint best-target", "best-source"),
        ("report absent", "absent"),
        ("data info absent", "absent"),
        ("data pack absent --out pack --size 20", "--size"),
        ("data mnist-m --photos here", "--mnist"),
        ("data mnist-m --mnist absent --photos absent --out out.npz", "absent"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments.split())
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_folder_is_left_alone(cli: Cli, tiny_training: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("data")
    done = cli(*tiny_training, "--training.images", "16", "--out", tmp_path / "mine")
    assert done.code == 2
    assert str(tmp_path / "mine") in done.err
    assert (tmp_path / "mine" / "precious").read_text() == "data"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"), "disk is full (runs/a)"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "disk is full"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs"), "runs: Permission denied"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.png"), "a.png: "),
        (NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "x/runs"), "x/runs: "),
        (InputError("Two\nlines."), "Two lines."),
        (TrainingStopped("The loss of G is not finite at step 3."), "not finite at step 3"),
    ],
)
def test_errors_that_the_user_can_fix(error: Exception, said: str) -> None:
    failure = format_error(error)
    assert failure is not None
    assert failure.code == 2
    assert failure.line.startswith("Error: ") and said in failure.line
    assert "\n" not in failure.line


TRAINS = [system.command for system in SYSTEMS.values() if system.command]


@pytest.mark.parametrize("command", TRAINS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_an_interrupted_training_names_the_command_that_resumes_it(cli: Cli, command: str, error: BaseException) -> None:
    failure = format_error(error, [*command.split(), "--seed", "1"])
    assert failure is not None
    assert failure.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert re.findall(r"`([^`]*)`", failure.line) == [f"pixelscope {command} --resume RUN"]
    assert "--resume" in cli(*command.split(), "--help").out


@pytest.mark.parametrize("command", ["data info", "pixelda evaluate", "endovae score", "demo", ""])
def test_an_interrupted_command_that_trains_no_single_run_names_no_training(command: str) -> None:
    failure = format_error(KeyboardInterrupt(), command.split())
    assert failure is not None
    assert "--resume" in failure.line and "`" not in failure.line


@pytest.mark.parametrize("command", ["pixelda ablate", "pixelda search", "endovae prepare", "export", *TRAINS])
def test_a_full_disk_says_what_is_kept(command: str) -> None:
    failure = format_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"), command.split())
    assert failure is not None and "kept" in failure.line
    assert ("finished runs" in failure.line) == (command in ("pixelda ablate", "pixelda search"))


def test_a_full_disk_during_a_training_of_endovae_names_its_own_command(process: Callable[..., subprocess.Popen[str]]) -> None:
    with Path("/dev/full").open("w") as full:
        _, err = process("endovae", "train", "--help", stdout=full).communicate(timeout=60)
    assert "`pixelscope endovae train --resume RUN`" in err


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EIO, os.strerror(errno.EIO)), AssertionError()])
def test_a_defect_is_not_formatted(error: Exception) -> None:
    assert format_error(error) is None


@pytest.mark.parametrize("command", ["--help", "data info source"])
def test_a_full_disk_under_stdout(process: Callable[..., subprocess.Popen[str]], images: Path, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        started = process(*command.split(), stdout=full, cwd=images)
        _, err = started.communicate(timeout=60)
    assert started.returncode == 2
    assert err.startswith("Error: ") and "disk is full" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["--help", "data info source"])
def test_a_closed_pipe_ends_quietly(process: Callable[..., subprocess.Popen[str]], images: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    started = process(*command.split(), stdout=writer, cwd=images)
    os.close(writer)
    _, err = started.communicate(timeout=60)
    assert err == ""
    assert started.returncode != 0


@pytest.mark.parametrize(
    ("command", "code", "closed"),
    [
        *((command, code, closed) for command, code in (("data info source", 0), ("data info absent", 2)) for closed in CLOSED),
        ("summary baseline", 0, CLOSED[-1]),  # imports more, and any of it might write to a stream
    ],
)
def test_a_closed_stream_changes_no_exit_code(images: Path, command: str, code: int, closed: str) -> None:
    shell = f"exec {shlex.quote(sys.executable)} -m pixelscope {command} {closed}"
    done = subprocess.run(["bash", "-c", shell], check=False, cwd=images, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("Error: ") == (code == 2 and closed == ">&-")


def test_a_full_disk_under_stderr_changes_no_exit_code(process: Callable[..., subprocess.Popen[str]]) -> None:
    with Path("/dev/full").open("w") as full:
        started = process("data", "info", "absent", stderr=full)
        out, _ = started.communicate(timeout=60)
    assert (started.returncode, out) == (2, "")


@pytest.mark.parametrize("command", ["--help", "pixelda train --help", "data info گربه"])
def test_what_the_encoding_of_the_output_lacks_is_replaced(
    process: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("سگ", "گربه"):
        (tmp_path / "گربه" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (16, 16), 40 * number).save(tmp_path / "گربه" / name / f"{number}.png")
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252:strict")
    started = process(*command.split(), cwd=tmp_path)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, err) == (0, "")
    assert "?" in out or command != "data info گربه"
    assert len(out) > 100


def test_on_windows_every_command_says_that_it_does_not_run(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for command in ("--help", "--version", "pixelda train --help", "data info absent", "", "demo"):
        done = cli(*command.split())
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), command
        assert "Windows" in done.err


def test_a_taken_port_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", tmp_path, "--port", port)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert str(port) in done.err and "--port" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--host 203.0.113.9 --port 0", "203.0.113.9"),
        ("--host no.such.host.invalid", "--host"),
        ("--port 99999", "99999"),
        ("--allowed-host http://scope", "'http://scope'"),
        ("--root-path scope", "--root-path"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(cli: Cli, tmp_path: Path, arguments: str, said: str) -> None:
    done = cli("serve", tmp_path, *arguments.split())
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1


def test_a_served_app_answers_by_its_names_alone(process: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    names = ("--allowed-host", "scope.example.org", "--root-path", "/scope")
    command = process("serve", tmp_path, "--host", "0.0.0.0", "--port", "0", *names)
    assert command.stdout is not None
    line = command.stdout.readline()
    port = int(line.split("/scope")[0].rsplit(":", 1)[1])
    try:
        own = {socket.gethostname(), f"127.0.0.1:{port}", "scope.example.org"}
        for host in (*own, "evil.example", "testserver", "192.0.2.1"):
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/scope/runs", headers={"Host": host})
            assert connection.getresponse().status == (200 if host in own else 421), host
            connection.close()
    finally:
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (0, "")


def test_ctrl_c_saves_and_says_how_to_resume(
    process: Callable[..., subprocess.Popen[str]], cli: Cli, tiny_training: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = process(*tiny_training, "--training.images", "100000000", "--out", run)
    _wait_for(run / "stats.jsonl", command)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=120)
    assert command.returncode == 130
    assert f"--resume {run}" in err.splitlines()[-1]
    assert "Traceback" not in err
    seen = json.loads((run / "run.json").read_text())["images"]
    done = cli("pixelda", "train", "--resume", run, "--training.images", str(seen))
    assert done.code == 0


def _wait_for(file: Path, command: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if file.is_file() and '"train"' in file.read_text():
            return
        assert command.poll() is None, command.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f"{file} never held a line of training")


def test_sigterm_is_not_caught_as_an_error_of_the_code_that_it_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm(), contextlib.suppress(Exception):
        signal.raise_signal(signal.SIGTERM)


def test_sigterm_leaves_nothing_half_made(tmp_path: Path) -> None:
    """A command that writes for minutes is stopped in the midst; the same command then runs from the beginning."""
    sign = np.full((40, 40, 4), 255, np.uint8)
    sign[:8] = 0
    for name in ("signs/a.png", "signs/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(sign).save(tmp_path / name)
    write_photos(tmp_path / "photos", {"one.png": (200, 90, 30)})
    command = [
        sys.executable,
        "-m",
        "pixelscope",
        "data",
        "render",
        "--pictograms",
        "signs",
        "--photos",
        "photos",
        "--out",
        "out",
    ]
    process = subprocess.Popen([*command, "--count", "50000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(tmp_path.glob(".pixelscope-*/a/*.png")))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "SIGTERM" in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "signs"]
    done = subprocess.run([*command, "--count", "2"], cwd=tmp_path, check=False, capture_output=True, timeout=120)
    assert done.returncode == 0


def wait_until(ready: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)
