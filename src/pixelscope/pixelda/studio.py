"""A run of PixelDA for one image at a time: redrawn in chosen styles, and what classifiers say of it."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.model import ClassifierModel
from pixelscope.pixelda.snapshots import pixels, redraw
from pixelscope.pixelda.task import draw_noise
from pixelscope.pixelda.torch_model import TorchClassifier
from pixelscope.pixelda.trained import TrainedRun
from pixelscope.rng import generator
from pixelscope.runs.arrays import read_arrays

Bytes = NDArray[np.uint8]
GALLERY = {"source": 4, "source_labels": 1}


class StyleStudio:
    """G and T of a run, and a baseline's T beside it where there is one."""

    def __init__(self, run: Path, baseline: Path | None = None) -> None:
        """Open a run, finished or not, by the weights that `evaluate` measures.

        Raises InputError where it is none of PixelDA, or the baseline knows other classes.
        """
        opened = TrainedRun(run, finished=False)
        if opened.weights.generator is None or not isinstance(opened.config, PixelDAConfig):
            raise InputError(
                f"{run} is a run of the {opened.system}, which draws nothing; give one of `pixelscope pixelda train`."
            )
        self.run, self.classes, self.size = Path(run), opened.classes, opened.config.data.size
        self.value_range = opened.config.data.source_values
        self._config, self._generator = opened.config, opened.weights.generator
        self._classifiers: dict[str, ClassifierModel] = {
            "adapted": TorchClassifier(opened.weights.classifier, self.classes, self.size)
        }
        if baseline is not None:
            before = TorchClassifier.of_run(baseline, finished=False)
            if (before.classes, before.size) != (self.classes, self.size):
                raise InputError(f"{baseline} knows other classes or sizes than {run}; give a baseline of the same ones.")
            self._classifiers["baseline"] = before

    def style(self, seed: int) -> NDArray[np.float32]:
        """Return the z of a style, (noise_dim,), a function of `seed`."""
        return draw_noise(self._config, 1, generator("cpu", seed, "style"))[0].numpy()

    def redraw(self, image: Bytes, styles: NDArray[np.float32]) -> Bytes:
        """Return an image (S, S, 3) in each of K styles, z of shape (K, noise_dim); uint8 (K, S, S, 3)."""
        images = np.repeat(image[None], len(styles), axis=0).transpose(0, 3, 1, 2)
        return pixels(redraw(self._generator, images, torch.from_numpy(np.asarray(styles, np.float32))))

    def answers(self, images: Bytes) -> dict[str, NDArray[np.float32]]:
        """Return each classifier's probabilities, (N, classes), of uint8 images (N, S, S, 3)."""
        return {name: model(images) for name, model in self._classifiers.items()}

    def examples(self) -> list[tuple[str, Bytes]]:
        """Return source images of the test split that an evaluation stored, with their classes; none before the first one."""
        arrays = read_arrays(self.run / "samples" / "gallery.npz", GALLERY)
        if arrays is None:
            return []
        return [
            (self.classes[int(label)], image) for image, label in zip(arrays["source"], arrays["source_labels"], strict=True)
        ]
