"""Mutated files, opened in one process: python -m benchmarks.fuzz [--count 100000] [--seed N] [--only images] [--out FILE].

Files of every kind that Pixelscope reads are damaged at random (bytes flipped, cut out, doubled, put in from others; values of
JSON and YAML exchanged for extreme ones) and opened as a user would. Each must be read, or refused with an error that names the
file: none may raise anything else, take over 10 seconds of the processor, raise the process's most memory by 1 GB, or end the
process. The seed is printed; it differs from run to run unless it is given. The counts go to FILE; the same command continues
there, and counts the processes that it took: more than one where it was stopped, or crashed.
"""

import argparse
import faulthandler
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

import pixelscope
from benchmarks.small import SIZE, small_domains, small_frames, small_settings
from pixelscope.config import read_yaml
from pixelscope.data.formats.decode import read_image
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.runs.folder import read_stats
from pixelscope.runs.record import ResultFile

RESULTS: dict[str, type[ResultFile]] = {
    "pixelda": pixelscope.pixelda.Evaluation,
    "baseline": pixelscope.pixelda.Evaluation,
    "refinement": RefinementResult,
    "endovae": pixelscope.endovae.Evaluation,
}
LIMIT, WAIT, HIGH_WATER = 10, 60, 1 << 30
"""Seconds of the processor, seconds by the clock, and bytes of memory that opening one file may take."""
BATCH = 250
"""Files of one kind in a row; counts are stored after each batch."""
IMAGES = ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "pgm", "jp2", "avif")
EXTREME: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 5_000, "../../etc/passwd"),
    *([], {}, [[]], {"a": {}}, "\ud800", "\x00", [1, "a", None], "images", "1e5"),
)


@dataclass(frozen=True)
class Target:
    """A file that is mutated, and what opens it."""

    kind: str
    file: Path
    open: Callable[[], object]
    share: int = 20
    """How often it is taken among those of its kind; what draws a whole page is taken seldom."""


@dataclass
class Count:
    """What came of the files of one kind."""

    files: int = 0
    read: int = 0
    refused: int = 0
    repeated: int = 0
    """Files that were opened twice, because the first time took too long."""
    defects: list[str] = field(default_factory=list)


class Hang(BaseException):
    """Opening took too long; no reader catches it."""


def corpus(place: Path) -> list[Target]:
    """Make one good file or folder of every kind in `place`, and return them."""
    small_domains(place)
    small_frames(place)
    _make_runs(place)
    targets = [*_images(place), *_arrays(place), *_idx(place), *_labels(place), *_store(place)]
    for system in ("pixelda", "baseline", "refinement", "endovae"):
        targets += _run(place, system)
    targets += _models(place)
    for opened in dict.fromkeys(target.open for target in targets):
        opened()  # a file that is refused before it is damaged would test nothing
    return targets


def _make_runs(place: Path) -> None:
    trains = {
        "pixelda": (pixelscope.pixelda.train, pixelscope.pixelda.PixelDAConfig),
        "baseline": (pixelscope.pixelda.baseline, pixelscope.pixelda.BaselineConfig),
        "refinement": (pixelscope.pixelda.refine, pixelscope.pixelda.RefineConfig),
        "endovae": (pixelscope.endovae.train, pixelscope.endovae.EndoVAEConfig),
    }
    for system, (train, model) in trains.items():
        train(model.parse(small_settings(system, place)), run=place / system)  # pyright: ignore[reportArgumentType]
        pixelscope.evaluate(place / system)


def _images(place: Path) -> Iterator[Target]:
    (place / "images").mkdir()
    shade = np.linspace(0, 255, 24 * 20 * 3).reshape(20, 24, 3).astype(np.uint8)
    for suffix in IMAGES:
        file = place / "images" / f"a.{suffix}"
        try:
            Image.fromarray(shade[..., 0] if suffix == "pgm" else shade).save(file)
        except (KeyError, ValueError, OSError):  # not every build of Pillow writes every format
            continue
        yield Target("images", file, lambda file=file: read_image(file))
    deep = {"deep.png": np.uint16, "deep.tif": np.float32}
    for name, kind in deep.items():
        file = place / "images" / name
        Image.fromarray(shade[..., 0].astype(kind)).save(file)
        yield Target("images", file, lambda file=file: read_image(file))


def _source(spec: str) -> Callable[[], object]:
    return lambda: pixelscope.load_images(spec, size=SIZE)


def _arrays(place: Path) -> Iterator[Target]:
    with np.load(place / "source.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    savemat(place / "a.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels + 1})
    savemat(place / "b.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    np.savez_compressed(place / "c.npz", images=images, labels=labels)
    np.save(place / "d.npy", images)
    for name, kind in (("a.mat", "mat"), ("b.mat", "mat"), ("source.npz", "npz"), ("c.npz", "npz"), ("d.npy", "npz")):
        order = "@H-W-C-N" if kind == "mat" else ""
        yield Target(kind, place / name, _source(f"arrays:{place / name}{order}"))


def _idx(place: Path) -> Iterator[Target]:
    folder = place / "mnist"
    folder.mkdir()
    images, labels = np.arange(60 * 784).reshape(60, 28, 28).astype(np.uint8), (np.arange(60) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
            file = folder / f"{part}-{name}"
            file.write_bytes(head + array.tobytes())
            yield Target("idx", file, lambda: pixelscope.load_images(f"mnist:{folder}", size=32))


def _labels(place: Path) -> Iterator[Target]:
    folder = place / "listed"
    folder.mkdir()
    lines = ["file,label"]
    for index in range(6):
        Image.new("RGB", (SIZE, SIZE), (40 * index, 0, 0)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{'ab'[index % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    yield Target("labels", folder / "labels.csv", lambda: pixelscope.load_images(f"folder:{folder}", size=SIZE))


def _store(place: Path) -> Iterator[Target]:
    store = place / "store"
    settings = pixelscope.endovae.PrepareConfig(size=SIZE)
    pixelscope.endovae.prepare([place / "frames"], config=settings, out=store)

    def use() -> object:
        opened = pixelscope.endovae.FrameStore.open(store)
        return opened.summary().to_text(), opened.hashes.sum(), opened.frames[:].sum(), opened.figures

    for name in ("index.json", "frames.npy", "insets.npy", "figures.npz"):
        yield Target("store", store / name, use)


def _run(place: Path, system: str) -> Iterator[Target]:
    run = place / system

    def resume() -> None:
        for read in (pixelscope.run_info, pixelscope.run_statistics, pixelscope.run_settings, pixelscope.newest_samples):
            read(run)
        _load_model(run, system)

    def draw() -> object:
        return pixelscope.sections(run)

    yield Target("run.json", run / "run.json", resume)
    yield Target("yaml", run / "config.yaml", lambda: (read_yaml(run / "config.yaml"), resume()))
    yield Target("stats.jsonl", run / "stats.jsonl", lambda: read_stats(run / "stats.jsonl"))
    yield Target("evaluation.json", run / "evaluation.json", lambda: RESULTS[system].load(run / "evaluation.json"))
    for name in ("run.json", "stats.jsonl", "evaluation.json"):
        yield Target(name, run / name, draw, 1)
    newest = sorted((run / "checkpoints").glob("images-*"))[-1]
    yield Target("checkpoints", newest, lambda: (checkpoint.load(newest), _load_model(run, system)))
    for arrays in sorted((run / "samples").glob("*.npz")):
        yield Target("samples", arrays, lambda: pixelscope.newest_samples(run))
        yield Target("samples", arrays, draw, 1)


def _load_model(path: Path, system: str) -> None:
    if system == "endovae":
        pixelscope.endovae.load_scorer(path)
    else:
        pixelscope.pixelda.load_classifier(path)


def _models(place: Path) -> Iterator[Target]:
    for system, form in (("pixelda", "onnx"), ("pixelda", "safetensors"), ("endovae", "onnx"), ("endovae", "safetensors")):
        file = place / f"{system}-{form}.{form}"
        try:
            pixelscope.export(place / system, file, form=form)  # pyright: ignore[reportArgumentType]
        except InputError as error:
            print(f"{file.name} is left out: {error}", file=sys.stderr)
            continue
        yield Target(
            "onnx" if form == "onnx" else "checkpoints", file, lambda file=file, system=system: _load_model(file, system)
        )


EDIT = st.tuples(
    st.sampled_from(("flip", "set", "cut", "double", "insert", "end", "word", "value", "drop")),
    st.integers(0, 2**20),
    st.integers(0, 2**32 - 1),
)
EDITS = st.lists(EDIT, min_size=1, max_size=6)


def mutated(content: bytes, edits: list[tuple[str, int, int]], suffix: str) -> bytes:
    """Return a file's content with edits: a place from 0 to 2^20 of the whole, and a number that says what is put there."""
    for kind, where, number in edits:
        if kind in ("value", "drop"):
            content = _structured(content, suffix, where, number, kind == "drop") or content
            continue
        at, length = where * len(content) >> 20, number % 64 + 1
        put = {
            "flip": lambda c, a, n, e: c[:a] + bytes([c[a] ^ 1 << e % 8]) + c[a + 1 :] if a < len(c) else c,
            "set": lambda c, a, n, e: c[:a] + bytes([e % 256]) + c[a + 1 :],
            "cut": lambda c, a, n, e: c[:a] + c[a + n :],
            "double": lambda c, a, n, e: c[: a + n] + c[a : a + n] + c[a + n :],
            "insert": lambda c, a, n, e: c[:a] + random.Random(e).randbytes(n) + c[a:],
            "end": lambda c, a, n, e: c[:a],
            "word": lambda c, a, n, e: c[:a] + e.to_bytes(4, "big" if e % 2 else "little") + c[a + 4 :],
        }[kind]
        content = put(content, at, length, number)
    return content


def _structured(content: bytes, suffix: str, where: int, number: int, drop: bool) -> bytes | None:
    """Return JSON or YAML with one of its values removed, or exchanged for an extreme one; None where it is neither."""
    text = content.decode("utf-8", "replace")
    lines = text.split("\n") if suffix == ".jsonl" else [text]
    line = number % len(lines)
    try:
        values = yaml.safe_load(lines[line]) if suffix == ".yaml" else json.loads(lines[line])
    except Exception:  # noqa: BLE001 - it was damaged before, or is neither
        return None
    places = list(_places(values))
    if not places:
        return None
    holder, key = places[where % len(places)]
    if drop:
        del holder[key]
    else:
        holder[key] = EXTREME[number % len(EXTREME)]
    with suppress(yaml.YAMLError):
        lines[line] = yaml.safe_dump(values, sort_keys=False) if suffix == ".yaml" else json.dumps(values)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    found = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(found):
        yield values, key
        yield from _places(value)


def attempt(target: Target, content: bytes, count: Count) -> str | None:
    """Open a file with other content, and put it back; returns what is wrong with how that went.

    What takes too long is opened once more: a file that hangs does so every time, and a machine that pauses does not.
    """
    count.files += 1
    outcome, found, slow = _opened(target, content)
    if slow:
        print(f"{target.file.parent.name}/{target.file.name} is opened once more: {found}", flush=True)
        count.repeated += 1
        outcome, found, _ = _opened(target, content)
    count.read += outcome == "read"
    count.refused += outcome == "refused"
    return found


def _opened(target: Target, content: bytes) -> tuple[str, str | None, bool]:
    """Return whether the content was read or refused, what is wrong with how that went, and whether it took too long."""
    good = target.file.read_bytes()
    before, began = _most_memory(), time.process_time()
    target.file.write_bytes(content)
    outcome, found = "read", None
    try:
        with _time_limit():
            target.open()
    except InputError as error:
        outcome, found = "refused", None if _names(str(error), target.file) else f"does not name the file: {error}"
    except OSError as error:
        named = error.filename and _names(str(error.filename), target.file)
        outcome, found = "refused", None if named else _told(error)
    except Hang as error:
        return "failed", _told(error), True
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        outcome, found = "failed", _told(error)
    finally:
        target.file.write_bytes(good)
    if found is None and _most_memory() - before > HIGH_WATER:
        found = f"takes {(_most_memory() - before) / 2**30:.1f} GB"
    took = time.process_time() - began
    if took > LIMIT:
        return outcome, found or f"takes {took:.0f} s", True
    return outcome, found, False


def _names(text: str, file: Path) -> bool:
    """Say whether an error names a file, or the run, the store or the folder that it is read as part of."""
    return str(file) in text or str(file.parent) in text or text.startswith(f"{file.parent.name} is not a run folder")


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-2] if isinstance(error, Hang) else frames[-1]  # the innermost one of a hang is the alarm
    return f"{type(error).__name__}: {str(error)[:160]} ({Path(last.filename).name}:{last.lineno})"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Hang(f"over {LIMIT} s of the processor" if number == signal.SIGPROF else f"over {WAIT} s")

    # Seconds of the processor, so that other work on the machine makes no hang; what waits without computing ends by the clock.
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, LIMIT), signal.SIGALRM: (signal.ITIMER_REAL, WAIT)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    # What computes in a library cannot be interrupted; then the process ends, with the place.
    faulthandler.dump_traceback_later(2 * WAIT, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def fuzz(
    targets: list[Target], files: int, seed: int, counts: dict[str, Count], done: Callable[[], None] = lambda: None
) -> None:
    """Open `files` mutated files in all, of each kind in turn, and count what comes of them."""
    kinds = list(dict.fromkeys(target.kind for target in targets))
    total = sum(count.files for count in counts.values())
    for turn in range(10**9):
        kind = kinds[turn % len(kinds)]
        size = min(BATCH, max(1, files // len(kinds)), files - total)
        if size <= 0:
            return
        count = counts.setdefault(kind, Count())
        before = count.files
        _batch([target for target in targets if target.kind == kind], size, seed + turn, count)
        total += count.files - before
        done()


def _batch(targets: list[Target], size: int, seed: int, count: Count) -> None:
    contents = [target.file.read_bytes() for target in targets]
    choices = [which for which, target in enumerate(targets) for _ in range(target.share)]
    seen: dict[tuple[int, str], None] = {}

    check = hypothesis.HealthCheck

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=size,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=(check.data_too_large, check.filter_too_much, check.large_base_example, check.too_slow),
    )
    @hypothesis.given(st.sampled_from(choices), EDITS)
    def one(which: int, edits: list[tuple[str, int, int]]) -> None:
        target = targets[which]
        found = attempt(target, mutated(contents[which], edits, target.file.suffix), count)
        if found is not None and (which, found[:60]) not in seen:
            seen[which, found[:60]] = None
            said = f"{target.file.parent.name}/{target.file.name} after {edits}: {found}"
            count.defects.append(said)
            print(said, flush=True)

    one()


def main() -> int:
    """Open, count, print; the exit code is 1 where there was a defect."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", action="append", help="kinds of files; by default all")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/fuzz.json"))
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    faulthandler.enable()
    counts, processes = dict[str, Count](), 1
    if chosen.out.is_file():
        before = json.loads(chosen.out.read_text())
        counts, processes = {kind: Count(**values) for kind, values in before["kinds"].items()}, before["processes"] + 1
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        targets = [one for one in corpus(place) if not chosen.only or one.kind in chosen.only]
        fuzz(targets, chosen.count, seed, counts, lambda: _store_counts(chosen.out, counts, processes))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(chosen.out.read_text())
    return 1 if any(count.defects for count in counts.values()) else 0


def _store_counts(out: Path, counts: dict[str, Count], processes: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    summary = {
        "command": "python -m benchmarks.fuzz",
        "processes": processes,
        "files": sum(count.files for count in counts.values()),
        "defects": sum(len(count.defects) for count in counts.values()),
        "most_memory_mb": round(_most_memory() / 2**20),
        "kinds": {kind: vars(count) for kind, count in counts.items()},
    }
    out.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
