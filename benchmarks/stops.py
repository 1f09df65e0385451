"""python -m benchmarks.stops {evaluate,export,load} RUN: how far a reader walks who follows a run through the code.

A stop is a function of Pixelscope that is called from outside or from another of its files, directly or through a library. Each
function counts once. Left out are engine/checkpoint.py, runs/ and the config.py files, where every way leads, and what they
call. `evaluate` writes into RUN.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pixelscope
from pixelscope.pixelda.inference.model import load_classifier
from pixelscope.runs.folder import RunFolder
from pixelscope.systems import SYSTEMS

PACKAGE = f"{Path(pixelscope.__file__).parent}{os.sep}"
LEFT_OUT = ("engine/checkpoint.py", "runs/")


def stops(call: Callable[[], Any]) -> list[tuple[str, str]]:
    """Return the stops of `call` as (file, function), in the order of the first visit."""
    found: dict[tuple[str, str], None] = {}

    def observe(frame: FrameType, event: str, _: Any) -> None:
        file = _file(frame)
        # Python calls `__del__` whenever it likes.
        if event != "call" or file is None or frame.f_code.co_name in ("<module>", "__del__"):
            return
        caller = next((one for one in _callers(frame) if _file(one) is not None), None)
        # What a module calls while it is imported is no part of the way, nor is what a file calls that is left out.
        by = "" if caller is None else _file(caller) or ""
        if caller is None or (caller.f_code.co_name != "<module>" and by != file and not _left_out(by)):
            found[file, frame.f_code.co_qualname] = None

    sys.setprofile(observe)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [stop for stop in found if not _left_out(stop[0])]


def _callers(frame: FrameType) -> Iterator[FrameType]:
    above = frame.f_back
    while above is not None:
        yield above
        above = above.f_back


def _file(frame: FrameType) -> str | None:
    """Return the file of a function relative to the package; None for a library's."""
    path = frame.f_code.co_filename
    return Path(path[len(PACKAGE) :]).as_posix() if path.startswith(PACKAGE) else None


def _left_out(file: str) -> bool:
    return file.startswith(LEFT_OUT) or Path(file).name == "config.py"


def way(name: str, run: Path, folder: Path) -> Callable[[], Any]:
    """Return what is followed, already imported; `folder`: where an export is written."""
    system = SYSTEMS[RunFolder.open(run).read_record()["system"]]
    if name == "load":
        return partial(load_classifier, run)
    function = system.function(name)
    assert function is not None
    return partial(function, run) if name == "evaluate" else partial(function, run, folder / "model.onnx", "onnx")


def main() -> None:
    """Print the stops of one way, and their number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("way", choices=("evaluate", "export", "load"))
    parser.add_argument("run", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = stops(way(chosen.way, chosen.run, Path(folder)))
    for file, function in found:
        print(f"{file}: {function}")
    print(f"{len(found)} stops in {len({file for file, _ in found})} files")


if __name__ == "__main__":
    main()
