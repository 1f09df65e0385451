"""Processes that a launcher started, as on a cluster: one run folder, made by the first of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import tiny
from pixelscope.engine.run import RunFolder


def test_processes_of_torchrun_train_one_run(tmp_path: Path) -> None:
    source, _ = tiny.write_domains(tmp_path)
    settings = {
        "--source": source,
        "--data.size": tiny.SIZE,
        "--devices": 2,
        "--runtime.accelerator": "cpu",
        "--training.batch-size": 8,
        "--training.images": 32,
        "--out": tmp_path / "run",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pipes: dict[str, Any] = {"capture_output": True, "text": True}
    flags = [str(part) for pair in settings.items() for part in pair]
    done = subprocess.run([*launcher, "-m", "pixelscope", "pixelda", "baseline", *flags], check=False, **pipes)
    assert done.returncode == 0, done.stderr
    record = RunFolder.open(tmp_path / "run").read_record()
    assert (record["state"], record["images"], record["runtime"]["devices"]) == ("finished", 32, 2)
    assert done.stdout.count("Report: ") == 1
