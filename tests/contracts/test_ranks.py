"""Two processes that train one model: whatever happens to one, the other ends within its patience and says why."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from contracts.systems import SYSTEMS, train_saved
from fixtures.processes import Forked, fork_ranks
from pixelscope.engine import checkpoint
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import average
from pixelscope.engine.launch import launch
from pixelscope.errors import TrainingStopped
from pixelscope.runs.folder import RunFolder

TIMEOUT = 5
EVERY = 640
"""Images from one checkpoint to the next."""


def _train(folder: Path) -> None:
    """Train, and wait 3 seconds where torch waits half a minute before it kills a process that it has told to end."""
    patch, join = pytest.MonkeyPatch(), BaseProcess.join
    patch.setattr(BaseProcess, "join", lambda self, timeout=None: join(self, timeout and min(timeout, 3)))
    fork_ranks(patch, "fork")
    train_saved("baseline", folder)


def _train_and_record_late(folder: Path) -> None:
    """Train; the first process needs a second to write how the training ended."""
    update = RunFolder.update_record

    def late(run: RunFolder, **changes: object) -> None:
        if "state" in changes:
            time.sleep(1)
        update(run, **changes)

    pytest.MonkeyPatch().setattr(RunFolder, "update_record", late)
    _train(folder)


@contextmanager
def _started(folder: Path, train: Callable[[Path], None] = _train) -> Iterator[Forked]:
    """Start a training of two processes; whatever is left of it at the end is killed."""
    folder.mkdir(exist_ok=True)
    runtime = {"devices": 2, "collective_timeout": TIMEOUT}
    config = SYSTEMS["baseline"].config(folder, 800_000, runtime=runtime, training={"checkpoint_every": EVERY})
    config.save(folder / "settings.yaml")
    process = Forked(folder / "output.txt", train, folder)
    try:
        yield process
    finally:
        for left in [*_workers(process.pid), process.pid] if process.returncode is None else []:
            os.kill(left, signal.SIGKILL)


def _wait_for_checkpoint(process: Forked, run: Path) -> None:
    """Wait until steps follow the first checkpoint; for one that writes it, the other would wait longer than its patience."""
    while process.returncode is None and _images(run / "stats.jsonl") < EVERY + 48:
        time.sleep(0.01)


def _images(stats: Path) -> int:
    lines = stats.read_text().split("\n")[:-1] if stats.is_file() else []
    return json.loads(lines[-1])["images"] if lines else 0


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Forked]:
    """Give a training of two processes that has its first checkpoint."""
    with _started(tmp_path) as process:
        _wait_for_checkpoint(process, tmp_path / "run")
        yield process


def _workers(parent: int) -> list[int]:
    """Return the processes that train under `parent`, in the order in which they were started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _ended(training: Forked, workers: list[int]) -> str:
    """Return the last line of a training that ends; none of its processes may be left."""
    output = training.wait(timeout=120)
    assert training.returncode != 0
    for worker in workers:
        path = Path(f"/proc/{worker}/cmdline")
        assert not (path.is_file() and b"forkserver" in path.read_bytes())
    return output.splitlines()[-1]


def _resumable(run: Path) -> None:
    """Assert that the newest checkpoint is whole."""
    assert checkpoint.load(RunFolder(run).checkpoint_files()[-1])[1].progress.images >= EVERY


def test_a_process_that_is_stopped_ends_the_other_within_its_patience(tmp_path: Path) -> None:
    """Each process of its own training."""
    folders = [tmp_path / "first", tmp_path / "second"]
    with ExitStack() as stack:
        trainings = [stack.enter_context(_started(folder)) for folder in folders]
        workers = []
        for rank, (training, folder) in enumerate(zip(trainings, folders, strict=True)):
            _wait_for_checkpoint(training, folder / "run")
            workers.append(_workers(training.pid))
            os.kill(workers[rank][rank], signal.SIGSTOP)
        for training, own, folder in zip(trainings, workers, folders, strict=True):
            assert "cannot be reached" in _ended(training, own)
            _resumable(folder / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_both_in_the_same_step(training: Forked, rank: int, tmp_path: Path) -> None:
    workers = _workers(training.pid)
    os.kill(workers[rank], signal.SIGTERM)
    assert "everything is saved" in _ended(training, workers)
    run = RunFolder(tmp_path / "run")
    saved = checkpoint.load(run.checkpoint_files()[-1])[1].progress
    assert run.read_record()["state"] == "stopped"
    assert run.read_record()["images"] == saved.images == 8 * saved.step


def test_a_process_that_ends_first_waits_until_the_other_has_recorded_the_end(tmp_path: Path) -> None:
    with _started(tmp_path, _train_and_record_late) as training:
        _wait_for_checkpoint(training, tmp_path / "run")
        workers = _workers(training.pid)
        os.kill(workers[1], signal.SIGTERM)
        assert "everything is saved" in _ended(training, workers)
    assert RunFolder(tmp_path / "run").read_record()["state"] == "stopped"


def _hungry(fabric: Fabric, rank: int) -> None:
    if fabric.global_rank == rank:
        torch.empty(1 << 60, dtype=torch.uint8)
    average(torch.zeros(1))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_without_memory_ends_both_and_says_so(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    runtime = RuntimeConfig(devices=2, accelerator="cpu", threads=1, collective_timeout=TIMEOUT)
    with pytest.raises(TrainingStopped, match=f"Process {rank + 1} of 2 ran out of memory|Another process has ended"):
        launch(runtime, _hungry, rank)


def test_a_single_process_without_memory_says_so() -> None:
    with pytest.raises(TrainingStopped, match="The training ran out of memory"):
        launch(RuntimeConfig(accelerator="cpu", threads=1), _hungry, 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_other(training: Forked, rank: int, tmp_path: Path) -> None:
    workers = _workers(training.pid)
    os.kill(workers[rank], signal.SIGKILL)
    last = _ended(training, workers)
    assert f"Process {rank + 1} of 2 ended (SIGKILL)" in last or "Another process has ended" in last
    _resumable(tmp_path / "run")
