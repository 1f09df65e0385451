"""What `auto` means, and what a machine is asked for that it does not have."""

import time
from pathlib import Path

import pytest
import torch
import yaml

from fixtures.processes import fork_ranks
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.distributed import Barrier, average, check_agreement, share_of_cores
from pixelscope.engine.launch import launch
from pixelscope.engine.runtime import ResolvedRuntime, choose_capture, choose_compile, choose_precision, resolve_runtime
from pixelscope.errors import InputError, TrainingStopped


@pytest.mark.parametrize(
    ("asked", "accelerator", "native", "chosen"),
    [
        ("auto", "cuda", True, "bf16-mixed"),
        ("auto", "cuda", False, "32-true"),
        ("auto", "cpu", False, "32-true"),
        ("bf16-mixed", "cpu", False, "bf16-mixed"),
        ("32-true", "cuda", True, "32-true"),
    ],
)
def test_precision_is_what_the_hardware_has(asked: str, accelerator: str, native: bool, chosen: str) -> None:
    assert choose_precision(asked, accelerator, native) == chosen


def test_bfloat16_is_not_asked_of_a_gpu_without_it() -> None:
    with pytest.raises(InputError, match="bfloat16; use --precision 32-true"):
        choose_precision("bf16-mixed", "cuda", native=False)


def test_the_start_line_says_what_is_chosen_and_what_is_slow() -> None:
    fast, slow = (
        ResolvedRuntime(1, "cpu", "bf16-mixed", 1, capture_reason="no GPU").describe(),
        ResolvedRuntime(2, "cpu", "bf16-mixed", 1, emulated=True).describe(),
    )
    assert fast.startswith("1 CPU process, bf16-mixed, channels last, steps not captured (no GPU), not compiled (")
    assert fast.endswith("1 thread each")
    assert "more than" in ResolvedRuntime(1, "cpu", "32-true", share_of_cores(1) + 1).describe()
    assert "more than" not in ResolvedRuntime(1, "cpu", "32-true", share_of_cores(1)).describe()
    assert slow.startswith("2 CPU processes, bf16-mixed (emulated on this processor, slower than 32-true), channels last")


@pytest.mark.parametrize(
    ("asked", "accelerator", "processes", "chosen"),
    [
        ("on", "cuda", 1, True),
        ("on", "cuda", 2, False),
        ("on", "cpu", 1, False),
        ("auto", "cuda", 1, False),
        ("off", "cuda", 1, False),
    ],
)
def test_capture_needs_one_gpu_and_is_asked_for(asked: str, accelerator: str, processes: int, chosen: bool) -> None:
    captured, reason = choose_capture(asked, accelerator, processes)
    assert captured is chosen
    assert reason in ResolvedRuntime(1, accelerator, "32-true", 1, capture=captured, capture_reason=reason).describe()


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_compiling_without_a_compiler_is_refused(accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="compile on needs .*, which this machine lacks; .* use --runtime.compile off"):
        choose_compile("on", accelerator)
    assert [choose_compile(asked, accelerator)[0] for asked in ("auto", "off")] == [False, False]


def test_a_compiler_that_is_named_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "my-compiler"
    compiler.write_text("#!/bin/sh")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", str(compiler))
    assert choose_compile("on", "cpu")[0]


@pytest.mark.parametrize(("written", "read"), [("on", "on"), ("off", "off"), ("auto", "auto")])
def test_switches_are_read_as_yaml_writes_them(written: str, read: str) -> None:
    assert RuntimeConfig.parse(yaml.safe_load(f"capture: {written}")).capture == read


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_more_gpus_than_there_are() -> None:
    with pytest.raises(InputError, match="2 GPUs.*has 0.*--devices"):
        resolve_runtime(RuntimeConfig(devices=2, accelerator="cuda"))


def _disagree(fabric: object) -> None:
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.weight, float(fabric.global_rank))  # type: ignore[attr-defined]
    torch.nn.init.zeros_(layer.bias)
    check_agreement([layer])


def test_processes_that_disagree_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    with pytest.raises(TrainingStopped, match="different weights"):
        launch(RuntimeConfig(devices=2, accelerator="cpu", threads=1), _disagree)


def _one_is_silent(fabric: object) -> None:
    if fabric.global_rank:  # type: ignore[attr-defined]
        time.sleep(120)
    average(torch.zeros(1))


def test_a_process_that_is_silent_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    config = RuntimeConfig(devices=2, accelerator="cpu", threads=1, collective_timeout=1)
    with pytest.raises(TrainingStopped, match="--resume RUN"):
        launch(config, _one_is_silent)


def _one_is_late(fabric: object) -> int:
    barrier = Barrier()
    if fabric.global_rank:  # type: ignore[attr-defined]
        time.sleep(2)
    barrier.wait()
    return int(average(torch.ones(1)))


def test_processes_wait_for_one_that_evaluates_or_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_ranks(monkeypatch)
    assert launch(RuntimeConfig(devices=2, accelerator="cpu", threads=1, collective_timeout=1), _one_is_late) == 1
