"""Scores that see no disease: trivial baselines, which a model must beat, and the shortcut test."""

import io
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelscope.data.frames.preprocess import View, ViewName
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.anomaly.scores import Values, masked_mean
from pixelscope.endovae.anomaly.statistics import GaussianReference
from pixelscope.imaging.insets import BORDER, LUMA, touching_edge

BASELINES = {
    "mean colour": "Mahalanobis distance of the mean colour outside insets from those of the training frames",
    "black fraction": "fraction of black pixels outside insets",
    "JPEG size": "size in bytes of the view as JPEG of quality 85, insets included",
    "PCA error": "squared error outside insets of principal components, as many as the latent vector has dimensions",
    "PCA error, whole": "the same, insets included",
}
"""Definition of every baseline. Each is computed from the pixels that a view shows."""
QUALITY = 85


def mean_colours(frames: NDArray[np.uint8], insets: NDArray[np.bool_]) -> Values:
    """Return the mean colour outside insets, (N, 3); NaN for a frame without a pixel outside."""
    return np.stack([masked_mean(frames[..., channel].astype(np.float32), ~insets) for channel in range(3)], axis=1)


def baseline_scores(
    frames: NDArray[np.uint8],
    insets: NDArray[np.bool_],
    colours: GaussianReference,
    errors: NDArray[np.float32],
    valid_mask: NDArray[np.bool_] | None = None,
) -> dict[str, Values]:
    """Return every baseline score of frames in one view.

    Args:
        frames: what the view shows, uint8 (N, S, S, 3).
        insets: bool (N, S, S).
        colours: Gaussian of the mean colours of the training frames in this view.
        errors: (N, T, T), squared error of the principal components of the training frames, inside the view.
        valid_mask: bool (N, T, T), True outside insets at the size of `errors`; by default `~insets`.

    Returns:
        float64 (N,) by name; NaN for a frame without a pixel outside insets.
    """
    return {
        "mean colour": colours.distance(mean_colours(frames, insets)),
        "black fraction": masked_mean(black_pixels(frames).astype(np.float32), ~insets),
        "JPEG size": np.array([jpeg_bytes(frame) for frame in frames], np.float64),
        "PCA error": masked_mean(errors, ~insets if valid_mask is None else valid_mask),
        "PCA error, whole": errors.mean((1, 2), dtype=np.float64),
    }


def black_pixels(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels of frames (N, S, S, 3) are black, (N, S, S)."""
    return frames @ np.array(LUMA) < BORDER * 255


def jpeg_bytes(frame: NDArray[np.uint8]) -> int:
    """Return the size in bytes of a frame, uint8 (S, S, 3), as JPEG of quality 85."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
    return file.tell()


SHORTCUTS: dict[ViewName, dict[str, str]] = {
    "full": {
        "size": "logarithms of width and height of the original",
        "content": "left, top, width and height of the content area, as fractions of the original",
        "inset": "area of green and of blacked-out insets, as fractions of the content area",
        "border": "fraction of black pixels that touch the edge, per quarter of the frame",
        "compression": "logarithm of the size in bytes of the prepared frame as JPEG",
        "sharpness": "logarithm of the energy of the finest octave over that of the next",
    },
    "centre": {
        "black": "fraction of black pixels",
        "inset": "fraction of pixels inside an inset",
        "compression": "logarithm of the size in bytes of the view as JPEG",
        "sharpness": "logarithm of the energy of the finest octave over that of the next: what resampling and compression left",
    },
}
"""Features that the classifier sees, by view; on `centre`, only those that the view shows.

Compression and sharpness also depend on tissue, so that the test overstates a shortcut rather than hides it."""
FOLDS = 5
BATCH = 64
"""Frames in memory at a time."""


def shortcut_features(store: FrameStore, name: ViewName, positions: NDArray[np.int64]) -> tuple[Values, Values]:
    """Return the features of `SHORTCUTS`, (N, F), and the mean colours outside insets, (N, 3), of frames of a store."""
    view, parts = store.view(name), [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
    found = [_pixel_features(view, rows) for rows in parts]
    shown, colours = (np.concatenate(some) for some in zip(*found, strict=True))
    return (np.concatenate([_recorded(store, positions), shown], axis=1) if name == "full" else shown), colours


def cross_validated(features: Values, abnormal: NDArray[np.bool_], clusters: NDArray[np.int64]) -> Values | None:
    """Return the score of each frame by a logistic regression fitted to other clusters, (N,); higher is more likely abnormal.

    Features are standardized, kinds weigh the same, and no setting is tuned.

    Args:
        features: (N, F), finite.
        abnormal: (N,).
        clusters: the cluster of each frame, (N,); whole clusters are held out.

    Returns:
        None where a kind has fewer than two clusters.
    """
    # Imported here, because the report imports this module and importing scikit-learn takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(FOLDS, *(len(np.unique(clusters[abnormal == kind])) for kind in (False, True)))
    if folds < 2:
        return None
    scores = np.full(len(features), np.nan)
    for train, test in _folds(abnormal, clusters, folds):
        if len(np.unique(abnormal[train])) < 2:
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        scores[test] = model.fit(features[train], abnormal[train]).decision_function(features[test])
    return scores


def _folds(
    abnormal: NDArray[np.bool_], clusters: NDArray[np.int64], folds: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        # scikit-learn warns if a kind has fewer frames than folds; `cross_validated` has counted the clusters.
        warnings.simplefilter("ignore", UserWarning)
        yield from StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(abnormal, abnormal, clusters)


def _recorded(store: FrameStore, positions: NDArray[np.int64]) -> Values:
    """Return features of size, content area and insets from the index of the store, (N, 8)."""
    rows = []
    for position in positions.tolist():
        frame = store.index.frames[position]
        (width, height), (left, top, wide, high) = frame.size, frame.content
        areas: Mapping[str, float] = {
            kind: sum(one.box[2] * one.box[3] for one in frame.insets if one.kind == kind) / max(1, wide * high)
            for kind in ("green", "black")
        }
        content = (left / width, top / height, wide / width, high / height)
        rows.append([np.log(width), np.log(height), *content, areas["green"], areas["black"]])
    return np.array(rows, np.float64).reshape(-1, 8)


def _pixel_features(view: View, rows: NDArray[np.int64]) -> tuple[Values, Values]:
    """Return the features of border, insets, compression and sharpness, and the mean colours, of some frames."""
    frames, insets = np.asarray(view.frames[rows]), np.asarray(view.insets[rows]) > 0
    black = black_pixels(frames)
    compression, sharp = np.log([jpeg_bytes(frame) for frame in frames]), sharpness(frames)
    if view.name == "full":
        border = np.stack([_quarters(touching_edge(one & ~inset)) for one, inset in zip(black, insets, strict=True)])
    else:
        border = np.stack([black.mean((1, 2)), insets.mean((1, 2))], axis=1)
    colours = mean_colours(frames, insets)
    # A frame that is all inset has no mean colour outside insets; black replaces it.
    return np.column_stack([border, compression, sharp]), np.where(np.isfinite(colours), colours, 0)


def _quarters(mask: NDArray[np.bool_]) -> Values:
    """Return the share of a mask (S, S) in each quarter, (4,)."""
    half = mask.shape[0] // 2
    return np.array(
        [
            mask[rows, columns].mean()
            for rows in (slice(half), slice(half, None))
            for columns in (slice(half), slice(half, None))
        ]
    )


def sharpness(frames: NDArray[np.uint8]) -> Values:
    """Return the logarithm of the energy of the finest octave of grey values over that of the next one, (N,).

    Scenes of any content have energies that fall by about the same factor per octave; enlargement and compression lower the
    finest.

    Args:
        frames: uint8 (N, S, S, 3).
    """
    grey = frames.mean(3)
    half = _halved(grey)
    return np.log((_energy(grey) + 1e-3) / (_energy(half) + 1e-3))


def _energy(grey: Values) -> Values:
    """Return the mean squared difference of neighbouring pixels of (N, S, S), shape (N,)."""
    return np.square(np.diff(grey, axis=1)).mean((1, 2)) + np.square(np.diff(grey, axis=2)).mean((1, 2))


def _halved(grey: Values) -> Values:
    count, side = len(grey), grey.shape[1] // 2 * 2
    return grey[:, :side, :side].reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))
