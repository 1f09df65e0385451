"""Rounds by turns: the contenders of an item, each in its process, one after the other, again and again."""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.items import Item

STARTS = {
    "python -c pass": ["-c", "pass"],
    "import pixelscope": ["-c", "import pixelscope"],
    "pixelscope --help": ["-m", "pixelscope", "--help"],
    "pixelscope endovae train --help": ["-m", "pixelscope", "endovae", "train", "--help"],
}


class Contender:
    """A worker process and what it has said."""

    def __init__(self, name: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", name, str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self.about = self.hear()
        self.rounds: list[dict[str, float]] = []

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__(None, None, None)  # closes the pipes, which ends the worker, and waits for it

    def hear(self) -> dict[str, Any]:
        """Return the next line of the worker; raises RuntimeError where it has ended without one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended without an answer; run it by hand.")  # type: ignore[arg-type]
        return json.loads(line)

    def go(self) -> None:
        """Do a round."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append(self.hear())

    def result(self) -> dict[str, Any]:
        """Return the medians over the rounds."""
        if "absent" in self.about:
            return self.about
        seconds = [one["seconds"] for one in self.rounds]
        middle = statistics.median(seconds)
        last = self.rounds[-1]
        data = last["data_seconds"] / last["step_seconds"] if last.get("step_seconds") else None
        return {
            "per_second": self.about["units"] / middle,
            "slowest": self.about["units"] / max(seconds),
            "fastest": self.about["units"] / min(seconds),
            "rounds": len(seconds),
            "units_a_round": self.about["units"],
            "dtype": self.about["dtype"],
            "gflops": self.about["gflop"] / middle if self.about["gflop"] else None,
            "data_share": data,
            "peak_mb": last["peak_mb"],
            "growth_mb": last["growth_mb"],
        }


def measure_ceiling(threads: int) -> dict[str, dict[str, float]]:
    """Return the machine's best rates in GFLOP/s, by dtype."""
    with Contender("ceiling", threads) as contender:
        return contender.about


def measure(item: Item, threads: int, rounds: int | None = None) -> dict[str, Any]:
    """Return what each contender of `item` reached."""
    with ExitStack() as stack:
        contenders = {title: stack.enter_context(Contender(name, threads)) for title, name in item.contenders.items()}
        present = [contender for contender in contenders.values() if "absent" not in contender.about]
        for _ in range(rounds or item.rounds):
            for contender in present:
                contender.go()
        return {title: contender.result() for title, contender in contenders.items()}


def measure_starts(rounds: int = 15) -> dict[str, Any]:
    """Return the median seconds of whole processes, and how many times Python's own start that is."""
    seconds: dict[str, list[float]] = {title: [] for title in STARTS}
    for _ in range(rounds):
        for title, arguments in STARTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds[title].append(time.perf_counter() - began)
    medians = {title: statistics.median(values) for title, values in seconds.items()}
    base = medians["python -c pass"]
    return {
        title: {"seconds": value, "times": value / base, "least": min(seconds[title]), "most": max(seconds[title])}
        for title, value in medians.items()
    }
