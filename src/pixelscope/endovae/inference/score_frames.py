"""Scores frames in memory; importing this imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelscope.data.frames.preprocess import ViewName
from pixelscope.endovae.anomaly.calibration import HEADLINE, RATE
from pixelscope.endovae.anomaly.scores import why_unscored
from pixelscope.endovae.inference.metadata import Bytes
from pixelscope.endovae.inference.model import ScoringModel
from pixelscope.endovae.inference.scorers import FrameScores, Scorer, VAEScorer, open_scorer
from pixelscope.errors import InputError


@dataclass(frozen=True)
class FrameScore:
    """The anomaly score of one frame, or why it has none."""

    score: float | None
    p: float | None
    """Calibrated p-value: about the fraction of healthy frames that score as high."""
    flagged: bool | None
    """Whether the score is above the threshold."""
    error: str | None


def score_frames(
    model: Path | ScoringModel,
    frames: Sequence[Bytes],
    *,
    score: str = "auto",
    view: ViewName | None = None,
    false_positive_rate: float = RATE,
) -> list[FrameScore]:
    """Score frames in memory, for example those of a video, as `score` does files. For research only, never a diagnosis.

    `score` decodes JPEG files far larger than the model's frames at half their size; their scores differ a little.

    Args:
        model: what `score` takes; or, to open it once for many calls, what `load_scorer` returns. An .onnx file needs no torch.
        frames: uint8 RGB (H, W, 3), as the device stores them, with border and overlays; their sizes may differ.
        score: name of the score; see `score`.
        view: `centre` or `full`; see `score`.
        false_positive_rate: fraction of healthy frames that may be flagged.

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
    scorer = open_scorer(model, view, score) if isinstance(model, Path) else VAEScorer(model, view or HEADLINE, score)
    threshold = scorer.calibration.threshold(scorer.name, false_positive_rate)
    prepared = [scorer.prepared_pixels(_checked(frame, number)) for number, frame in enumerate(frames)]
    return frame_scores(scorer, scorer.score(prepared), threshold) if prepared else []


def frame_scores(scorer: Scorer, found: FrameScores, threshold: float) -> list[FrameScore]:
    """Return scores with their p-values; those above `threshold` are flagged."""
    p = scorer.calibration.p_values(scorer.name, found.values)
    return [
        FrameScore(float(value), float(chance), bool(value > threshold), None)
        if np.isfinite(value)
        else FrameScore(None, None, None, why_unscored(value))
        for value, chance in zip(found.values, p, strict=True)
    ]


def _checked(frame: Bytes, number: int) -> Bytes:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(f"Frame {number} is {frame.dtype} of shape {frame.shape}; give uint8 RGB arrays (H, W, 3).")
    return np.ascontiguousarray(frame)
