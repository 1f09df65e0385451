"""The calibration of anomaly scores, and warnings of scored frames that its frames are unlike in camera, size or colour.

A calibration has the scores of healthy frames that no training saw, and the cameras of these frames. A run and an exported file
store it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, FiniteFloat, model_validator

from pixelscope.config import Config, Natural
from pixelscope.data.frames.preprocess import VIEWS, ViewName
from pixelscope.endovae.anomaly.scores import ErrorMaps, Values, raw_scores, scores
from pixelscope.endovae.anomaly.statistics import GaussianReference, conformal_p, frames_needed, smallest_rate, tie_tolerance
from pixelscope.errors import InputError, plural
from pixelscope.exports.metadata import Metadata, require_system
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.record import ResultFile

Size = tuple[int, int]
"""Width and height in pixels."""

FILE = "calibration.json"
RATE = 0.05
"""Default false-positive rate."""
HEADLINE: ViewName = "centre"
"""The default view of `score`, reported first. It shows no border and no inset, by which data sets differ."""

SIZE_TOLERANCE = 0.1
"""Sizes that differ by less than this fraction along both sides count as one camera: crops differ by some pixels."""
MIN_SHARE = 0.1
"""Minimum fraction of scored frames of one camera for a warning. There is none if as many calibration frames are of it."""

GREY_SPREAD = 4
"""Maximum difference of red, green and blue in a pixel without colour."""


def group_sizes(sizes: Iterable[Size]) -> dict[Size, Size]:
    """Return the group of each size: the most frequent size that it differs from by less than `SIZE_TOLERANCE`.

    sizes: the sizes of all frames, with repetitions.
    """
    groups: dict[Size, Size] = {}
    leaders: list[Size] = []
    for size, _ in Counter(sizes).most_common():
        leader = _leader(size, leaders)
        if leader is None:
            leaders.append(size)
        groups[size] = leader or size
    return groups


def camera_names(sizes: Sequence[Size], classes: Sequence[str], groups: Mapping[Size, Size]) -> list[str]:
    """Return the camera of each frame: its class and the group of its size, `normal-cecum, 720 x 576`."""
    return [f"{name}, {size_title(groups[size])}" for size, name in zip(sizes, classes, strict=True)]


def size_title(size: Size) -> str:
    """Return `720 x 576`."""
    return f"{size[0]} x {size[1]}"


def camera_warnings(known: Mapping[str, int], scored: Mapping[str, int], what: str) -> tuple[str, ...]:
    """Return a warning for each camera that many scored frames come from, and few or no calibration frames.

    Args:
        known: number of calibration frames per camera.
        scored: number of scored frames per camera.
        what: the scored frames, for the sentence.
    """
    total, calibrated, found = sum(scored.values()), sum(known.values()), []
    for camera, count in scored.items():
        share, theirs = count / total, known.get(camera, 0) / max(1, calibrated)
        if share >= MIN_SHARE and theirs < min(MIN_SHARE, share / 2):
            found.append(
                f"Warning: {share:.0%} of the {total:,} {what} are {camera}, and {theirs:.0%} of the {calibrated:,} "
                "calibration frames: p-values do not hold for this camera. Train on healthy frames of it, too."
            )
    return tuple(found)


def small_warning(sizes: Sequence[Size], known: Iterable[Size], side: int) -> tuple[str, ...]:
    """Return a warning of frames of less than half the model's side, in sizes that no calibration frame has.

    Args:
        sizes: original widths and heights of the scored frames.
        known: those of the cameras of the calibration frames.
        side: side of the prepared frames in pixels.
    """
    seen = tuple(known)
    small = [size for size in sizes if 2 * min(size) < side and _leader(size, seen) is None]
    if not small:
        return ()
    text = (
        f"Warning: {len(small):,} of the {len(sizes):,} scored frames are less than half as large as the model's "
        f"{side} x {side} pixels (down to {size_title(min(small, key=min))}), and no calibration frame is as small: they were "
        "enlarged, and their scores say little. Give frames as the device stores them."
    )
    return (text,)


def is_grey(frame: NDArray[np.uint8]) -> bool:
    """Return whether a frame, uint8 (H, W, 3), has no colour."""
    # Nearly every frame in colour shows it in a few pixels.
    return all(int(np.ptp(some, axis=2).max()) <= GREY_SPREAD for some in (frame[::8, ::8], frame))


def grey_warning(grey: int, known: int | None, calibrated: int) -> tuple[str, ...]:
    """Return a warning of frames without colour, if the calibration frames are in colour.

    Args:
        grey: number of scored frames without colour.
        known: number of calibration frames without colour; None if it is not known, for which there is no warning.
        calibrated: number of calibration frames.
    """
    if not grey or known is None or known >= MIN_SHARE * calibrated:
        return ()
    text = (
        f"Warning: {plural(grey, 'scored frame')} without colour, and {known:,} of the {calibrated:,} calibration frames: "
        "p-values do not hold for frames in grey. Give frames in colour."
    )
    return (text,)


def selecting_warning(count: int) -> str:
    """Return a warning of `count` calibration frames that are not held out."""
    return (
        f"Warning: the {count:,} calibration frames also selected checkpoint and score, because there are too few for "
        "both, so that p-values are too small; raise --split.validation-fraction."
    )


def count_cameras(sizes: Iterable[Size], known: Mapping[Size, int]) -> dict[str, int]:
    """Return the number of frames per camera: a size near one of `known` is that camera, any other size is a new one."""
    leaders = list(known)
    found: Counter[str] = Counter()
    for size, count in Counter(sizes).most_common():
        leader = _leader(size, leaders)
        if leader is None:
            leaders.append(size)
        found[size_title(leader or size)] += count
    return dict(found)


def _leader(size: Size, leaders: Iterable[Size]) -> Size | None:
    """Return the first of `leaders` that a size is near."""
    return next((one for one in leaders if all(abs(a - b) < SIZE_TOLERANCE * b for a, b in zip(size, one, strict=True))), None)


class ViewCalibration(Config):
    """Scores of the healthy calibration frames in one view."""

    selected: str
    """The default score."""
    selection_auroc: dict[str, float]
    """AUROC of every score on the validation frames, by which it was selected; empty without abnormal frames."""
    selection_counts: dict[str, int]
    """Number of validation frames by kind."""
    log_spreads: dict[str, tuple[float, float]]
    """Mean and standard deviation of the logarithm of each raw score that is combined, on the healthy validation frames."""
    scores: dict[str, Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]]
    """Scores of the calibration frames with visible tissue, ascending."""

    @property
    def count(self) -> int:
        """Return the number of calibration frames with visible tissue."""
        return len(next(iter(self.scores.values())))

    def p_values(self, name: str, values: ArrayLike) -> NDArray[np.float64]:
        """Return the p-values of scores; see `conformal_p`."""
        return conformal_p(self.scores[name], values)

    def threshold(self, name: str, rate: float) -> float:
        """Return the score above which a frame is flagged at a false-positive rate; its p-value is at most `rate`.

        Raises:
            InputError: the rate is not between 0 and 1, or the calibration has too few frames for so small a rate.
        """
        if not 0 < rate < 1:
            raise InputError(f"--false-positive-rate must be between 0 and 1, got {rate:g}; give for example 0.05.")
        known = self.scores[name]
        allowed = int(np.floor(rate * (1 + len(known)) + 1e-9)) - 1
        if allowed < 0:
            raise InputError(
                f"--false-positive-rate {rate:g} needs at least {frames_needed(rate)} calibration frames, and there are "
                f"{len(known)}; give {smallest_rate(len(known))} or more."
            )
        return known[len(known) - 1 - allowed] + tie_tolerance(known)

    def require(self, name: str) -> str:
        """Return the score called `name`, the selected one for `auto`.

        Raises:
            InputError: there is no such score.
        """
        wanted = self.selected if name == "auto" else name
        if wanted not in self.scores:
            raise InputError(f"There is no anomaly score {name!r}; choose one of {', '.join(self.scores)}.")
        return wanted

    def default_threshold(self, name: str = "auto") -> float | None:
        """Return the threshold of a score, by default the selected one, at `RATE`; None if there are too few frames for it."""
        return None if self.count < frames_needed(RATE) else self.threshold(self.require(name), RATE)


class CameraCount(Config):
    """Calibration frames of one camera, identified by its original size; see `group_sizes`."""

    width: int
    height: int
    count: int


def camera_counts(sizes: NDArray[np.int64]) -> tuple[CameraCount, ...]:
    """Return the number of frames per camera, most frequent first; `sizes` are widths and heights, (N, 2)."""
    every: list[Size] = [(int(width), int(height)) for width, height in sizes]
    groups = group_sizes(every)
    counts = Counter(groups[size] for size in every).most_common()
    return tuple(CameraCount(width=width, height=height, count=count) for (width, height), count in counts)


class Calibration(ResultFile):
    """Scores of healthy calibration frames, and the statistics that make scores of new frames comparable."""

    version: Literal[4] = 4
    checkpoint: str
    """Name of the calibrated checkpoint."""
    images: int
    """Images seen at that checkpoint."""
    weights_sha256: str
    held_out: bool
    """Whether the calibration frames selected nothing; if False, they are the validation frames, which selected checkpoint and
    score."""
    cameras: tuple[CameraCount, ...]
    """Cameras of the calibration frames, most frequent first."""
    prepare: PrepareConfig | None = None
    """How the calibration frames were prepared; None in calibrations that do not say it."""
    grey: Natural | None = None
    """Number of calibration frames without colour; None in calibrations that do not say it."""
    latent: GaussianReference
    """Gaussian of the posterior means of the training frames."""
    vmax: float
    """Smoothed squared error at which a heat map is brightest; see `heatmap.heatmap_vmax`."""
    views: dict[ViewName, ViewCalibration]

    @model_validator(mode="after")
    def _check_complete(self) -> "Calibration":
        for name in VIEWS:
            if name not in self.views:
                raise ValueError(f"views has no {name}")
        return self

    def require_prepared(self, config: PrepareConfig, path: Path) -> None:
        """Raise InputError if frames that are prepared by `config`, of the file `path`, differ from the calibration frames."""
        for name in PrepareConfig.model_fields if self.prepare else ():
            known, given = getattr(self.prepare, name), getattr(config, name)
            if known != given and name != "strict":
                raise InputError(
                    f"{path} has prepare.{name} {given}, but the run's scores are calibrated on frames prepared with {known}; "
                    "set it back, or train again."
                )

    def scores(
        self, view: ViewName, maps: ErrorMaps, frames: NDArray[np.uint8], insets: NDArray[np.bool_]
    ) -> dict[str, Values]:
        """Return every score of frames in a view; the arguments are those of `scores.raw_scores`."""
        return scores(raw_scores(maps, frames, insets, self.latent, view), self.views[view].log_spreads)


def read_calibration(path: Path) -> Calibration:
    """Read the calibration of a run.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    if not path.is_file():
        run = path.parent.parent
        raise InputError(f"There is no calibration in {run}; make one with `pixelscope endovae evaluate {run}`.")
    return Calibration.load(path)


def read_metadata(about: Metadata, origin: str) -> tuple[PrepareConfig, Calibration]:
    """Return the preparation settings and the calibration of an exported model; raises InputError if either is missing."""
    require_system(about, "endovae", origin)
    prepare: dict[str, Any] = about.config.get("prepare", {})
    return PrepareConfig.parse(prepare, origin), Calibration.parse(about.calibration or {}, origin)
