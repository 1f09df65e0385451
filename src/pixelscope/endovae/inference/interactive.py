"""Generates or analyzes one frame at a time with a run of EndoVAE or a detector. For research only.

Importing this imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.frames.preprocess import prepare_frame
from pixelscope.endovae.anomaly.calibration import HEADLINE, ViewCalibration
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.scores import why_unscored
from pixelscope.endovae.inference.scorers import VAEScorer, open_scorer
from pixelscope.endovae.results import Evaluation
from pixelscope.errors import InputError
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.convert import require_rgb, sheet_html

if TYPE_CHECKING:
    from pixelscope.endovae.data import Splits
    from pixelscope.endovae.forward import LatentAxes

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SHOWN = 8
"""Maximum number of latent dimensions offered, by decreasing KL divergence."""
SEARCHED = 5_000
"""Maximum number of training frames searched for the nearest one."""
LARGEST = 640
"""Maximum side in pixels of a frame shown in a browser."""


@dataclass(frozen=True)
class FrameAnalysis:
    """Anomaly score of one frame, what it was computed from, and the reconstruction by a VAE."""

    frame: Bytes
    """The frame with its content area outlined, and the square that a detector sees, (H, W, 3)."""
    heatmap: Bytes
    """The frame overlaid with its map over that square, of the same size."""
    square: Box
    """The square that the model sees, in `frame` and `heatmap`."""
    original: Bytes
    """That square of the frame, before it is prepared, (s, s, 3)."""
    prepared: Bytes
    """The prepared square, as the model sees it, (S, S, 3)."""
    reconstruction: Bytes | None
    """(S, S, 3); None if a detector scored the frame."""
    score: float
    p: float
    name: str
    """Name of the score."""
    calibration: NDArray[np.float64]
    """Scores of the healthy calibration frames, ascending."""

    @property
    def p_text(self) -> str:
        """Return the p-value for a person: `p 0.034`, or `p < 0.001`."""
        return "p < 0.001" if self.p < 0.0005 else f"p {self.p:.3f}"

    def __repr__(self) -> str:
        return f"<FrameAnalysis: {self.name} {self.score:.4g}, {self.p_text}>"

    def _repr_html_(self) -> str:
        """Return the frame and its heat map, then the prepared square and its reconstruction, if there is one."""
        whole = [("frame", self.frame[None]), ("heat map", self.heatmap[None])]
        small = [("prepared", self.prepared[None])]
        if self.reconstruction is not None:
            small.append(("reconstruction", self.reconstruction[None]))
        return sheet_html(f"{self.name} {self.score:.4g}, {self.p_text}", [*whole, *small])


class InteractiveVAE:
    """Encoder and decoder of a run, with its calibration."""

    def __init__(self, run: Path) -> None:
        """Open a run, finished or not; raises InputError if it is not a run of EndoVAE."""
        from pixelscope.endovae.checkpoints import load_checkpoint
        from pixelscope.endovae.inference.torch_model import TorchVAE

        self._checkpoint = load_checkpoint(Path(run), finished=False)
        self._vae = TorchVAE(self._checkpoint.encoder, self._checkpoint.decoder)
        self.run, self.config = Path(run), self._checkpoint.config
        self.prepare = self.config.prepare

    @property
    def uncalibrated(self) -> str:
        """Return why frames cannot be scored: these weights have no calibration. Empty if they have one."""
        try:
            self._checkpoint.calibration()
        except InputError as error:
            return str(error)
        return ""

    @cached_property
    def axes(self) -> "LatentAxes":
        """Return what sliders move along; raises InputError if the code is spatial, and the run was not evaluated."""
        from pixelscope.endovae.forward import read_axes

        return read_axes(self._checkpoint)

    @property
    def latent(self) -> int:
        """Return the number of sliders."""
        return len(self.axes)

    @cached_property
    def dimensions(self) -> list[int]:
        """Return the sliders shown: those of the largest KL divergence on test frames, or else the first ones."""
        if self.config.model.kind == "spatial":
            return list(range(min(SHOWN, self.latent)))
        path = self._checkpoint.folder.evaluation
        sets = Evaluation.load(path).sets if path.is_file() else {}
        divergence = next((one.kl for one in sets.values() if len(one.kl) == self.latent), None)
        order = range(self.latent) if divergence is None else np.argsort(-np.array(divergence), kind="stable").tolist()
        return [int(dimension) for dimension in order][:SHOWN]

    def random(self, seed: int) -> Floats:
        """Return random positions of the sliders, standard normal, (latent,), determined by `seed`."""
        from pixelscope.endovae.inference.torch_model import draw_latents

        return draw_latents(1, self.latent, seed, "interactive")[0]

    def draw(self, z: Floats) -> Bytes:
        """Decode positions of the sliders (latent,) into a frame, uint8 (S, S, 3).

        Raises InputError for another shape, and for positions that are not finite.
        """
        return self._vae.decode(self._vector(z))[0]

    def nearest(self, z: Floats) -> tuple[Bytes, str, Floats]:
        """Return the training frame nearest to the sliders in latent space, its name, and their positions there."""
        means, positions, splits = self._training
        index = int(((means - self._vector(z)) ** 2).sum(1).argmin())
        position = int(positions[index])
        sliders = self.axes.coordinates(means[index : index + 1])[0]
        return np.asarray(splits.store.frames[position]), splits.store.names[position], sliders

    def _vector(self, z: Floats) -> Floats:
        positions = np.asarray(z, np.float32)
        if positions.shape != (self.latent,) or not np.isfinite(positions).all():
            raise InputError(f"z has the shape {positions.shape}; give {self.latent} finite numbers, one for each slider.")
        return self.axes.vectors(positions[None])

    def analyze(self, image: Bytes) -> FrameAnalysis:
        """Reconstruct and score one frame, uint8 (H, W, 3).

        Raises InputError if these weights have no calibration, or the frame is no such array or shows no tissue.
        """
        image = np.asarray(image)
        require_rgb(image[None])
        calibration = self._checkpoint.calibration()
        prepared = prepare_frame(image, None, self.prepare)
        frames, insets = prepared.frame[None], prepared.inset[None] > 0
        maps, reconstructions = self._vae.analyze(frames)
        known = calibration.views[HEADLINE]
        value = calibration.scores(HEADLINE, maps, frames, insets)[known.selected][0]
        errors, square = (smoothed(maps.error) * ~insets)[0], prepared.content.centre_square()
        return FrameAnalysis(
            **_rating(value, known, known.selected, HEADLINE),
            **_images(image, square, errors, calibration.vmax, [prepared.content]),
            prepared=prepared.frame,
            reconstruction=reconstructions[0],
        )

    @cached_property
    def _training(self) -> tuple[Floats, NDArray[np.int64], "Splits"]:
        from pixelscope.endovae.data import load_run_splits

        splits = load_run_splits(self._checkpoint.folder, self.config, self._checkpoint.record)
        some = splits.train.at_most(SEARCHED)
        return self._vae.encode(some.frames), some.positions, splits


class InteractiveDetector:
    """A detector with its calibration.

    Example:
        >>> detector = pixelscope.endovae.InteractiveDetector(Path("detector/detector.safetensors"))
        >>> detector.analyze(frame).p
        0.0476
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `endovae detect` wrote, or that `export` made of one.

        Raises InputError if it is damaged, or not a detector.
        """
        scorer = open_scorer(Path(path), None, "auto")
        if isinstance(scorer, VAEScorer):
            raise InputError(f"{path} is a trained EndoVAE, not a detector; give a file made by `pixelscope endovae detect`.")
        self._scorer, self.path = scorer, Path(path)
        self.prepare, self.calibration = scorer.prepare, scorer.calibration

    def analyze(self, image: Bytes) -> FrameAnalysis:
        """Score one frame, uint8 (H, W, 3).

        Raises InputError if the frame is no such array, shows no tissue, or leaves nothing of the view.
        """
        image = np.asarray(image)
        require_rgb(image[None])
        scorer = self._scorer
        seen = scorer.prepared_pixels(image)
        found, square = scorer.score([seen]), scorer.square(seen.full.content)
        return FrameAnalysis(
            **_rating(found.values[0], scorer.calibration, scorer.name, scorer.view),
            **_images(image, square, found.maps[0], scorer.vmax, [seen.full.content, square]),
            prepared=seen.seen.frame,
            reconstruction=None,
        )


def _images(image: Bytes, square: Box, values: Floats, vmax: float, outlined: Sequence[Box]) -> dict[str, Any]:
    """Return the fields of `FrameAnalysis` that show a frame, uint8 (H, W, 3), at the size of a browser.

    Args:
        image: the frame.
        square: the square of it that the model sees.
        values: map over the square, (h, w).
        vmax: value at which the map is brightest.
        outlined: boxes to outline.
    """
    # The frame is scored at its own size, as `score` does, and shown smaller.
    shown, factor = _shrunk(image), _factor(image)
    place = _scaled(square, factor)
    original = shown[place.slices]
    heatmap, frame = shown.copy(), shown.copy()
    grown = cv2.resize(values, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
    heatmap[place.slices] = overlay(original, np.asarray(grown, np.float32), vmax)
    for box in (_scaled(one, factor) for one in outlined):
        corner = (box.left + box.width - 1, box.top + box.height - 1)
        cv2.rectangle(frame, (box.left, box.top), corner, (255, 255, 255), 2)
    return {"frame": frame, "heatmap": heatmap, "square": place, "original": original}


def _rating(value: float, known: ViewCalibration, name: str, view: str) -> dict[str, Any]:
    """Return the fields of `FrameAnalysis` that rate a frame; raises InputError with the reason if it has no score."""
    if not np.isfinite(value):
        raise InputError(f"This frame cannot be scored ({why_unscored(value)}); give another.")
    return {
        "score": float(value),
        "p": float(known.p_values(name, [value])[0]),
        "name": f"{name}, view {view}",
        "calibration": np.array(known.scores[name]),
    }


def _factor(image: Bytes) -> float:
    """Return the factor by which a frame is shrunk to be shown, at most 1."""
    return min(1.0, LARGEST / max(image.shape[:2]))


def _scaled(box: Box, factor: float) -> Box:
    """Return a box of a frame in the shrunk frame."""
    left, top = int(box.left * factor), int(box.top * factor)
    right, bottom = (box.left + box.width) * factor, (box.top + box.height) * factor
    return Box(left, top, max(1, round(right) - left), max(1, round(bottom) - top))


def _shrunk(image: Bytes) -> Bytes:
    factor = _factor(image)
    if factor == 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
