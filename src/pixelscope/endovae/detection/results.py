"""Schemas of detections, of a detector's calibration and of detection.json; the list of detectors on disk. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from pixelscope.config import Config, Natural
from pixelscope.endovae.anomaly.calibration import CameraCount, ViewCalibration
from pixelscope.endovae.detection.config import DetectorName
from pixelscope.endovae.results import RESEARCH, Interval, RegionMapResult, small_lesion
from pixelscope.errors import plural
from pixelscope.files import TEMPORARY
from pixelscope.imaging.config import MIN_LESION
from pixelscope.runs.listing import folders_among
from pixelscope.runs.record import ResultFile

RESULT, MODEL = "detection.json", "detector.safetensors"
"""Files that `detect` writes: the cross-validation, and the selected detector."""
ALL = "all"
"""The group of all healthy frames."""
SELECTED = "selected in each fold"
"""Name of the row for the detector that each fold selected on frames that it does not test."""


@dataclass(frozen=True)
class Detection:
    """Scores of N frames, and the maps that they summarise."""

    scores: NDArray[np.float64]
    """(N,); higher is less like the healthy frames."""
    maps: NDArray[np.float32]
    """(N, h, w): the score of each position."""


class DetectorCalibration(Config):
    """Scores of healthy frames that the detector was not fitted to."""

    scores: tuple[FiniteFloat, ...] = Field(min_length=1)
    """Ascending."""
    vmax: float
    """Value at which a map is brightest."""
    cameras: tuple[CameraCount, ...]
    """Number of these frames by original size."""
    grey: Natural | None = None
    """Number of these frames without colour; None in files that do not say it."""

    def of_view(self, name: DetectorName) -> ViewCalibration:
        """Return the calibration of the one score of the detector `name` in its one view."""
        return ViewCalibration(
            selected=name, selection_auroc={}, selection_counts={}, log_spreads={}, scores={name: self.scores}
        )


class ScoreResult(Config):
    """How well a score separates abnormal from healthy frames, by group of healthy frames."""

    auroc: dict[str, Interval]
    lead: dict[str, Interval] = Field(default_factory=dict)
    """AUROC minus that of the best trivial baseline in the same group, paired; empty for trivial baselines."""


class DetectionResult(ResultFile):
    """Results of the cross-validation of detectors on one view of a frame store."""

    remedy: ClassVar[str] = "run `pixelscope endovae detect` again"

    version: Literal[1] = 1
    store: str
    view: str
    folds: Natural
    seed: int
    images: Natural
    """Drawn examples per network that finds pseudo-lesions."""
    counts: dict[str, Natural]
    """Number of tested frames by healthy class, and of `all` healthy and `abnormal` ones."""
    clusters: dict[str, Natural]
    """Number of clusters of near-duplicates, of healthy and abnormal ones; intervals resample them."""
    invisible: Natural
    """Number of abnormal frames left out because their lesion covers less than `min_lesion` of this view."""
    min_lesion: float = MIN_LESION
    """Fraction of the view that a lesion must cover; files of before do not have it."""
    blank: Natural = 0
    """Number of frames left out because this view shows no tissue, so that they have no score."""
    scores: dict[str, ScoreResult]
    baselines: dict[str, ScoreResult]
    """Trivial baselines, fitted to the same training frames."""
    shortcuts: dict[str, ScoreResult]
    """Classifiers with labels that see no tissue, or the mean colour alone; see `endovae.anomaly.baselines`."""
    selected: str
    """The detector with the largest mean AUROC on the frames that select; the one in the model file."""
    selected_by_fold: tuple[str, ...]
    selection_auroc: dict[str, float]
    """Mean over folds, on the frames that select."""
    rate: float
    """False-positive rate at which frames are flagged."""
    flagged: dict[str, float]
    """Fraction of flagged frames per healthy class and of the abnormal ones, by each fold's selected detector; empty if a fold
    has too few calibration frames for this rate."""
    lesion_frames: Natural
    """Frames with a lesion and pixels outside it, on which maps are measured."""
    lesion_share: float
    """Fraction of their pixels inside a lesion."""
    warnings: tuple[str, ...]
    maps: dict[str, RegionMapResult]
    """By detector and baseline map, mean over folds; empty without frames to measure them on."""

    @property
    def groups(self) -> list[str]:
        """Return the groups of healthy frames; `all` only if there are several classes."""
        classes = [name for name in self.counts if name not in (ALL, "abnormal")]
        return [ALL, *classes] if len(classes) > 1 else classes

    def to_text(self) -> str:
        """Return tables for a terminal."""
        return "\n".join([*self._head(), *self._areas(), *self._maps(), *self._flagged(), RESEARCH])

    def _head(self) -> Iterator[str]:
        yield f"{self.store}, view {self.view}: {self.folds} folds by cluster of near-duplicates, seed {self.seed}"
        if self.invisible:
            yield f"{plural(self.invisible, 'abnormal frame')} left out, because {small_lesion(self.min_lesion)}"
        if self.blank:
            yield f"{plural(self.blank, 'frame')} left out, because this view shows no tissue"
        yield f"AUROC of {self.counts['abnormal']:,} abnormal frames against healthy ones, each tested once,"
        yield "with 95% intervals over clusters"

    def _areas(self) -> Iterator[str]:
        groups = self.groups
        heads = "".join(f"  {f'{name} ({self.counts[name]:,})':>24}" for name in groups)
        yield f"  {'':<22}{heads}{'lead over trivial':>26}"
        tables = {"": self.scores, "trivial baselines:": self.baselines, "classifiers with labels:": self.shortcuts}
        for title, rows in tables.items():
            if title:
                yield f"  {title}"
            for name, one in rows.items():
                mark = "*" if name == self.selected else " "
                lead = f"{one.lead[groups[0]]!s:>26}" if one.lead else ""
                yield f"{mark} {name:<22}" + "".join(f"{one.auroc[group]!s:>26}" for group in groups) + lead
        area = self.selection_auroc[self.selected]
        yield f"* the detector of the model file, selected on validation frames (mean AUROC {area:.3f})"

    def _maps(self) -> Iterator[str]:
        if not self.maps:
            return
        yield f"lesions inside {self.lesion_frames:,} frames ({self.lesion_share:.1%} of their pixels)"
        yield f"  {'':<22}{'pixel AUROC':>12}{'AUPRO':>8}{'best Dice':>11}{'hottest on it':>15}"
        for name, one in self.maps.items():
            yield f"  {name:<22}{one.auroc:>12.3f}{one.aupro:>8.3f}{one.dice:>11.3f}{one.hottest:>15.1%}"

    def _flagged(self) -> Iterator[str]:
        if self.flagged:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in self.flagged.items())
            yield f"flagged at a false-positive rate of {self.rate:g}: {shares}"
        yield from self.warnings


@dataclass(frozen=True)
class DetectorInfo:
    """One detector on disk."""

    path: Path
    """Its file, which `score` takes."""
    name: str
    changed: float
    """Time of the last change, in seconds since the epoch."""

    @property
    def folder(self) -> Path:
        """Return the folder that `detect` wrote."""
        return self.path.parent

    def result(self) -> DetectionResult:
        """Read its cross-validation.

        Raises:
            InputError: detection.json is missing, damaged or of another version.
        """
        return DetectionResult.load(self.folder / RESULT)


def find_detectors(places: Sequence[Path]) -> list[DetectorInfo]:
    """Return the detectors in the folders `places` and one level below, newest first; see `find_runs`.

    No detector is opened, so a damaged one is listed, too. Unfinished folders and files that are links are skipped.

    Example:
        >>> for detector in pixelscope.endovae.find_detectors([Path("detectors")]):
        ...     print(detector.name, detector.path)
    """
    found = [info for folder in folders_among(places) if (info := detector_in(folder)) is not None]
    return sorted(found, key=lambda info: -info.changed)


def detector_in(folder: Path) -> DetectorInfo | None:
    """Return the detector in a folder that `detect` wrote; None if it is another folder."""
    files = (folder / RESULT, folder / MODEL)
    if folder.name.startswith(TEMPORARY) or not all(file.is_file() and not file.is_symlink() for file in files):
        return None
    try:
        changed = max(file.stat().st_mtime for file in files)
    except OSError:  # removed meanwhile
        return None
    return DetectorInfo(files[1], folder.name, changed)
