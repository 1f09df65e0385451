"""Generates or analyzes one frame at a time with a run of EndoVAE. For research only.

Importing this imports no torch.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.frames.preprocess import prepare_frame
from pixelscope.endovae.anomaly.calibration import HEADLINE
from pixelscope.endovae.anomaly.heatmap import overlay, smoothed
from pixelscope.endovae.anomaly.scores import why_unscored
from pixelscope.endovae.inference.metadata import Bytes, Floats
from pixelscope.endovae.results import Evaluation
from pixelscope.errors import InputError
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.preview import sheet_html

if TYPE_CHECKING:
    from pixelscope.endovae.data import Splits
    from pixelscope.endovae.forward import LatentAxes

SHOWN = 8
"""Maximum number of latent dimensions offered, by decreasing KL divergence."""
SEARCHED = 5_000
"""Maximum number of training frames searched for the nearest one."""
LARGEST = 640
"""Maximum side in pixels of a frame shown in a browser."""


@dataclass(frozen=True)
class FrameAnalysis:
    """Reconstruction and anomaly score of one frame."""

    frame: Bytes
    """The frame with its content area outlined, (H, W, 3)."""
    heatmap: Bytes
    """The frame overlaid with its error map, of the same size."""
    original: Bytes
    """The square of the frame that the network sees, before it is prepared, (s, s, 3)."""
    prepared: Bytes
    """The prepared frame, as the network sees it, (S, S, 3)."""
    reconstruction: Bytes
    score: float
    p: float
    name: str
    """Name of the score."""
    calibration: NDArray[np.float64]
    """Scores of the healthy calibration frames, ascending."""

    def __repr__(self) -> str:
        return f"<FrameAnalysis: {self.name} {self.score:.4g}, p {self.p:.3f}>"

    def _repr_html_(self) -> str:
        """Return the frame overlaid with its error map, then the prepared frame and its reconstruction."""
        whole = [("frame", self.frame[None]), ("error map", self.heatmap[None])]
        small = [("prepared", self.prepared[None]), ("reconstruction", self.reconstruction[None])]
        return sheet_html(f"{self.name} {self.score:.4g}, p {self.p:.3f}", [*whole, *small])


class InteractiveVAE:
    """Encoder and decoder of a run, with its calibration."""

    def __init__(self, run: Path) -> None:
        """Open a run, finished or not; raises InputError if it is not a run of EndoVAE."""
        from pixelscope.endovae.checkpoints import load_checkpoint
        from pixelscope.endovae.inference.torch_model import TorchVAE

        self._checkpoint = load_checkpoint(run, finished=False)
        self._vae = TorchVAE(self._checkpoint.encoder, self._checkpoint.decoder)
        self.run, self.config = Path(run), self._checkpoint.config

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
        """Decode positions of the sliders (latent,) into a frame, uint8 (S, S, 3)."""
        return self._vae.decode(self._vector(z))[0]

    def nearest(self, z: Floats) -> tuple[Bytes, str, Floats]:
        """Return the training frame nearest to the sliders in latent space, its name, and their positions there."""
        means, positions, splits = self._training
        index = int(((means - self._vector(z)) ** 2).sum(1).argmin())
        position = int(positions[index])
        sliders = self.axes.coordinates(means[index : index + 1])[0]
        return np.asarray(splits.store.frames[position]), splits.store.names[position], sliders

    def _vector(self, z: Floats) -> Floats:
        return self.axes.vectors(np.asarray(z, np.float32)[None])

    def analyze(self, image: Bytes) -> FrameAnalysis:
        """Reconstruct and score one frame, uint8 (H, W, 3).

        Raises InputError if these weights have no calibration, or the frame shows no tissue.
        """
        calibration = self._checkpoint.calibration()
        prepared = prepare_frame(image, None, self.config.prepare)
        frames, insets = prepared.frame[None], prepared.inset[None] > 0
        maps, reconstructions = self._vae.analyze(frames)
        known = calibration.views[HEADLINE]
        value = float(calibration.scores(HEADLINE, maps, frames, insets)[known.selected][0])
        if not np.isfinite(value):
            raise InputError(f"This frame cannot be scored ({why_unscored(maps)[0]}); give another.")
        # The frame is scored at its own size, as `score` does, and shown smaller.
        original, factor = _shrunk(image), _factor(image)
        square, content = _scaled(prepared.content.centre_square(), factor), _scaled(prepared.content, factor)
        heatmap = original.copy()
        grown = cv2.resize((smoothed(maps.error) * ~insets)[0], (square.width, square.height), interpolation=cv2.INTER_LINEAR)
        heatmap[square.slices] = overlay(original[square.slices], np.asarray(grown, np.float32), calibration.vmax)
        outlined = original.copy()
        corner = (content.left + content.width - 1, content.top + content.height - 1)
        cv2.rectangle(outlined, (content.left, content.top), corner, (255, 255, 255), 2)
        return FrameAnalysis(
            frame=outlined,
            heatmap=heatmap,
            original=original[square.slices],
            prepared=prepared.frame,
            reconstruction=reconstructions[0],
            score=value,
            p=float(known.p_values(known.selected, [value])[0]),
            name=f"{known.selected}, view {HEADLINE}",
            calibration=np.array(known.scores[known.selected]),
        )

    @cached_property
    def _training(self) -> tuple[Floats, NDArray[np.int64], "Splits"]:
        from pixelscope.endovae.data import load_run_splits

        splits = load_run_splits(self._checkpoint.folder, self.config, self._checkpoint.record)
        some = splits.train.at_most(SEARCHED)
        return self._vae.encode(some.frames), some.positions, splits


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
