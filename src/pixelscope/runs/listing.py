"""List run folders with their state and progress."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.config import dotted, read_yaml
from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE, read_json
from pixelscope.runs.folder import RunFolder, read_stats

STALE = 120.0
"""Seconds without a new line of statistics after which a running run without a lock counts as stopped."""


@dataclass(frozen=True)
class RunInfo:
    """One run folder."""

    path: Path
    name: str
    system: str
    state: str
    """`running`, `finished` or `stopped`."""
    images: int
    goal: int | None
    """Total number of training images, if the record has it; a schedule may stop earlier."""
    changed: float
    """Time of the last change, in seconds since the epoch."""


def find_runs(places: Sequence[Path]) -> list[RunInfo]:
    """Return the run folders among `places` and one level below, newest first; incomplete ones are skipped.

    Example:
        >>> for run in pixelscope.find_runs([Path("runs")]):
        ...     print(run.name, run.state)
    """
    found = [info for path in folders_among(places) if (info := _read(path)) is not None]
    return sorted(found, key=lambda info: -info.changed)


def folders_among(places: Sequence[Path]) -> list[Path]:
    """Return the folders among `places` and one level below, resolved, each once."""
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            continue
        for path in (place, *sorted(child for child in place.iterdir() if child.is_dir())):
            found[path.resolve()] = None
    return list(found)


def run_info(path: Path) -> RunInfo:
    """Return the state of a run folder; raises InputError if it is not a run folder, or incomplete.

    Example:
        >>> pixelscope.run_info(Path("runs/adapted")).state
        'finished'
    """
    info = _read(Path(path))
    if info is None:
        raise InputError(f"{Path(path).name} is not a run folder; choose another one.")
    return info


def run_statistics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of statistics of a run; empty if there are none.

    Example:
        >>> lines = pixelscope.run_statistics(Path("runs/adapted"))
        >>> [line["images"] for line in lines if line["kind"] == "train"]
    """
    try:
        return read_stats(RunFolder.open(path).stats)
    except (InputError, OSError):
        return []


def run_settings(path: Path) -> dict[str, str]:
    """Return the settings of a run by their dotted names, as text; empty if its configuration cannot be read.

    Example:
        >>> pixelscope.run_settings(Path("runs/adapted"))["training.images"]
    """
    try:
        settings = read_yaml(RunFolder.open(path).config)
    except InputError:
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in dotted(settings)}


def newest_samples(path: Path) -> dict[str, np.ndarray]:
    """Return the newest sample images of a training by name, uint8 (K, S, S, 3); empty before the first.

    Example:
        >>> pixelscope.newest_samples(Path("runs/adapted"))["generated"].shape
    """
    try:
        file = RunFolder.open(path).samples / "progress.npz"
        with np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except UNREADABLE:
        return {}
    stacks = {name: images for name, images in found.items() if images.ndim in (4, 5) and len(images)}
    newest = {name: images if images.ndim == 4 else images[-1] for name, images in stacks.items()}
    return {name: images for name, images in newest.items() if images.dtype == np.uint8}


def _read(path: Path) -> RunInfo | None:
    folder = RunFolder(path)
    if not folder.record.is_file() or not folder.config.is_file():
        return None
    try:
        RunFolder.open(path)
        record, changed = read_json(folder.record), _changed(folder)
        system = str(record["system"])
    except (InputError, KeyError, OSError, TypeError):
        return None
    state, seen = str(record.get("state", "running")), record.get("images", 0)
    newest = [line["images"] for line in run_statistics(path)[-1:] if isinstance(line.get("images"), int)]
    images = max([seen if isinstance(seen, int) else 0, *newest])
    if state == "running" and not folder.is_in_use() and (folder.was_locked() or time.time() - changed > STALE):
        state = "stopped"
    goal = record.get("goal")
    return RunInfo(path, path.name, system, state, images, goal if isinstance(goal, int) else None, changed)


def _changed(folder: RunFolder) -> float:
    return max(path.stat().st_mtime for path in (folder.record, folder.stats, folder.evaluation) if path.is_file())
