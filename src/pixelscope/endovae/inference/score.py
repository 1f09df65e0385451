"""Scores frames: any number of files into a table, or arrays in memory; importing this imports no torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.formats.decode import image_size
from pixelscope.data.frames.preprocess import ViewName, read_whole
from pixelscope.data.sources.listing import mark_as_own
from pixelscope.endovae.anomaly.calibration import (
    RATE,
    Size,
    camera_warnings,
    count_cameras,
    grey_warning,
    is_grey,
    size_title,
    small_warning,
)
from pixelscope.endovae.anomaly.heatmap import overlay
from pixelscope.endovae.anomaly.scores import why_unscored
from pixelscope.endovae.anomaly.statistics import few_frames_warning
from pixelscope.endovae.inference.scorers import (
    DetectorScorer,
    FrameScores,
    PreparedViews,
    Scorer,
    ScoringModel,
    open_scorer,
    scorer_of,
)
from pixelscope.endovae.results import RESEARCH
from pixelscope.errors import InputError
from pixelscope.files import atomic_file
from pixelscope.inference.files import InputFile, is_frame, iterate_files, require_distinct_names, require_files
from pixelscope.inference.pipeline import ERROR, BatchResult, Steps, run_pipeline, unwritable
from pixelscope.inference.table import Row, Table, open_table
from pixelscope.runs.progress import ProgressCallback

COLUMNS = ("name", "score", "p", "flagged", ERROR)
MAP_COMPRESSION = 1
"""PNG compression of maps; a higher level takes longer than everything else together."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FrameScore:
    """The anomaly score of one frame, or why it has none."""

    score: float | None
    p: float | None
    """Calibrated p-value: about the fraction of healthy frames that score as high."""
    flagged: bool | None
    """Whether the score is above the threshold; None without a score, or with too few calibration frames for a threshold."""
    error: str | None


def score_frames(
    model: Path | ScoringModel | DetectorScorer,
    frames: Sequence[Bytes],
    *,
    score: str = "auto",
    view: ViewName | None = None,
    false_positive_rate: float | None = None,
) -> list[FrameScore]:
    """Score frames in memory, for example those of a video, as `score` does files. For research only, never a diagnosis.

    `score` decodes JPEG files far larger than the model's frames at half their size; their scores differ a little.

    Args:
        model: what `score` takes; or, to open it once for many calls, what `load_scorer` returns. An .onnx file needs no torch.
        frames: uint8 RGB (H, W, 3), as the device stores them, with border and overlays; their sizes may differ.
        score: name of the score; see `score`.
        view: `centre` or `full`; see `score`.
        false_positive_rate: fraction of healthy frames that may be flagged; None: 0.05, and with too few calibration frames
            for it no frame is flagged or cleared.

    Returns:
        One result per frame, in order; a frame without visible tissue, or with outputs that are not finite, has an error and
        no score.

    Raises:
        InputError: model, score or view cannot be used, a frame is no such array, or there are too few calibration frames for
            the rate.

    Example:
        >>> frame = np.asarray(Image.open("frame.png").convert("RGB"))
        >>> pixelscope.endovae.score_frames(Path("healthy.onnx"), [frame])[0].p
        0.0476
    """
    scorer = open_scorer(model, view, score) if isinstance(model, Path) else scorer_of(model, view, score)
    threshold = _threshold(scorer, false_positive_rate)
    prepared = [scorer.prepared_pixels(_require_rgb_frame(frame, number)) for number, frame in enumerate(frames)]
    return frame_scores(scorer, scorer.score(prepared), threshold) if prepared else []


def _threshold(scorer: Scorer, rate: float | None) -> float | None:
    """Return the threshold of a false-positive rate; None if no rate is given and there are too few frames for the default."""
    if rate is None:
        return scorer.calibration.default_threshold(scorer.name)
    return scorer.calibration.threshold(scorer.name, rate)


def frame_scores(scorer: Scorer, found: FrameScores, threshold: float | None) -> list[FrameScore]:
    """Return scores with their p-values; those above `threshold`, if there is one, are flagged."""
    p = scorer.calibration.p_values(scorer.name, found.values)
    return [
        FrameScore(float(value), float(chance), None if threshold is None else bool(value > threshold), None)
        if np.isfinite(value)
        else FrameScore(None, None, None, why_unscored(value))
        for value, chance in zip(found.values, p, strict=True)
    ]


def _require_rgb_frame(frame: Bytes, number: int) -> Bytes:
    if not isinstance(frame, np.ndarray):
        raise InputError(
            f"Frame {number} is a {type(frame).__name__}; give uint8 RGB arrays (H, W, 3), such as np.asarray(image)."
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(f"Frame {number} is {frame.dtype} of shape {frame.shape}; give uint8 RGB arrays (H, W, 3).")
    return np.ascontiguousarray(frame)


@dataclass(frozen=True)
class Scores:
    """A written table, and the meaning of its numbers."""

    written: BatchResult
    score: str
    """Name of the score."""
    rate: float
    """False-positive rate at which frames are flagged."""
    threshold: float | None
    """Score above which frames are flagged; None if there are too few calibration frames, and a warning says so."""
    calibrated_on: int
    """Number of healthy calibration frames."""
    view: ViewName
    """View that was scored."""
    warnings: tuple[str, ...] = ()
    """Warnings of: calibration frames that also selected; cameras of many scored and few calibration frames; frames far smaller
    than the model's; frames of this session without colour."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"note": RESEARCH}

    def to_text(self) -> str:
        """Return lines for a terminal."""
        what = f"score {self.score} on the view {self.view}"
        if self.threshold is not None:
            like = f"{self.rate:.1%} of healthy frames, if they are like the {self.calibrated_on:,} calibration frames"
            what += f", flagged above {self.threshold:.6g}: at most {like}"
        return "\n".join([self.written.to_text(), what, *self.warnings, RESEARCH])


def score(
    model: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    score: str = "auto",
    view: ViewName | None = None,
    false_positive_rate: float | None = None,
    maps: Path | None = None,
    checkpoint: str = "auto",
    devices: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> Scores:
    """Write one row per frame: name, anomaly score, calibrated p-value, flagged or not, and an error.

    A frame that cannot be read, or shows no tissue, has an error and no score. For research only, never a diagnosis.

    Args:
        model: a finished and evaluated run of EndoVAE, a file made by `export`, which needs no torch, or the folder or file of
            `detect`.
        paths: image files, and folders that are searched at any depth for frames, as `prepare` does, without masks and other
            files; rows are in this order.
        out: a file ending in .csv or .jsonl, which must not exist; or `-` for JSON lines on standard output.
        view: `centre` scores one square of each frame without border and insets, the default for a run; `full` scores all of
            it. A detector has one view.
        score: one of `pixelscope.endovae.anomaly.scores.SCORES`; `auto` is the selected one, or that of the detector.
        false_positive_rate: fraction of healthy frames that may be flagged; None: 0.05, and with too few calibration frames
            for it no frame is flagged or cleared.
        maps: a new folder for one PNG per frame, the frame overlaid with its error map.
        checkpoint: which weights of a run; see `evaluate_endovae`. An unfinished run is used only if one is named.
        devices: number of GPUs, by default one; without a GPU of threads, by default one for each core.
        resume: continue an unfinished table.
        progress: called with the number of rows done and of all rows.

    Raises:
        InputError: model, paths or out cannot be used, or the disk is full.
        Interrupted: Ctrl-C; the rows so far are kept.

    Example:
        >>> scores = pixelscope.endovae.score(Path("healthy.onnx"), [Path("my/frames")], Path("scores.csv"))
        >>> print(scores.to_text())
    """
    require_files(paths, is_frame)
    scorer = open_scorer(model, view, score, checkpoint, devices)
    rate, threshold = RATE if false_positive_rate is None else false_positive_rate, _threshold(scorer, false_positive_rate)
    wanted = _Wanted(threshold, maps)
    if maps is not None:
        _require_maps(maps, out, paths, resume)
    settings = {
        "view": scorer.view,
        "score": scorer.name,
        "false_positive_rate": f"{rate:g}",
        "maps": str(maps),
    }
    table = open_table(out, COLUMNS, {**scorer.identity, **settings}, resume)
    scored = _Scored(_scored_sizes(table, paths), [])
    stages = Steps(
        prepare=lambda item: scorer.prepared(item.path),
        compute=lambda items, frames: _rows(scorer, items, frames, wanted, scored),
        devices=scorer.devices,
        takes=is_frame,
        value_range=scorer.prepare.range,
    )
    if maps is not None:
        mark_as_own(maps)
    written = run_pipeline(table, paths, stages, progress)
    count = scorer.calibration.count
    few = few_frames_warning(count, RATE) if threshold is None else ()
    warnings = (*few, *_warnings(scorer, scored))
    return Scores(written, scorer.name, rate, threshold, count, scorer.view, warnings)


@dataclass(frozen=True)
class _Wanted:
    """What is computed for each frame."""

    threshold: float | None
    maps: Path | None


@dataclass(frozen=True)
class _Scored:
    """What warnings need to know of the frames with a score."""

    sizes: list[Size]
    """Original sizes."""
    grey: list[str]
    """Names of frames of this session without colour."""

    def add(self, items: Sequence[InputFile], frames: Sequence[PreparedViews], values: np.ndarray) -> None:
        """Add those frames that have a score; the others have NaN or infinity in `values`, (N,)."""
        for item, one, value in zip(items, frames, values, strict=True):
            if np.isfinite(value):
                self.sizes.append(one.full.size)
                if is_grey(one.full.frame):
                    self.grey.append(item.name)


def _scored_sizes(table: Table, paths: Sequence[Path]) -> list[Size]:
    """Return the original sizes of the frames that have a score in a resumed table."""
    rows = zip(table.failures(), iterate_files(paths, is_frame), strict=False)
    sizes = (image_size(item.path) for failed, item in rows if not failed)
    return [size for size in sizes if size is not None]


def _warnings(scorer: Scorer, scored: _Scored) -> tuple[str, ...]:
    """Return warnings of the calibration, and of frames that differ from its frames in camera, size or colour."""
    sizes, counts = scored.sizes, {size_title(size): count for size, count in scorer.cameras.items()}
    return (
        *scorer.warnings,
        *(camera_warnings(counts, count_cameras(sizes, scorer.cameras), "scored frames") if sizes else ()),
        *small_warning(sizes, scorer.cameras, scorer.prepare.size),
        *grey_warning(len(scored.grey), scorer.grey, sum(counts.values())),
    )


def _require_maps(maps: Path, out: Path, paths: Sequence[Path], resume: bool) -> None:
    if maps.resolve() == out.resolve():
        raise InputError(f"{maps} would be both the table and the folder of the maps; give --maps another name.")
    if maps.exists() and not resume:
        raise InputError(f"{maps} exists already; give another folder, or remove it.")
    require_distinct_names(paths, is_frame)


def _rows(
    scorer: Scorer, items: Sequence[InputFile], frames: Sequence[PreparedViews], wanted: _Wanted, scored: _Scored
) -> list[Row]:
    """Return the rows of some frames, and add those with a score to `scored`."""
    found = scorer.score(frames)
    scored.add(items, frames, found.values)
    rows: list[Row] = [
        {"score": one.score, "p": one.p, "flagged": one.flagged} if one.error is None else {ERROR: f"{item.name}: {one.error}."}
        for item, one in zip(items, frame_scores(scorer, found, wanted.threshold), strict=True)
    ]
    if wanted.maps is None:
        return rows
    drawn = [None if ERROR in row else one for row, one in zip(rows, found.maps, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = [wanted.maps / item.png for item in items]
        unwritten = pool.map(_map_error, files, items, frames, drawn, repeat(scorer))
        return [row if why is None else {**row, ERROR: why} for row, why in zip(rows, unwritten, strict=True)]


def _map_error(path: Path, item: InputFile, frame: PreparedViews, drawn: np.ndarray | None, scorer: Scorer) -> str | None:
    """Write the map of a frame, if it has one; return the error if it cannot be written."""
    if drawn is None:
        return None
    return unwritable(path, lambda: _write_map(path, item, frame, drawn, scorer))


def _write_map(path: Path, item: InputFile, frame: PreparedViews, drawn: np.ndarray, scorer: Scorer) -> None:
    """Write the frame with its map over the square seen by the model; the rest is unchanged."""
    rows, columns = scorer.square(frame.full.content).slices
    whole = read_whole(item.path, scorer.prepare).copy()
    square = whole[rows, columns]
    grown = cv2.resize(drawn, (square.shape[1], square.shape[0]), interpolation=cv2.INTER_LINEAR)
    whole[rows, columns] = overlay(square, np.asarray(grown, np.float32), scorer.vmax)
    with atomic_file(path) as temporary:
        Image.fromarray(whole).save(temporary, format="PNG", compress_level=MAP_COMPRESSION)
