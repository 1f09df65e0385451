"""Who has started the processes of a training, and what is said where they cannot start or do not come."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from fixtures import tiny
from fixtures.processes import Forked, command
from pixelscope.engine.distributed import is_first_process, launched_from_outside, launched_processes
from pixelscope.engine.launch import _own_error, refused_start
from pixelscope.runs.folder import RunFolder

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "localhost",
}
TASK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({**JOB, **TASK, "SLURM_JOB_NAME": "train"}, 4),
        ({**JOB, **TASK, "SLURM_JOB_NAME": "train", "SLURM_STEP_NUM_TASKS": "4"}, 4),
        ({**JOB, **TASK, "SLURM_JOB_NAME": "train", "SLURM_STEP_NUM_TASKS": "1"}, 0),
        ({**JOB, **TASK, "SLURM_JOB_NAME": "bash"}, 0),
        ({**JOB, **TASK, "SLURM_JOB_NAME": "interactive"}, 0),
        ({**JOB, "SLURM_JOB_NAME": "train"}, 0),
        ({}, 0),
    ],
)
def test_only_tasks_of_srun_train_together(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], processes: int) -> None:
    for name in (name for name in os.environ if name.startswith("SLURM_")):
        monkeypatch.delenv(name)
    for name, value in (variables | {"SLURM_PROCID": "3"} if "SLURM_PROCID" in variables else variables).items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == processes
    assert launched_from_outside() == bool(processes)
    assert is_first_process() == (not processes)


def _flags(folder: Path) -> list[str]:
    source, _ = tiny.write_domains(folder)
    size = ["--data.size", str(tiny.SIZE), "--training.images", "16", "--training.batch-size", "8", "--runtime.threads", "1"]
    return ["pixelda", "baseline", "--source", source, *size, "--runtime.accelerator", "cpu", "--out", str(folder / "run")]


def _training(folder: Path, job: str, *more: str) -> tuple[int | None, str]:
    """Return the exit code and the output of a training in a job of SLURM."""
    process = Forked(folder / "output.txt", command, JOB | TASK | {"SLURM_JOB_NAME": job}, *_flags(folder), *more)
    output = process.wait(timeout=120)
    return process.returncode, output


def test_a_shell_of_slurm_trains_as_one_process(tmp_path: Path) -> None:
    code, output = _training(tmp_path, "bash")
    assert code == 0, output
    assert "4 tasks" in output and "one process" in output
    assert RunFolder.open(tmp_path / "run").read_record()["runtime"]["devices"] == 1


def test_a_script_of_slurm_without_srun_is_told_so(tmp_path: Path) -> None:
    code, output = _training(tmp_path, "train.sh", "--runtime.collective-timeout", "2")
    assert code == 2
    assert "srun" in output.splitlines()[-1]
    assert not (tmp_path / "run").exists()


SCRIPT = """
from pathlib import Path
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.training import train_baseline
import sys
settings = {"size": 16}, {"images": 16, "batch_size": 8}, {"devices": 2, "accelerator": "cpu", "threads": 1}
config = BaselineConfig(source=sys.argv[1], **dict(zip(("data", "training", "runtime"), settings)))
train_baseline(config, run=Path(sys.argv[2]))
"""


def test_a_script_without_a_main_guard_is_told_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    source, _ = tiny.write_domains(tmp_path)
    command = [sys.executable, str(tmp_path / "job.py"), source, str(tmp_path / "run")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "__main__" in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1
    assert not (tmp_path / "run").exists()


def test_errors_of_the_system_come_back_from_a_process_with_their_file() -> None:
    trace = "Traceback\n  line\nOSError: [Errno 28] No space left on device: 'runs/a/stats.jsonl'\n"
    found = _own_error(ProcessRaisedException(trace, 0, 1))
    assert isinstance(found, OSError)
    assert (found.errno, found.filename) == (errno.ENOSPC, "runs/a/stats.jsonl")
    defect = ProcessRaisedException("Traceback\nValueError: a defect\n", 0, 1)
    assert _own_error(defect) is defect


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
    ],
)
def test_shared_memory_is_named(error: OSError | RuntimeError) -> None:
    found = refused_start(error)
    assert found is not None and "/dev/shm" in str(found) and "--devices 1" in str(found)


def test_other_errors_are_not_taken_for_shared_memory() -> None:
    assert refused_start(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a")) is None
    assert refused_start(RuntimeError("a defect")) is None
