"""The run folders in a place, as a person sees them: what each is, and how far it is."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data.damage import UNREADABLE
from pixelscope.engine.run import RunFolder, read_json, read_stats
from pixelscope.errors import InputError

STALE = 120.0
"""Seconds without a line of statistics after which a run that says it is running is taken for stopped."""


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
    """Images that it trains on in all, where its configuration says so."""
    changed: float
    """When something in it last changed, in seconds since the epoch."""


def find_runs(places: Sequence[Path]) -> list[RunInfo]:
    """Return the run folders among `places` and one level below them, the newest first; what is half-written is left out."""
    candidates: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            continue
        for path in (place, *sorted(child for child in place.iterdir() if child.is_dir())):
            candidates[path.resolve()] = None
    found = [info for path in candidates if (info := _read(path)) is not None]
    return sorted(found, key=lambda info: -info.changed)


def run_info(path: Path) -> RunInfo:
    """Return what a run folder is; raises InputError where it is none, or is half-written."""
    info = _read(Path(path))
    if info is None:
        raise InputError(f"{Path(path).name} is no run folder (any more); choose another one.")
    return info


def run_statistics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of statistics of a run; none where there are none yet."""
    try:
        return [line for line in read_stats(RunFolder(path).stats) if isinstance(line, dict)]
    except (InputError, OSError):
        return []


def newest_samples(path: Path) -> dict[str, np.ndarray]:
    """Return the newest images that a training stored, uint8 (K, S, S, 3) by what they are; empty before the first."""
    file = RunFolder(path).samples / "progress.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {name: stored[name] for name in ("source", "originals", "reconstructions", "generated") if name in stored}
    except UNREADABLE:
        return {}
    newest = {name: images if images.ndim == 4 else images[-1] for name, images in found.items() if len(images)}
    return {name: images for name, images in newest.items() if images.ndim == 4 and images.dtype == np.uint8}


def _read(path: Path) -> RunInfo | None:
    folder = RunFolder(path)
    if not folder.record.is_file() or not folder.config.is_file():
        return None
    try:
        record, changed = read_json(folder.record), _changed(folder)
        system = str(record["system"])
    except (InputError, KeyError, OSError, TypeError):
        return None
    state, seen = str(record.get("state", "running")), record.get("images", 0)
    newest = [line["images"] for line in run_statistics(path)[-1:] if isinstance(line.get("images"), int)]
    images = max([seen if isinstance(seen, int) else 0, *newest])
    if state == "running" and time.time() - changed > STALE:
        state = "stopped"
    return RunInfo(path, path.name, system, state, images, _goal(folder), changed)


def _changed(folder: RunFolder) -> float:
    return max(path.stat().st_mtime for path in (folder.record, folder.stats, folder.evaluation) if path.is_file())


def _goal(folder: RunFolder) -> int | None:
    import yaml

    try:
        values = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        goal = values["training"]["images"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return goal if isinstance(goal, int) else None
