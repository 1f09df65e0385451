"""Part `measure`: the GPU tests, the card's ceilings, and each system's step in every form."""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import contenders
from benchmarks.gpu.systems import SYSTEMS, Built, System
from benchmarks.machine import device, ready
from pixelscope.engine.capture import CapturedSteps, EagerSteps
from pixelscope.engine.monitor import FiniteGuard, Meter
from pixelscope.engine.runtime import choose_compile
from pixelscope.errors import InputError
from pixelscope.rng import StepContext

FORMS = ("plain", "eager", "captured", "captured and compiled")
"""Forms of a step; the last is measured last, because compiling takes longest."""
LOG_EVERY = 50
"""Steps between two that are logged, as in preset `paper`; these are timed with the others."""
SECONDS = 4.0
"""How long each form is timed."""
TEST_SECONDS = 150

Store = Callable[[dict[str, Any]], None]


def measure(result: dict[str, Any], store: Store, tiny: bool, deadline: float) -> None:
    """Measure what `result` does not have yet, and store it after each row; no row begins after `deadline` (time.monotonic)."""
    if "tests" not in result:
        result["tests"] = {"note": "not run at tiny size"} if tiny else run_tests()
        store(result)
    if "ceilings" not in result:
        result["ceilings"] = ceilings(tiny)
        store(result)
    rows = result.setdefault("rows", {})
    for form in FORMS:
        for name, system in SYSTEMS.items():
            row = f"{name}, {form}"
            if row in rows or time.monotonic() > deadline or _left_out(form, tiny):
                continue
            print(f"measuring {row}", file=sys.stderr, flush=True)
            rows[row] = {"system": name, "form": form, **measure_row(system, form, 0.0 if tiny else SECONDS, tiny)}
            store(result)


def _left_out(form: str, tiny: bool) -> bool:
    """Return whether there is no such row: plain programs have no tiny size, and compiling is slow."""
    return tiny and form in ("plain", "captured and compiled")


def run_tests() -> dict[str, Any]:
    """Run the tests marked `gpu`, and return whether they passed, with pytest's last line."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", str(root / "tests")]
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=TEST_SECONDS)
    except subprocess.TimeoutExpired:
        return {"passed": False, "summary": f"not done after {TEST_SECONDS} seconds"}
    lines = (done.stdout + done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    summary = {"passed": done.returncode == 0, "summary": lines[-1] if lines else f"exit code {done.returncode}"}
    return {**summary, "failed": failed, "seconds": round(time.monotonic() - began, 1)}


@torch.no_grad()
def ceilings(tiny: bool) -> dict[str, float]:
    """Return the best rates of the card: a large convolution and a large product in bfloat16, and a copy within its memory."""
    kind, layout = torch.bfloat16, torch.channels_last
    count, channels, side, matrix, values = (1, 8, 8, 64, 2**12) if tiny else (256, 256, 64, 8192, 2**28)
    images = torch.randn(count, channels, side, side, dtype=kind, device=device()).contiguous(memory_format=layout)
    weights = torch.randn(channels, channels, 3, 3, dtype=kind, device=device()).contiguous(memory_format=layout)
    square = torch.randn(matrix, matrix, dtype=kind, device=device())
    there, here = (torch.empty(values, dtype=torch.float32, device=device()) for _ in range(2))
    operations = 2 * 9 * count * channels**2 * side**2
    return {
        "convolution, TFLOP/s": operations / _seconds(lambda: torch.conv2d(images, weights, padding=1)) / 1e12,
        "matrix product, TFLOP/s": 2 * matrix**3 / _seconds(lambda: square @ square) / 1e12,
        "copy, GB/s read and written": 2 * there.nbytes / _seconds(lambda: here.copy_(there)) / 1e9,
    }


def _seconds(work: Callable[[], object], times: int = 20) -> float:
    work()
    began = ready()
    for _ in range(times):
        work()
    return (ready() - began) / times


def measure_row(system: System, form: str, seconds: float, tiny: bool) -> dict[str, Any]:
    """Return the rate of one system's steps in one form, or why there is none."""
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.deterministic = form != "plain"  # as a training sets it
    try:
        row = _plain(system, seconds) if form == "plain" else _ours(system.build(tiny), form, seconds)
    except (InputError, RuntimeError) as error:
        return {"absent": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    return row | ({"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if device().type == "cuda" else {})


def _plain(system: System, seconds: float) -> dict[str, Any]:
    round_ = getattr(contenders, system.plain)()
    round_.work()
    rounds, took = _repeat(round_.work, seconds)
    return {"images_per_second": round_.units * rounds / took}


def _ours(built: Built, form: str, seconds: float) -> dict[str, Any]:
    steps = _Steps(built, form)
    began = ready()
    steps.run(LOG_EVERY if seconds else 2)  # makes graphs, compiles, and logs once
    first = ready() - began
    rate, unlogged = steps.rate(seconds), steps.rate(seconds / 2, logged=False)
    epoch = {"epoch_seconds": built.epoch / built.batch_size / rate} if built.epoch else {}
    row = {
        "steps_per_second": rate,
        "unlogged_steps_per_second": unlogged,
        "images_per_second": rate * built.batch_size,
        **epoch,
    }
    return {**row, "first_steps_seconds": first, **({"note": steps.said[0]} if steps.said else {})}


class _Steps:
    """Steps in one form, one after the other, as the loop takes them."""

    def __init__(self, built: Built, form: str) -> None:
        if form == "captured and compiled":
            choose_compile("on", device().type)
            built.task.compile()
        self.said: list[str] = []
        self._built, self._number = built, 0
        captured = CapturedSteps(built.task, built.batches, device(), self.said.append) if form.startswith("captured") else None
        self._take = captured or EagerSteps(built.task, built.batches)

    def run(self, count: int, logged: bool = True) -> None:
        """Take `count` steps; if `logged`, every 50th is logged."""
        meter, guard, size = Meter(), FiniteGuard(""), self._built.batch_size
        for at in range(self._number, self._number + count):
            log_now = logged and at % LOG_EVERY == LOG_EVERY - 1
            numbers = self._take(StepContext(at * size, at, size, 0, device=device(), log_now=log_now))
            meter.add(numbers)
            guard.watch(numbers, at)
        self._number += count
        guard.check()
        meter.read()

    def rate(self, seconds: float, logged: bool = True) -> float:
        """Return steps per second over about `seconds`."""
        count = LOG_EVERY if seconds else 2
        rounds, took = _repeat(lambda: self.run(count, logged), seconds)
        return rounds * count / took


def _repeat(work: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Return how often `work` was done in about `seconds`, once at least, and how long that took."""
    began = ready()
    for rounds in itertools.count(1):
        work()
        if ready() - began >= seconds:
            return rounds, ready() - began
    raise AssertionError
