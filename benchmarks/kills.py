"""SIGKILL at random moments: python -m benchmarks.kills [--count 1000] [--seed N] [--only CASE] [--out FILE] [--work DIR].

Each attempt starts a command in a process of its own, kills it up to three times at moments drawn at random, and gives it again
until it ends by itself. What lies in its folder then must be what an uninterrupted command leaves, to the bit but for times.
The counts go to FILE after each attempt; the same command continues there. `--count` is the number of kills in all.

Processes are forked from one that has imported everything, so that kills fall into the work and not into the imports.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

import pixelscope
from benchmarks.small import small_domains, small_frames, small_settings
from pixelscope.errors import InputError
from pixelscope.files import TEMPORARY

CLOCK = {"seconds", "images_per_second", "sessions", "git"}
"""What may differ from one run to the next in run.json, stats.jsonl and checkpoints; a commit in the meantime changes `git`."""
REPEATED = 3
"""Most kills of one attempt."""
LOCKS = {"lock"}


@dataclass(frozen=True)
class Case:
    """A command that is killed."""

    name: str
    inputs: str
    """The folder, made beforehand, that a copy of is worked in; empty for an empty one."""
    work: Callable[[Path, Path], object]
    """Does it in a folder, given the folder of all inputs: for the first time, and again after a kill."""
    runs: tuple[str, ...] = ()
    """Systems whose runs it reads."""


@dataclass
class Count:
    """What came of the attempts at one case."""

    attempts: int = 0
    kills: int = 0
    same: int = 0
    different: list[str] = field(default_factory=list)


def _train(system: str) -> Callable[[Path, Path], object]:
    starts = {
        "pixelda": (pixelscope.pixelda.train, pixelscope.pixelda.PixelDAConfig),
        "baseline": (pixelscope.pixelda.baseline, pixelscope.pixelda.BaselineConfig),
        "refinement": (pixelscope.pixelda.refine, pixelscope.pixelda.RefineConfig),
        "endovae": (pixelscope.endovae.train, pixelscope.endovae.EndoVAEConfig),
    }
    start, model = starts[system]

    def work(place: Path, given: Path) -> None:
        run = place / "run"
        if run.exists():
            try:
                pixelscope.resume(run)
                return
            except InputError as error:
                if "stopped before the first checkpoint" not in str(error) or (run / "checkpoints").exists():
                    raise
        start(model.parse(small_settings(system, given)), run=run)  # pyright: ignore[reportArgumentType]

    return work


def _evaluate(place: Path, given: Path) -> None:
    pixelscope.evaluate(next(place.iterdir()))


def _export(place: Path, given: Path, system: str) -> None:
    out = place / "model.safetensors"
    if not out.exists():
        pixelscope.export(given / system, out, form="safetensors")
    elif (place / f".{out.name}.unfinished").exists():
        (place / f".{out.name}.unfinished").unlink()  # the export was complete


def _classify(place: Path, given: Path) -> None:
    if not (place / "labels.csv").exists():
        pixelscope.pixelda.classify(given / "pixelda", [given / "photos"], place / "labels.csv", resume=True)


def _score(place: Path, given: Path) -> None:
    out, maps = place / "scores.csv", place / "maps"
    if not out.exists():
        frames = [given / "frames"]
        pixelscope.endovae.score(given / "endovae", frames, out, maps=maps, false_positive_rate=0.5, resume=True)


def _adapt(place: Path, given: Path) -> None:
    if not (place / "adapted" / "manifest.csv").exists():
        pixelscope.pixelda.adapt(given / "pixelda", given / "photos", place / "adapted", resume=True)


def _prepare(place: Path, given: Path) -> None:
    pixelscope.endovae.prepare([given / "frames"], config=pixelscope.endovae.PrepareConfig(size=16), out=place / "store")


SYSTEMS = ("pixelda", "baseline", "refinement", "endovae")
STARTS_FROM = {"refinement": ("pixelda",)}
"""Systems whose run a training starts from."""
CASES = {
    case.name: case
    for case in (
        *(Case(f"train-{system}", "", _train(system), STARTS_FROM.get(system, ())) for system in SYSTEMS),
        *(Case(f"evaluate-{system}", system, _evaluate, (system,)) for system in SYSTEMS),
        *(
            Case(f"export-{system}", "", lambda place, given, system=system: _export(place, given, system), (system,))
            for system in SYSTEMS
        ),
        Case("prepare", "", _prepare),
        Case("classify", "", _classify, ("pixelda",)),
        Case("score", "", _score, ("endovae",)),
        Case("adapt", "", _adapt, ("pixelda",)),
    )
}


def main() -> int:
    """Kill, compare, count; the exit code is 1 where anything differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/kills.json"))
    parser.add_argument("--work", type=Path, default=None, help="an empty or absent folder; by default a temporary one")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    counts = _read(chosen.out)
    work = chosen.work or Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        names = chosen.only or list(CASES)
        attempts = Attempts(work, random.Random(seed), [CASES[name] for name in names])
        ok = attempts.run(counts, names, chosen.count, chosen.out)
    finally:
        if chosen.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(_summary(counts), indent=1))
    return 0 if ok else 1


class Attempts:
    """The inputs of all cases, what each leaves when nobody kills it, and attempts that are killed."""

    def __init__(self, work: Path, draws: random.Random, cases: list[Case]) -> None:
        self.work, self.draws = work, draws
        self.given, self.whole = work / "given", work / "whole"
        self.seconds: dict[str, float] = {}
        self.given.mkdir(parents=True)
        small_domains(self.given)
        small_frames(self.given)
        read = {run for case in cases for run in case.runs}
        read |= {run for name in read for run in STARTS_FROM.get(name, ())}
        said = self._in_a_process(lambda place, given: _make_inputs(given, read), self.given, None)
        assert not said, f"the inputs cannot be made: {said}"

    def run(self, counts: dict[str, Count], names: list[str], goal: int, out: Path) -> bool:
        """Attempt the cases in turn until there were `goal` kills in all; returns whether all left the same."""
        while sum(count.kills for count in counts.values()) < goal:
            name = min(names, key=lambda name: (counts.setdefault(name, Count()).attempts, self.draws.random()))
            self._attempt(CASES[name], counts[name])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(_summary(counts), indent=1) + "\n")
        return not any(count.different for count in counts.values())

    def _attempt(self, case: Case, count: Count) -> None:
        expected, seconds = self._uninterrupted(case)
        place = self._place(case, self.work / "attempt")
        count.attempts += 1
        moments = [self.draws.uniform(0, 1.1 * seconds) for _ in range(self.draws.randint(1, REPEATED))]
        said = ""
        for moment in [*moments, None]:
            ended = self._in_a_process(case.work, place, moment)
            count.kills += ended is None
            said = ended or ""
        found = contents(place)
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if said or differing:
            count.different.append(f"after {[round(one, 3) for one in moments]} s: {said or ', '.join(differing)}")
            print(f"{case.name}: {count.different[-1]}", flush=True)
        else:
            count.same += 1
        shutil.rmtree(place)

    def _uninterrupted(self, case: Case) -> tuple[dict[str, object], float]:
        place = self.whole / case.name
        if case.name not in self.seconds:
            place = self._place(case, self.whole)
            began = time.monotonic()
            said = self._in_a_process(case.work, place, None)
            assert not said, f"{case.name} fails uninterrupted: {said}"
            self.seconds[case.name] = time.monotonic() - began
        return contents(place), self.seconds[case.name]

    def _place(self, case: Case, parent: Path) -> Path:
        """Make the folder that a case works in, always at one depth, because runs note where their data lie."""
        place = parent / case.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if case.inputs:
            shutil.copytree(self.given / case.inputs, place / "run")
        return place

    def _in_a_process(self, work: Callable[[Path, Path], object], place: Path, moment: float | None) -> str | None:
        """Call `work` in a forked process: returns None where it was killed, else what error it ended with, "" for none."""
        context = multiprocessing.get_context("fork")
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(work, place, self.given, writer))
        process.start()
        writer.close()
        process.join(moment)
        if process.is_alive():
            process.kill()
            process.join()
            return None
        return reader.recv() if reader.poll() else f"ended with code {process.exitcode}"


def _call(work: Callable[[Path, Path], object], place: Path, given: Path, writer: Any) -> None:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        work(place, given)
        writer.send("")
    except BaseException as error:
        writer.send(f"{type(error).__name__}: {error}")
        raise
    finally:
        writer.close()


def _make_inputs(given: Path, systems: set[str]) -> None:
    """Train and evaluate one run of each of these systems; the refinement after the run that it starts from."""
    for system in (system for system in SYSTEMS if system in systems):
        _train(system)(given / f"{system}-made", given)
        (given / f"{system}-made" / "run").rename(given / system)
        (given / f"{system}-made").rmdir()
        if system != "baseline":
            pixelscope.evaluate(given / system)


def contents(folder: Path) -> dict[str, object]:
    """Return what every file of a folder says, without clock times and places, by its path; hidden leftovers included."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in LOCKS]
    left = {str(path.relative_to(folder)): "left" for path in folder.rglob(f"{TEMPORARY}*")}
    return left | {
        str(path.relative_to(folder)): _content(path, folder) for path in files if not path.name.startswith(TEMPORARY)
    }


def _content(path: Path, folder: Path) -> object:
    if path.suffix == ".safetensors":
        return _tensors(path)
    if path.suffix == ".json":
        return _without_clock(json.loads(path.read_text()), str(folder))
    if path.suffix == ".jsonl":
        return [_without_clock(json.loads(line), str(folder)) for line in path.read_text().splitlines()]
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: (stored[name].shape, stored[name].tobytes()) for name in stored.files}
    return path.read_bytes().replace(str(folder).encode(), b"FOLDER")


def _tensors(path: Path) -> object:
    with safe_open(path, "np") as file:
        about = {name: _without_clock(_parsed(text), "") for name, text in (file.metadata() or {}).items()}
        return about, {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - not a dict


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _without_clock(values: object, folder: str) -> object:
    if isinstance(values, dict):
        return {name: _without_clock(value, folder) for name, value in values.items() if name not in CLOCK}
    if isinstance(values, list):
        return [_without_clock(value, folder) for value in values]
    return values.replace(folder, "FOLDER") if isinstance(values, str) and folder else values


def _read(out: Path) -> dict[str, Count]:
    if not out.is_file():
        return {}
    return {name: Count(**values) for name, values in json.loads(out.read_text())["cases"].items()}


def _summary(counts: dict[str, Count]) -> dict[str, Any]:
    return {
        "command": "python -m benchmarks.kills",
        "attempts": sum(count.attempts for count in counts.values()),
        "kills": sum(count.kills for count in counts.values()),
        "same": sum(count.same for count in counts.values()),
        "cases": {name: vars(count) for name, count in counts.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
