"""What frames are scored with: a trained EndoVAE, or a fitted detector, from a folder or an exported file.

Importing this imports no torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pixelscope.config import merge
from pixelscope.data.frames.preprocess import (
    CentreFrame,
    PreparedFrame,
    ViewName,
    centre_box,
    cut_centre,
    prepare_file,
    prepare_frame,
    prepare_views,
)
from pixelscope.endovae.anomaly.calibration import (
    HEADLINE,
    Calibration,
    Size,
    ViewCalibration,
    read_metadata,
    selecting_warning,
)
from pixelscope.endovae.anomaly.heatmap import smoothed
from pixelscope.endovae.anomaly.scores import ErrorMaps, shows_tissue
from pixelscope.endovae.detection.config import SYSTEM, UNRECORDED, DetectConfig, DetectorName, detector_name, require_side
from pixelscope.endovae.detection.results import Detection, DetectorCalibration, detector_in
from pixelscope.errors import InputError, not_one_of
from pixelscope.exports.metadata import KEY, refuse_checkpoint, require_system
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.resize import resize_frames_bicubic

if TYPE_CHECKING:
    from pixelscope.endovae.detection.model import FittedDetector

MAPS = ("error", "dissimilarity", "kl", "mean")
"""Outputs of EndoVAE's ONNX file that scores are computed from: the fields of `ErrorMaps`."""
DETECTOR_OUTPUTS = ("score", "map")
"""Outputs of a detector's ONNX file."""
DETECTOR_BATCH = 8
"""Frames per call of a detector's ONNX file: the distances of PatchCore take 26 MB a frame."""

Bytes = NDArray[np.uint8]


class ScoringModel(Protocol):
    """Encoder and decoder with a calibration, from which a `VAEScorer` computes scores in either view."""

    prepare: PrepareConfig
    """Settings to prepare frames with."""
    calibration: Calibration
    devices: int
    """Maximum number of threads that call it at a time."""

    @property
    def identity(self) -> dict[str, str]:
        """Named values that identify the model."""
        ...

    def __call__(self, frames: Bytes) -> ErrorMaps:
        """Return the error maps of uint8 frames (N, S, S, 3); raises InputError for others."""
        ...


class OnnxScorer:
    """Encoder and decoder of an ONNX file; see `ScoringModel`."""

    def __init__(self, model: OnnxModel, path: Path, devices: int | None = 1) -> None:
        """Read the metadata; raises InputError that names `path` if the file is of another system or damaged."""
        if devices not in (None, 1):
            raise InputError(f"{path} runs on the CPU; leave out --devices, or give the run folder.")
        # A second batch keeps the cores busy where the first has work for one of them only.
        self._model, self.devices = model, 2
        self.prepare, self.calibration = read_metadata(model.about, str(path))
        self.identity = {"model": model.about.weights_sha256}

    def __call__(self, frames: Bytes) -> ErrorMaps:
        """Return the error maps of uint8 frames (N, S, S, 3)."""
        return ErrorMaps(**self._model(frames, MAPS))


def load_vae(path: Path, checkpoint: str = "auto", devices: int | None = 1) -> ScoringModel:
    """Open a run folder of EndoVAE, or a file made by `export`; only an ONNX file works without torch.

    Args:
        path: the run folder or the file.
        checkpoint: which weights of a run folder; see `load_checkpoint`.
        devices: number of GPUs, or of CPU threads if there is no GPU; None: one GPU, or a thread for each core.

    Raises:
        InputError: `path` is neither a run nor an exported file, or has no calibration.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_file():
        refuse_checkpoint(path, checkpoint)
    if path.is_file() and suffix == ".onnx":
        return OnnxScorer(OnnxModel(path), path, devices)
    if path.is_file() and suffix != ".safetensors":
        raise InputError(f"{path} is neither a run folder nor a file ending in .onnx or .safetensors; give one of those.")
    from pixelscope.endovae.inference.torch_model import TorchScorer

    return TorchScorer.from_file(path, devices) if path.is_file() else TorchScorer.from_run(path, checkpoint, devices)


@dataclass(frozen=True)
class PreparedViews:
    """A frame, prepared in the views that a scorer sees."""

    full: PreparedFrame
    centre: CentreFrame | None

    @property
    def seen(self) -> PreparedFrame | CentreFrame:
        """Return the view that a detector sees."""
        return self.full if self.centre is None else self.centre


@dataclass(frozen=True)
class FrameScores:
    """Scores of N frames."""

    values: NDArray[np.float64]
    """(N,); NaN where no tissue is seen, infinite where outputs of the model are not finite: see `why_unscored`."""
    maps: NDArray[np.float32]
    """(N, h, w), over the square that `Scorer.square` returns."""


class Scorer(Protocol):
    """Scores prepared frames in one view."""

    prepare: PrepareConfig
    view: ViewName
    name: str
    """The score."""
    calibration: ViewCalibration
    cameras: Mapping[Size, int]
    """Number of calibration frames by original size."""
    grey: int | None
    """Number of calibration frames without colour, if it is known."""
    vmax: float
    """Value at which a map is brightest."""
    devices: int
    identity: Mapping[str, str]
    warnings: Sequence[str]
    """Of the calibration."""

    def prepared(self, path: Path) -> PreparedViews:
        """Read and prepare a frame; raises InputError if it cannot be read."""
        ...

    def prepared_pixels(self, frame: NDArray[np.uint8]) -> PreparedViews:
        """Prepare a frame in memory, (H, W, 3); raises InputError if it leaves nothing of the view."""
        ...

    def score(self, frames: Sequence[PreparedViews]) -> FrameScores:
        """Score frames."""
        ...

    def square(self, content: Box) -> Box:
        """Return the square of a frame's content area that maps are laid over."""
        ...


class VAEScorer:
    """Scores of a trained EndoVAE; see `Scorer`."""

    def __init__(self, model: ScoringModel, view: ViewName, score: str) -> None:
        self._model = model
        if view not in get_args(ViewName):
            raise not_one_of("view", view, get_args(ViewName))
        self.view: ViewName = view
        self.calibration = model.calibration.views[view]
        self.name = self.calibration.require(score)
        self.cameras: Mapping[Size, int] = {(one.width, one.height): one.count for one in model.calibration.cameras}
        self.prepare, self.vmax, self.devices = model.prepare, model.calibration.vmax, model.devices
        self.grey = model.calibration.grey
        self.identity: Mapping[str, str] = model.identity
        self.warnings: Sequence[str] = () if model.calibration.held_out else (selecting_warning(self.calibration.count),)

    def prepared(self, path: Path) -> PreparedViews:
        """Read and prepare a frame; raises InputError if it cannot be read."""
        return PreparedViews(prepare_file(path, self.prepare), None)

    def prepared_pixels(self, frame: NDArray[np.uint8]) -> PreparedViews:
        """Prepare a frame in memory."""
        return PreparedViews(prepare_frame(frame, None, self.prepare), None)

    def score(self, frames: Sequence[PreparedViews]) -> FrameScores:
        """Score frames."""
        pixels, insets = np.stack([one.full.frame for one in frames]), np.stack([one.full.inset > 0 for one in frames])
        seen = self._model(pixels)
        values = self._model.calibration.scores(self.view, seen, pixels, insets)[self.name]
        return FrameScores(values, smoothed(seen.error) * ~insets)

    def square(self, content: Box) -> Box:
        """Return the whole square that the model reconstructs, in whatever view its errors are scored."""
        return content.centre_square()


class OnnxDetector:
    """A detector that scores frames in a view, as `FittedDetector` does."""

    def __init__(self, model: OnnxModel, path: Path) -> None:
        """Read the metadata; raises InputError that names `path` if the file is of another system or version, or damaged."""
        about = model.about
        require_system(about, SYSTEM, str(path))
        self._model, self._side = model, about.size
        self.name: DetectorName = detector_name(about.checkpoint)
        require_side(self.name, about.size, path)
        self.config = DetectConfig.parse(merge(UNRECORDED, about.config), str(path))
        self.calibration = DetectorCalibration.parse(about.calibration or {}, str(path))
        self.sha256 = about.weights_sha256

    def __call__(self, frames: NDArray[np.uint8]) -> Detection:
        """Score frames in the configured view, uint8 (N, S, S, 3)."""
        seen = resize_frames_bicubic(frames, self._side)
        parts = [
            self._model(seen[start : start + DETECTOR_BATCH], DETECTOR_OUTPUTS) for start in range(0, len(seen), DETECTOR_BATCH)
        ]
        scores, maps = (np.concatenate([part[name] for part in parts]) for name in DETECTOR_OUTPUTS)
        return Detection(scores, maps)


FrameDetector: TypeAlias = "FittedDetector | OnnxDetector"
"""A detector that `endovae detect` fitted, from its own file or an exported one."""


class DetectorScorer:
    """Scores of a detector; see `Scorer`."""

    def __init__(self, detector: FrameDetector, path: Path) -> None:
        known = detector.calibration
        self._detector, self._path = detector, path
        self.view: ViewName = detector.config.view
        self.prepare = detector.config.prepare
        self.calibration = known.of_view(detector.name)
        self.name = self.calibration.selected
        self.cameras: Mapping[Size, int] = {(one.width, one.height): one.count for one in known.cameras}
        self.vmax, self.devices, self.grey = known.vmax, 1, known.grey
        self.identity: Mapping[str, str] = {"model": detector.sha256}
        self.warnings: Sequence[str] = ()

    def of(self, view: ViewName | None, score: str) -> Self:
        """Return itself.

        Raises:
            InputError: it does not score this view, or has no such score; None and `auto` are its own.
        """
        if view not in (None, self.view):
            raise InputError(f"{self._path} scores the view {self.view}, not {view}; leave out --view.")
        self.calibration.require(score)
        return self

    def prepared(self, path: Path) -> PreparedViews:
        """Read and prepare a frame; raises InputError if it cannot be read, or leaves nothing of the view."""
        if self.view == "full":
            return PreparedViews(prepare_file(path, self.prepare), None)
        return PreparedViews(*prepare_views(path, self.prepare))

    def prepared_pixels(self, frame: NDArray[np.uint8]) -> PreparedViews:
        """Prepare a frame in memory; raises InputError if it leaves nothing of the view."""
        full = prepare_frame(frame, None, self.prepare)
        return PreparedViews(full, None if self.view == "full" else cut_centre(frame, None, full, self.prepare))

    def score(self, frames: Sequence[PreparedViews]) -> FrameScores:
        """Score frames."""
        seen = [one.seen for one in frames]
        pixels = np.stack([one.frame for one in seen])
        found = self._detector(pixels)
        visible = shows_tissue(pixels, np.stack([one.inset > 0 for one in seen]))
        scores = np.where(np.isfinite(found.scores), found.scores, np.inf)
        return FrameScores(np.where(visible, scores, np.nan), found.maps)

    def square(self, content: Box) -> Box:
        """Return the square that the detector sees."""
        square = content.centre_square()
        return square if self.view == "full" else centre_box(square)


def load_scorer(path: Path, checkpoint: str = "auto", devices: int | None = 1) -> "ScoringModel | DetectorScorer":
    """Open a run folder of EndoVAE, a detector, or a file made by `export` of either, once for many calls of `score_frames`.

    Args:
        path: the run folder; the folder or file of a detector; or the exported file, which needs no torch if it is .onnx.
        checkpoint: which weights of a run folder; see `load_checkpoint`.
        devices: number of GPUs, or of CPU threads if there is no GPU; None: one GPU, or a thread for each core. A detector uses
            all cores at once.

    Raises:
        InputError: `path` is none of them, or has no calibration.

    Example:
        >>> scorer = pixelscope.endovae.load_scorer(Path("healthy.onnx"))
        >>> pixelscope.endovae.score_frames(scorer, frames)
    """
    return _opened(path, checkpoint, devices)


def open_scorer(model: Path, view: ViewName | None, score: str, checkpoint: str = "auto", devices: int | None = 1) -> Scorer:
    """Open a run folder of `endovae train`, what `endovae detect` wrote, or a file that `export` made of either.

    Args:
        model: the folder or file; of a detector either.
        view: which part of a frame is scored; None for that of a detector, and the centre otherwise.
        score: name of the score; `auto` for the selected one.
        checkpoint: which weights of a run folder.
        devices: as in `load_scorer`; a detector uses all cores at once.

    Raises:
        InputError: `model` is none of them, or has no such view or score.
    """
    return scorer_of(_opened(model, checkpoint, devices), view, score)


def scorer_of(opened: "ScoringModel | DetectorScorer", view: ViewName | None, score: str) -> Scorer:
    """Return what scores frames with an opened model; see `open_scorer`.

    Raises:
        InputError: it is no such model.
    """
    if not hasattr(opened, "calibration"):
        raise InputError(f"A {type(opened).__name__} scores no frames; give a path, or what `load_scorer` returns.")
    return opened.of(view, score) if isinstance(opened, DetectorScorer) else VAEScorer(opened, view or HEADLINE, score)


def _opened(model: Path, checkpoint: str, devices: int | None) -> "ScoringModel | DetectorScorer":
    found = detector_in(model)
    model = model if found is None else found.path
    opened = OnnxModel(model) if model.suffix.lower() == ".onnx" and model.is_file() else None
    if is_detector(model) if opened is None else opened.about.system == SYSTEM:
        if devices not in (None, 1) or checkpoint != "auto":
            raise InputError(f"{model} is one detector, which uses all cores; leave out --devices and --checkpoint.")
        return DetectorScorer(_open_detector(model, opened), model)
    if opened is not None:
        refuse_checkpoint(model, checkpoint)
    return load_vae(model, checkpoint, devices) if opened is None else OnnxScorer(opened, model, devices)


def _open_detector(path: Path, opened: OnnxModel | None) -> FrameDetector:
    if opened is not None:
        return OnnxDetector(opened, path)
    from pixelscope.endovae.detection.model import FittedDetector

    return FittedDetector.load(path)


def is_detector(path: Path) -> bool:
    """Return whether a .safetensors file was written by `endovae detect`, by its metadata."""
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and about.get("system") == SYSTEM
