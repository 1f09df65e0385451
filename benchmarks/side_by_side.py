"""Trainings of PixelDA side by side on one machine: python -m benchmarks.side_by_side THREADS...

One process per number of THREADS takes the steps of preset paper, all at the same time: `2` measures one training with two
threads, `2 1` a second one with one thread next to it. Other trainings on the machine must rest.
"""

import argparse
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.measure import Contender

STEPS = "pixelda_ours"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the trainings and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=(__doc__ or "").split(":", 1)[0])
    parser.add_argument("threads", type=int, nargs="+", help="threads of each training")
    chosen = parser.parse_args(arguments)
    for threads, rate in zip(chosen.threads, rates(chosen.threads), strict=True):
        print(f"{threads} threads: {rate:.1f} images/s")
    return 0


def rates(threads: Sequence[int], name: str = STEPS) -> list[float]:
    """Return the images per second of each training, while all of them run."""
    with ExitStack() as stack:
        trainings = [stack.enter_context(Contender(name, number)) for number in threads]
        measured = threading.Barrier(len(trainings))
        with ThreadPoolExecutor(len(trainings)) as pool:
            return list(pool.map(lambda training: _rate(training, measured), trainings))


def _rate(training: Contender, measured: threading.Barrier) -> float:
    """Return the rate of a training's first round; it goes on until the first rounds of all are done."""
    training.go()
    rate = training.about["units"] / training.rounds[0]["seconds"]
    done = threading.Event()
    threading.Thread(target=lambda: (measured.wait(), done.set()), daemon=True).start()
    while not done.is_set():
        training.go()
    return rate


if __name__ == "__main__":
    sys.exit(main())
