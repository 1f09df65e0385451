"""One contender in a process of its own: waits for the word, does a round, says how long it took.

python -m benchmarks.worker CONTENDER THREADS
"""

import contextlib
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

_EXPORT = ("onnx", "onnxscript", "onnxruntime")
NEEDS = {
    "endovae_keras": ("keras",),
    "classify_onnxruntime": _EXPORT,
    "reconstruct_onnxruntime": _EXPORT,
    "quality_plain": ("skimage",),
}
"""What a contender needs beside the project's own packages."""


def main(name: str, threads: int) -> None:
    """Make the contender ready, then do a round for each line of standard input."""
    answer = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        lacking = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
        if lacking:
            _say(answer, {"absent": f"{', '.join(lacking)} not installed"})
            return
        _serve(answer, name, threads)


def _serve(answer: TextIO, name: str, threads: int) -> None:
    import torch

    from benchmarks import contenders
    from benchmarks.machine import ceiling, ready

    torch.set_num_threads(threads)
    if name == "ceiling":
        _say(answer, {dtype: ceiling(dtype) for dtype in ("float32", "bfloat16")})
        return
    round_ = getattr(contenders, name)()
    round_.work()  # what is made on first use is not measured
    round_.extra.update(dict.fromkeys(round_.extra, 0.0))
    began_with = _peak()
    _say(answer, {"units": round_.units, "gflop": round_.gflop, "dtype": round_.dtype})
    for _ in sys.stdin:
        began = ready()
        round_.work()
        _say(answer, {"seconds": ready() - began, **round_.extra, "peak_mb": _peak(), "growth_mb": _peak() - began_with})


def _peak() -> float:
    """Return this process's own peak in MB; what getrusage says is inherited from the parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _say(answer: TextIO, values: dict[str, Any]) -> None:
    answer.write(json.dumps(values) + "\n")
    answer.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
