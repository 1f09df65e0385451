"""What holds for a whole training of every system: interruptions, resuming to the bit, several processes."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load, load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

import pixelscope
from contracts.systems import SYSTEMS, SystemCase, train_saved
from fixtures.processes import Forked, fork_ranks
from pixelscope.cli.options import setting_names
from pixelscope.config import Config
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.files import folder_lock
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.lock import FACTS, Holder
from pixelscope.serve import create_app

Train = Callable[..., Path]
every_system = pytest.mark.parametrize("case", SYSTEMS.values(), ids=lambda case: case.name)


def _last(run: Path) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run).checkpoint_files()[-1])


def _different(first: Path, second: Path) -> list[str]:
    a, b = _last(first), _last(second)
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def _agree(found: Path, expected: Path, atol: float = 2e-4) -> None:
    """Assert that networks, their averages and what a schedule remembers are the same but for rounding."""
    ours, theirs = _last(found), _last(expected)
    compared = [name for name in theirs if name.startswith(("network.", "average.", "memory."))]
    assert ours.keys() == theirs.keys() and len(compared) >= 10
    for name in compared:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=2e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def _untimed(run: Path) -> list[dict[str, object]]:
    clock = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if name not in clock} for line in read_stats(run / "stats.jsonl")]


def _start(case: SystemCase, folder: Path, config: Config, train: Callable[[str, Path], None] = train_saved) -> Forked:
    config.save(folder / "settings.yaml")
    return Forked(folder / "output.txt", train, case.name, folder)


def _train_in_forks(name: str, folder: Path) -> None:
    fork_ranks(pytest.MonkeyPatch(), "fork")
    train_saved(name, folder)


def _images(stats: Path) -> int:
    lines = stats.read_text().split("\n")[:-1] if stats.is_file() else []
    return json.loads(lines[-1])["images"] if lines else 0


def _wait_for(process: Forked, stats: Path, images: int) -> None:
    while process.returncode is None and _images(stats) < images:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Return a function that trains a system by itself in a folder of its images; each training is made once."""
    runs: dict[str, Path] = {}

    def run(case: SystemCase, images: int = 96, **changes: Any) -> Path:
        key = json.dumps([case.name, images, changes])
        if key not in runs:
            folder = tmp_path_factory.mktemp(case.name)
            runs[key] = case.train(case.config(folder, images, **changes), run=folder / "run")
        return runs[key]

    return run


@every_system
@pytest.mark.parametrize("attempt", range(2))
def test_killed_anywhere_and_resumed_is_the_uninterrupted_run(
    case: SystemCase, attempt: int, trained: Train, tmp_path: Path
) -> None:
    whole = trained(case, 800)
    process = _start(case, tmp_path, case.config(whole.parent, 800))
    _wait_for(process, tmp_path / "run" / "stats.jsonl", random.Random(attempt).randint(100, 500))
    process.send_signal(signal.SIGKILL)
    output = process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL, output
    case.resume(tmp_path / "run")
    assert _different(whole, tmp_path / "run") == []
    assert _untimed(tmp_path / "run") == _untimed(whole)
    assert RunFolder(tmp_path / "run").read_record()["sessions"] == 2
    for path in (whole / "samples").glob("progress.npz"):
        with np.load(path) as before, np.load(tmp_path / "run" / "samples" / path.name) as after:
            assert all(np.array_equal(before[name], after[name]) for name in before.files)


@every_system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(case: SystemCase, number: int, tmp_path: Path) -> None:
    process = _start(case, tmp_path, case.config(tmp_path, case.long))
    _wait_for(process, tmp_path / "run" / "stats.jsonl", 64)
    process.send_signal(number)
    output = process.wait(timeout=60)
    folder = RunFolder.open(tmp_path / "run")
    assert f"continue with --resume {folder.path}" in output
    assert folder.read_record()["state"] == "stopped"
    _, header = checkpoint.load(folder.checkpoint_files()[-1])
    assert header.progress.images == folder.read_record()["images"] >= 64
    more = case.resume(tmp_path / "run", **case.more(header.progress.images + 16))
    assert RunFolder(more).read_record()["state"] == "finished"


@every_system
def test_while_one_process_trains_the_others_read(case: SystemCase, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The trainer is stopped, so that whatever changes in its folder was changed by somebody else."""
    run = tmp_path / "run"
    process = _start(case, tmp_path, case.config(tmp_path, min(case.long, 1_920)))
    try:
        _stop_after_a_checkpoint(process, run)
        before = _files(run)
        trainer = f"being trained by process {process.pid} on "
        for use in (lambda: case.resume(run), lambda: case.resume(run, take_over=True), lambda: pixelscope.report(run)):
            with pytest.raises(InputError, match=trainer):
                use()
        assert pixelscope.evaluate(run).images > 0
        assert trainer in caplog.text
        assert "<html" in pixelscope.report(run, tmp_path / "meanwhile.html").read_text()
        assert pixelscope.run_info(run).state == "running"
        with TestClient(create_app([tmp_path]), base_url="http://127.0.0.1") as client:
            for page in ("/runs", "/runs/run", "/runs/run/live"):
                assert client.get(page).status_code == 200, page
        assert _files(run) == before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert pixelscope.run_info(run).state == "stopped"
    pixelscope.evaluate(run)
    assert pixelscope.report(run, tmp_path / "page.html").read_text() == pixelscope.report(run).read_text()
    assert not {"evaluation.json", "report.html"} - _files(run).keys()


@every_system
def test_a_run_with_an_evaluation_has_all_of_it(case: SystemCase, trained: Train, tmp_path: Path) -> None:
    """Whatever ends an evaluation early, what takes a run with evaluation.json for measured finds the rest too."""
    run = Path(shutil.copytree(trained(case), tmp_path / "run"))
    before = _files(run)
    pixelscope.evaluate(run)
    written = {run / name for name, content in _files(run).items() if before.get(name) != content}
    assert run / "evaluation.json" in written
    assert max(path.stat().st_mtime_ns for path in written) == (run / "evaluation.json").stat().st_mtime_ns


@every_system
def test_a_training_whose_run_was_taken_over_stops_and_leaves_it_alone(case: SystemCase, tmp_path: Path) -> None:
    """It is taken over within a step, which is no write."""
    run, taken = tmp_path / "run", []

    def take(*step: object) -> None:
        if not taken and RunFolder(run).checkpoint_files():
            (run / FACTS).write_text(json.dumps(asdict(Holder.new("trained"))))
            taken.append(_files(run))

    hook = register_optimizer_step_post_hook(take)
    try:
        with pytest.raises(TrainingStopped, match=f"taken over by process {os.getpid()} on "):
            case.train(case.config(tmp_path, min(case.long, 1_920)), run=run)
    finally:
        hook.remove()
    assert [_files(run)] == taken


def _stop_after_a_checkpoint(process: Forked, run: Path) -> None:
    """Stop a training after its first checkpoint, between two files that it writes."""
    while process.returncode is None and not RunFolder(run).checkpoint_files():
        time.sleep(0.005)
    while True:
        process.send_signal(signal.SIGSTOP)
        while process.returncode is None and not _is_stopped(process):
            time.sleep(0.001)
        newest = RunFolder(run).checkpoint_files()[-1].stem
        recorded = json.loads((run / "run.json").read_text()).get("images", 0)
        if not list(run.rglob(".pixelscope-*")) and f"images-{recorded:012d}" == newest:
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def _is_stopped(process: Forked) -> bool:
    """Return whether all its threads have stopped, which takes a moment after the signal."""
    try:
        states = {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{process.pid}/task").glob("*/stat")}
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
        return False
    return states == {"T"}


@every_system
def test_two_processes_agree_with_one(
    case: SystemCase, trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same global batch; what each rank draws for itself is off."""
    fork_ranks(monkeypatch)
    one = trained(case, 48, **case.quiet)
    two = case.train(case.config(one.parent, 48, **case.quiet, runtime={"devices": 2}), run=tmp_path / "two")
    _agree(two, one)
    assert RunFolder(two).read_record()["runtime"]["devices"] == 2
    losses = [[line[case.loss] for line in read_stats(run / "stats.jsonl") if line["kind"] == "train"] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@every_system
def test_the_layout_in_memory_changes_rounding_only(case: SystemCase, trained: Train, tmp_path: Path) -> None:
    usual = trained(case, 48, **case.quiet)
    assert RunFolder(usual).read_record()["runtime"]["memory_format"] == "channels_last"
    config = case.config(usual.parent, 48, **case.quiet, runtime={"memory_format": "contiguous"})
    other = case.train(config, run=tmp_path / "run")
    _agree(other, usual)
    assert RunFolder(other).read_record()["runtime"]["memory_format"] == "contiguous"


@every_system
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_resumed_with_another_number_of_processes_is_the_same_run(
    case: SystemCase, before: int, after: int, trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each rank draws for itself is off; sums are added in another order."""
    fork_ranks(monkeypatch)
    whole = trained(case, 64, **case.quiet)
    run = case.train(case.config(whole.parent, 64, **case.quiet, runtime={"devices": before}), run=tmp_path / "run")
    earlier, newest = RunFolder(run).checkpoint_files()
    newest.unlink()
    assert checkpoint.load(earlier)[1].progress.images < 64
    case.resume(run, devices=after, threads=3 - after)
    record = RunFolder(run).read_record()
    assert record["images"] == 64
    assert (record["runtime"]["devices"], record["runtime"]["threads"]) == (after, 3 - after)
    _agree(run, whole, atol=3e-4)


@every_system
def test_a_process_that_dies_stops_the_others_with_a_sentence(case: SystemCase, tmp_path: Path) -> None:
    """The processes of the baseline are spawned, as for users; those of the others are forked."""
    train = train_saved if case.name == "baseline" else _train_in_forks
    process = _start(case, tmp_path, case.config(tmp_path, min(case.long, 1_920), runtime={"devices": 2}), train)
    _wait_for(process, tmp_path / "run" / "stats.jsonl", 352)  # after the first checkpoint
    workers = _workers(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    output = process.wait(timeout=60)
    assert process.returncode != 0
    assert "--resume RUN" in output.splitlines()[-1]
    assert "Process 2 of 2 ended (SIGKILL)" in output or "Another process has ended" in output
    assert not any(_alive(worker) for worker in workers)
    stopped = RunFolder.open(tmp_path / "run")
    kept = checkpoint.load(stopped.checkpoint_files()[-1])[1].progress.images
    resumed = case.resume(tmp_path / "run", devices=1, **case.more(kept + 16))
    assert RunFolder(resumed).read_record()["state"] == "finished"


def _workers(parent: int) -> list[int]:
    """Return the processes that train under `parent`, in the order in which they were started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if _alive(int(child))]


def _alive(process: int) -> bool:
    path = Path(f"/proc/{process}/cmdline")
    return path.is_file() and any(how in path.read_bytes() for how in (b"spawn_main", b"forkserver"))


@every_system
def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_written(case: SystemCase, tmp_path: Path) -> None:
    config = case.config(tmp_path, 32, runtime={"devices": 2}, training={"batch_size": 9})
    with pytest.raises(InputError, match="A batch of 9 cannot be divided among 2 devices"):
        case.train(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@every_system
def test_a_loss_that_is_not_finite_recommends_settings_that_the_system_has(case: SystemCase, tmp_path: Path) -> None:
    config = case.config(tmp_path, 96, optimizer={"learning_rate": 1e30})
    with pytest.raises(TrainingStopped, match="is not finite at step") as stopped:
        case.train(config, run=tmp_path / "run")
    flags = re.findall(r"--([a-z]+(?:[.-][a-z]+)*)", str(stopped.value))
    known = set(setting_names(case.model))
    assert flags and {flag.replace("-", "_") for flag in flags} <= known


@every_system
def test_the_charts_of_the_table_show_numbers_that_a_training_writes(case: SystemCase, trained: Train) -> None:
    run = trained(case, **case.every_loss)
    system = pixelscope.SYSTEMS[RunFolder(run).read_record()["system"]]
    written = {name for line in pixelscope.run_statistics(run) for name in line}
    assert system.charts and {name for chart in system.charts.values() for name in chart} <= written
    assert set(system.samples) == set(pixelscope.newest_samples(run))
    assert pixelscope.run_info(run).goal == 96


@every_system
def test_existing_folders_and_absent_runs_are_refused(case: SystemCase, tmp_path: Path) -> None:
    config = case.config(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").write_text("mine")
    with pytest.raises(InputError, match="taken exists already"):
        case.train(config, run=tmp_path / "taken")
    with pytest.raises(InputError, match="not a run folder"):
        case.resume(tmp_path / "taken")
    assert [(path.name, path.read_text()) for path in (tmp_path / "taken").iterdir()] == [("config.yaml", "mine")]


def _files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}


@every_system
def test_a_refused_resume_changes_no_file(case: SystemCase, tmp_path: Path) -> None:
    run = case.train(case.config(tmp_path, 32), run=tmp_path / "run")
    before = _files(run)
    with folder_lock(run), pytest.raises(InputError, match="used by another process"):
        case.resume(run, **case.more(64))
    assert _files(run) == before
    case.spoil(tmp_path)
    with pytest.raises(InputError, match="SHA-256"):
        case.resume(run, **case.more(64))
    assert _files(run) == before


@every_system
def test_what_a_dead_start_leaves_is_replaced_by_the_same_command(case: SystemCase, tmp_path: Path) -> None:
    config = case.config(tmp_path, 32)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="stopped before the first checkpoint"):
        case.resume(tmp_path / "run")
    run = case.train(config, run=tmp_path / "run")
    for file in RunFolder(run).checkpoint_files():
        file.unlink()
    record = {"system": case.name, "state": "running"}
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.yaml").unlink()  # the last file of a start
    with pytest.raises(InputError, match="stopped before the first checkpoint"):
        case.resume(run)
    with RunFolder(run).locked("trained"), pytest.raises(InputError, match=f"trained by process {os.getpid()} "):
        case.train(config, run=run)
    case.train(config, run=run)
    assert RunFolder(run).read_record()["state"] == "finished"
    with pytest.raises(InputError, match="exists already.*--resume"):
        case.train(config, run=run)


@every_system
def test_a_checkpoint_of_another_configuration_is_refused(case: SystemCase, trained: Train, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained(case), tmp_path / "run"))
    before, after = case.change
    text = (run / "config.yaml").read_text()
    assert before in text
    (run / "config.yaml").write_text(text.replace(before, after))
    with pytest.raises(InputError, match="made with another configuration than its config.yaml"):
        case.resume(run, **case.more(128))


@every_system
def test_other_images_are_refused_on_resuming(case: SystemCase, tmp_path: Path) -> None:
    run = case.train(case.config(tmp_path, 32), run=tmp_path / "run")
    case.spoil(tmp_path)
    with pytest.raises(InputError, match="SHA-256"):
        case.resume(run, **case.more(64))


@every_system
def test_killed_between_its_last_checkpoint_and_its_record_it_is_recorded_on_resuming(
    case: SystemCase, trained: Train, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained(case), tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"images": 80, "steps": 10, "state": "running"}))
    kept = RunFolder(run).checkpoint_files()
    shutil.copy(kept[-1], kept[-1].with_name("images-000000000008.safetensors"))
    case.resume(run)
    assert RunFolder(run).checkpoint_files() == kept
    after = json.loads((run / "run.json").read_text())
    assert {name: after[name] for name in ("images", "steps", "state")} == {"images": 96, "steps": 12, "state": "finished"}


@every_system
def test_a_cut_off_checkpoint_can_be_deleted_to_go_on_from_the_one_before(
    case: SystemCase, trained: Train, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained(case), tmp_path / "run"))
    newest = RunFolder(run).checkpoint_files()[-1]
    complete = newest.read_bytes()
    newest.write_bytes(complete[:-100])
    with pytest.raises(InputError, match="damaged"):
        case.resume(run)
    newest.unlink()
    case.resume(run)
    assert all(torch.equal(tensor, _last(run)[name]) for name, tensor in load(complete).items())


@every_system
def test_the_record_says_nothing_of_where_programs_lie(case: SystemCase, trained: Train) -> None:
    assert not RunFolder(trained(case)).read_record()["command"].startswith(os.sep)
