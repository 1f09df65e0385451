"""A new training takes the cores that other programs leave; its resumption takes as many threads as it had."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import tiny
from pixelscope import endovae, pixelda
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.runtime import busy_cores, leave_busy_cores
from pixelscope.runs.folder import RunFolder

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
pytestmark = pytest.mark.skipif(
    CORES < 2 or not Path("/proc/stat").exists(), reason="the system has one core, or does not count their time"
)


@pytest.fixture
def busy() -> Iterator[None]:
    """Keep every core busy with another program while the test runs."""
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def test_cores_that_others_keep_busy_are_counted(busy: None) -> None:
    assert CORES - 0.5 < busy_cores(0.5) <= CORES + 0.1


def test_own_work_is_not_counted() -> None:
    program = (
        "import threading\nfrom pixelscope.engine.runtime import busy_cores\n"
        "others = busy_cores(0.5)\n"
        "threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()\n"
        "print(busy_cores(0.5) - others)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5


def test_a_thread_is_taken_for_each_free_core(busy: None) -> None:
    settings, why = leave_busy_cores(RuntimeConfig(accelerator="cpu"))
    assert settings == RuntimeConfig(accelerator="cpu", threads=1)
    assert f"1 of {CORES}" in why and f"--runtime.threads {CORES}" in why


@pytest.mark.parametrize("asked", [{"threads": CORES}, {"devices": 2}])
def test_what_is_asked_for_is_left(busy: None, asked: dict[str, int]) -> None:
    settings = RuntimeConfig(accelerator="cpu", **asked)  # type: ignore[arg-type]
    assert leave_busy_cores(settings) == (settings, "")


def test_a_new_run_keeps_its_number_of_threads(busy: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, _ = tiny.write_domains(tmp_path)
    config = tiny.baseline(source=source, runtime={"threads": 0}, training={"images": 16})
    run = RunFolder.open(pixelda.baseline(config, run=tmp_path / "run"))
    assert "1 thread" in capfd.readouterr().err
    assert run.read_record()["runtime"]["threads"] == 1
    assert "threads: 1" in run.config.read_text()


def test_a_plan_is_timed_on_the_threads_that_a_training_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.engine.runtime.busy_cores", lambda: CORES)
    cpu = {"threads": 0, "accelerator": "cpu"}
    frames = endovae.prepare(
        [tiny.write_frames(tmp_path / "frames")], config=endovae.PrepareConfig(size=16), out=tmp_path / "s"
    )
    plans = [
        pixelda.plan(tiny.pixelda(runtime=cpu)),
        endovae.plan(tiny.endovae(frames=str(frames.path), prepare={"size": 16}, runtime=cpu)),
    ]
    for found in plans:
        assert "1 thread" in found.machine and f"--runtime.threads {CORES}" in found.machine
