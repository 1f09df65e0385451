"""The lock on a run folder, and what a killed process leaves in it."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pixelscope import run_info
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.files import Process, atomic_file, folder_lock
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.listing import STALE
from pixelscope.runs.lock import FACTS, SILENCE, Holder, find_holder

HOLD = """
import sys, time
from pathlib import Path
from pixelscope.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked("trained"):
    print("held", flush=True)
    time.sleep(1000)
"""
WRITE = """
import sys, time
from pathlib import Path
from pixelscope.files import atomic_folder, atomic_file
with atomic_file(Path(sys.argv[1]) / "a.txt") as one, atomic_folder(Path(sys.argv[1]) / "b") as two:
    one.write_text("half"), (two / "c.txt").write_text("half")
    print("begun", flush=True)
    time.sleep(1000)
"""


def _start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def _kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _write(folder: Path, silent: float = 0, **facts: object) -> Holder:
    """Write the lock of a process of another machine that gave its last sign of life `silent` seconds ago."""
    holder = replace(Holder.new("trained"), **{"host": "elsewhere", **facts})  # pyright: ignore[reportArgumentType]
    (folder / FACTS).write_text(json.dumps(asdict(holder)))
    os.utime(folder / FACTS, (time.time() - silent,) * 2)
    return holder


def test_a_lock_names_its_process_and_ends_with_it(tmp_path: Path) -> None:
    process, folder = _start(HOLD, tmp_path), RunFolder(tmp_path)
    try:
        with pytest.raises(InputError, match=f"being trained by process {process.pid} on "), folder.locked("trained", True):
            pass
        assert folder.is_in_use()
    finally:
        _kill(process)
    assert not folder.is_in_use()
    with folder.locked("trained"):
        assert folder.is_in_use()
    assert not (tmp_path / FACTS).exists()


def test_a_stopped_process_lives_and_a_zombie_does_not(tmp_path: Path) -> None:
    process = _start(HOLD, tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        assert RunFolder(tmp_path).is_in_use()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has read its exit code
        assert not RunFolder(tmp_path).is_in_use()
    finally:
        process.communicate()


def test_a_number_that_was_given_to_another_process_is_no_lock(tmp_path: Path) -> None:
    own = Process.current()
    _write(tmp_path, process=own.number, started=own.started, host=own.host)
    with pytest.raises(InputError, match=f"process {own.number}"):
        RunFolder(tmp_path).require_free()
    _write(tmp_path, process=own.number, started="1", host=own.host)
    with RunFolder(tmp_path).locked("trained"):
        pass


def test_the_lock_of_another_machine_is_taken_only_after_ten_silent_minutes_and_only_when_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _write(tmp_path, silent=SILENCE - 60)
    for take_over in (False, True):
        with pytest.raises(InputError, match="on elsewhere"), folder.locked("trained", take_over):
            pass
    _write(tmp_path, silent=SILENCE + 60)
    with pytest.raises(InputError, match="--take-over"), folder.locked("trained"):
        pass
    with folder.locked("trained", take_over=True):
        found = find_holder(tmp_path)
        assert found is not None and found[0].process == os.getpid()


def test_a_process_whose_lock_was_taken_writes_nothing_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked("trained"):
        folder.update_record(images=1)
        other = _write(tmp_path)
        for write in (lambda: folder.update_record(images=2), lambda: folder.append_stats({"images": 2}), folder.require_lock):
            with pytest.raises(TrainingStopped, match="elsewhere"):
                write()
    assert json.loads(folder.record.read_text()) == {"images": 1} and not folder.stats.exists()
    found = find_holder(tmp_path)
    assert found is not None and found[0] == other


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "x"}', "[" * 100_000, '{"process": 1e999}'])
def test_a_damaged_lock_keeps_nobody_out_but_a_live_process(tmp_path: Path, text: str) -> None:
    (tmp_path / FACTS).write_text(text)
    with folder_lock(tmp_path), pytest.raises(InputError, match="another process"), RunFolder(tmp_path).locked("trained"):
        pass
    with RunFolder(tmp_path).locked("trained"):
        pass


def test_a_folder_that_cannot_be_locked_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked_if_free("evaluated") as free:
        assert free
    _write(tmp_path)
    with folder.locked_if_free("evaluated") as free:
        assert not free
    assert "on elsewhere" in caplog.text


def test_processes_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    def make(_: int) -> Path:
        with RunFolder.create(tmp_path, "run") as folder:
            return folder.path

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(make, range(40)))
    assert sorted(path.name for path in made) == [f"{number:05d}-run" for number in range(40)]


def test_a_new_folder_has_a_number_above_all_others(tmp_path: Path) -> None:
    for name in ("00002-a", "00007-b", "notes"):
        (tmp_path / name).mkdir()
    with RunFolder.create(tmp_path, "c") as folder:
        assert folder.path.name == "00008-c"


@pytest.mark.parametrize(
    ("record", "other", "abandoned"),
    [
        ('{"system": "pixelda", "state": "running"}', "", True),
        ('{"system": "pixelda", "state": "stopped", "images": 64}', "", False),
        ('{"system": "pixelda"', "", False),
        ('{"system": "pixelda", "state": "running"}', "notes.txt", False),
    ],
)
def test_only_a_start_that_trained_nothing_is_replaced(tmp_path: Path, record: str, other: str, abandoned: bool) -> None:
    """A run whose checkpoints were removed has the files of a start that ended before the first of them."""
    folder = RunFolder(tmp_path / "run")
    folder.samples.mkdir(parents=True)
    for path in (folder.config, folder.stats, folder.path / (other or "frames.json")):
        path.write_text("")
    folder.record.write_text(record)
    assert folder.is_abandoned_start() is abandoned
    if not abandoned:
        with pytest.raises(InputError, match="exists already"):
            RunFolder.refuse_existing(folder.path)


def test_a_listed_run_is_running_as_long_as_its_process(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    folder = RunFolder(tmp_path)
    folder.update_record(system="pixelda", state="running")
    old = time.time() - STALE - 60
    os.utime(folder.record, (old, old))
    assert run_info(tmp_path).state == "stopped"
    process = _start(HOLD, tmp_path)
    try:
        assert run_info(tmp_path).state == "running"
    finally:
        _kill(process)
    folder.update_record(images=3)
    assert run_info(tmp_path).state == "stopped"


def test_what_a_killed_process_leaves_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed, writing = (_start(WRITE, tmp_path) for _ in range(2))
    others = {path.name for path in tmp_path.iterdir() if str(killed.pid) not in path.name}
    assert len(others) == 2
    _kill(killed)
    foreign = tmp_path / next(iter(others)).replace(str(writing.pid), str(killed.pid))
    foreign = foreign.with_name(".pixelscope-00000000-" + foreign.name.split("-", 2)[2])
    foreign.write_text("another machine's")
    (tmp_path / ".pixelscope-mine").write_text("somebody's")
    try:
        with atomic_file(tmp_path / "d.txt") as temporary:
            temporary.write_text("whole")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == others | {foreign.name, ".pixelscope-mine", "d.txt"}
    finally:
        _kill(writing)
