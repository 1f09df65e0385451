"""Writes the anomaly scores of any number of frames to a table; importing this imports no torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pixelscope.data.decode import decode
from pixelscope.data.frames.preprocess import PreparedFrame, prepare_file
from pixelscope.data.frames.view import ViewName
from pixelscope.data.sources.listing import mark_as_own
from pixelscope.endovae.anomaly.calibration import HEADLINE, RATE, Calibration
from pixelscope.endovae.anomaly.cameras import Size, camera_warnings, known_cameras, title
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.scores import why_unscored
from pixelscope.endovae.inference.model import ScoringModel, load_scorer
from pixelscope.endovae.results import RESEARCH
from pixelscope.errors import InputError
from pixelscope.files import atomic_file
from pixelscope.imaging.config import PrepareConfig
from pixelscope.inference.files import InputFile, require_distinct_names, require_paths
from pixelscope.inference.pipeline import ERROR, BatchResult, Steps, run_pipeline, unwritable
from pixelscope.inference.table import ResumableTable, Row
from pixelscope.progress import ProgressCallback

QUICK = 1
"""PNG compression of maps; a higher level takes longer than everything else together."""
COLUMNS = ("name", "score", "p", "flagged", ERROR)


@dataclass(frozen=True)
class Scores:
    """A written table, and the meaning of its numbers."""

    written: BatchResult
    score: str
    """Name of the score."""
    rate: float
    """False-positive rate at which frames are flagged."""
    threshold: float
    """Score above which frames are flagged."""
    calibrated_on: int
    """Number of healthy calibration frames."""
    view: ViewName
    """What of each frame was scored."""
    warnings: tuple[str, ...] = ()
    """Of cameras that many of the frames, and few of the calibration frames, come from."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"note": RESEARCH}

    def to_text(self) -> str:
        """Return lines for a terminal."""
        like = f"{self.rate:.1%} of healthy frames, if they are like the {self.calibrated_on:,} calibration frames"
        what = f"score {self.score} on the view {self.view}, flagged above {self.threshold:.6g}: at most {like}"
        return "\n".join([self.written.to_text(), what, *self.warnings, RESEARCH])


def score(
    model: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    score: str = "auto",
    view: ViewName = HEADLINE,
    false_positive_rate: float = RATE,
    maps: Path | None = None,
    checkpoint: str = "auto",
    devices: int = 1,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> Scores:
    """Write one row per frame: name, anomaly score, calibrated p-value, flagged or not, and an error.

    A frame that cannot be read, or shows no tissue, has an error and no score. For research only, never a diagnosis.

    Args:
        model: a finished and evaluated run of EndoVAE, or a file made by `export`, which needs no torch.
        paths: image files, and folders that are searched at any depth; rows are in this order.
        out: a file ending in .csv or .jsonl, which must not exist.
        view: `centre` scores one square of each frame without border and insets; `full` scores all of it.
        score: one of `pixelscope.endovae.anomaly.scores.SCORES`; `auto` is the one selected by the calibration.
        false_positive_rate: fraction of healthy frames that may be flagged.
        maps: a new folder for one PNG per frame, the frame overlaid with its error map.
        checkpoint: which weights of a run; see `evaluate_endovae`. An unfinished run is used only if one is named.
        devices: number of GPUs, or of CPU threads if there is no GPU.
        resume: continue an unfinished table.
        progress: called with the number of rows done and of all rows.

    Raises:
        InputError: model, paths or out cannot be used, or the disk is full.
        Interrupted: Ctrl-C; the rows so far are kept.

    Example:
        >>> scores = pixelscope.endovae.score(Path("runs/healthy"), [Path("my/frames")], Path("scores.csv"))
        >>> print(scores.to_text())
    """
    require_paths(paths)
    if not 0 < false_positive_rate < 1:
        raise InputError(f"--false-positive-rate must be between 0 and 1, got {false_positive_rate:g}; give for example 0.05.")
    scorer = load_scorer(model, checkpoint, devices)
    known = scorer.calibration.views[view]
    name = known.require(score)
    wanted = _Wanted(view, name, known.threshold(name, false_positive_rate), maps)
    if maps is not None:
        _require_maps(maps, paths, resume)
    settings = {"view": view, "score": name, "false_positive_rate": f"{false_positive_rate:g}", "maps": str(maps)}
    identity, sizes = scorer.identity | settings, list[Size]()
    table = ResumableTable(out, COLUMNS, identity, resume)
    stages = Steps(
        prepare=lambda item: _prepared(item, scorer.prepare),
        compute=lambda items, frames: _rows(scorer, items, frames, wanted, sizes),
        devices=scorer.devices,
    )
    if maps is not None:
        mark_as_own(maps)
    written = run_pipeline(table, paths, stages, progress)
    warnings = _camera_warnings(scorer.calibration, sizes)
    return Scores(written, name, false_positive_rate, wanted.threshold, known.count, view, warnings)


@dataclass(frozen=True)
class _Wanted:
    """What is computed for each frame."""

    view: ViewName
    score: str
    threshold: float
    maps: Path | None


def _camera_warnings(calibration: Calibration, sizes: Sequence[Size]) -> tuple[str, ...]:
    """Return warnings of cameras that many of the scored frames, and few of the calibration frames, come from."""
    known = {(one.width, one.height): one.count for one in calibration.cameras}
    counts = {title(size): count for size, count in known.items()}
    return camera_warnings(counts, known_cameras(sizes, known), "scored frames") if sizes else ()


def _require_maps(maps: Path, paths: Sequence[Path], resume: bool) -> None:
    if maps.exists() and not resume:
        raise InputError(f"{maps} exists already; give another folder, or remove it.")
    require_distinct_names(paths)


def _prepared(item: InputFile, config: PrepareConfig) -> PreparedFrame:
    return prepare_file(item.path, config)


def _original(item: InputFile, config: PrepareConfig) -> np.ndarray:
    image = decode(item.path, value_range=config.range)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _rows(
    scorer: ScoringModel,
    items: Sequence[InputFile],
    prepared: Sequence[PreparedFrame],
    wanted: _Wanted,
    sizes: list[Size],
) -> list[Row]:
    """Return the rows of some frames, and add their original sizes to `sizes`."""
    frames, insets = np.stack([one.frame for one in prepared]), np.stack([one.inset > 0 for one in prepared])
    sizes.extend(one.size for one in prepared)
    seen, calibration = scorer(frames), scorer.calibration
    values = calibration.scores(wanted.view, seen, frames, insets)[wanted.score]
    p = calibration.views[wanted.view].p_values(wanted.score, values)
    rows: list[Row] = [
        {"score": float(value), "p": float(chance), "flagged": bool(value > wanted.threshold)}
        if np.isfinite(value)
        else {ERROR: f"{item.name}: {why}."}
        for item, value, chance, why in zip(items, values, p, why_unscored(seen), strict=True)
    ]
    if wanted.maps is None:
        return rows
    drawn = [None if ERROR in row else error for row, error in zip(rows, smoothed(seen.error) * ~insets, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = [wanted.maps / item.png for item in items]
        heat, config = repeat(calibration.vmax), repeat(scorer.prepare)
        unwritten = pool.map(_map_error, files, items, prepared, drawn, heat, config)
        return [row if why is None else {**row, ERROR: why} for row, why in zip(rows, unwritten, strict=True)]


def _map_error(
    path: Path, item: InputFile, prepared: PreparedFrame, errors: np.ndarray | None, brightest: float, config: PrepareConfig
) -> str | None:
    """Write the error map of a frame, if it has one; return the error if it cannot be written."""
    if errors is None:
        return None
    return unwritable(path, lambda: _write_map(path, item, prepared, errors, brightest, config))


def _write_map(
    path: Path, item: InputFile, prepared: PreparedFrame, errors: np.ndarray, brightest: float, config: PrepareConfig
) -> None:
    """Write the frame with its error map over the square seen by the model; the rest is unchanged."""
    rows, columns = prepared.content.centre_square().slices
    drawn = _original(item, config).copy()
    square = drawn[rows, columns]
    grown = cv2.resize(errors, (square.shape[1], square.shape[0]), interpolation=cv2.INTER_LINEAR)
    drawn[rows, columns] = overlay(square, np.asarray(grown, np.float32), brightest)
    with atomic_file(path) as temporary:
        Image.fromarray(drawn).save(temporary, format="PNG", compress_level=QUICK)
