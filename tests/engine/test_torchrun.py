"""Processes that a launcher started, as on a cluster: one run folder, made by the first of them."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fixtures import tiny
from fixtures.processes import Forked, command
from pixelscope.runs.folder import RunFolder


def _flags(folder: Path, images: int = 32) -> list[str]:
    source, _ = tiny.write_domains(folder)
    settings = {
        "--source": source,
        "--data.size": tiny.SIZE,
        "--runtime.accelerator": "cpu",
        "--runtime.threads": 1,
        "--training.batch-size": 8,
        "--training.images": images,
        "--out": folder / "run",
    }
    return ["pixelda", "baseline", *(str(part) for pair in settings.items() for part in pair)]


def test_processes_of_torchrun_train_one_run(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pixelscope"]
    pipes: dict[str, Any] = {"capture_output": True, "text": True}
    done = subprocess.run([*launcher, *_flags(tmp_path)], check=False, **pipes)
    assert done.returncode == 0, done.stderr
    record = RunFolder.open(tmp_path / "run").read_record()
    assert (record["state"], record["images"], record["runtime"]["devices"]) == ("finished", 32, 2)
    assert done.stdout.count("Report: ") == 1


def _task_of_slurm(output: Path, number: int, port: int, flags: list[str]) -> Forked:
    """Start what `srun --nodes 2 --ntasks-per-node 1` starts on its machine of that number: the variables are all it gives."""
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", **tasks}
    place = {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number), "SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1"}
    variables = job | place | {"MASTER_PORT": str(port), "MASTER_ADDR": "127.0.0.1"}
    return Forked(output / f"task{number}.txt", command, variables, *flags)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_tasks_of_slurm_on_two_nodes_train_one_run(tmp_path: Path) -> None:
    port, flags = _free_port(), _flags(tmp_path)
    tasks = [_task_of_slurm(tmp_path, number, port, flags) for number in range(2)]
    outputs = [task.wait(timeout=200) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    record = RunFolder.open(tmp_path / "run").read_record()
    assert (record["state"], record["images"]) == ("finished", 32)
    assert [output.count("Report: ") for output in outputs] == [1, 0]


def test_a_node_that_dies_stops_the_other_with_one_line(tmp_path: Path) -> None:
    """No parent of both sees the death: the one that is left must notice it by itself."""
    port, flags = _free_port(), _flags(tmp_path, images=100_000_000)
    first, second = (_task_of_slurm(tmp_path, number, port, [*flags, "--training.log-every", "8"]) for number in range(2))
    _wait_for(tmp_path / "run" / "stats.jsonl", first)
    second.send_signal(signal.SIGKILL)
    said = first.wait(timeout=60)
    second.wait(timeout=60)
    assert first.returncode == 2
    last = said.splitlines()[-1]
    assert last.startswith("Error: Another process has ended")
    assert "--resume" in last
    assert "Traceback" not in said
    assert RunFolder.open(tmp_path / "run").read_record()["state"] == "stopped"


def _wait_for(file: Path, process: Forked) -> None:
    while not (file.is_file() and '"train"' in file.read_text()):
        assert process.returncode is None, process.wait(timeout=0)
        time.sleep(0.1)
