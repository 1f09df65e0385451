"""A run of PixelDA for one image at a time: translations with chosen noise samples, and class probabilities."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelscope.errors import InputError
from pixelscope.imaging.convert import require_rgb
from pixelscope.pixelda.inference.model import Bytes, ClassifierModel, TorchClassifier
from pixelscope.pixelda.results import read_samples

GALLERY = {"source": 4, "source_labels": 1}


class InteractiveGenerator:
    """G and T of a run, and T of a baseline if one is given."""

    def __init__(self, run: Path, baseline: Path | None = None) -> None:
        """Open a run, finished or not, with its default checkpoint.

        Raises:
            InputError: it is not a run of PixelDA, or the baseline has other classes.
        """
        from pixelscope.pixelda.checkpoints import load_checkpoint
        from pixelscope.pixelda.inference.torch_model import TorchGenerator

        adapted = load_checkpoint(Path(run), finished=False)
        self._redraw = TorchGenerator(adapted)
        self.run, self.classes, self.size = Path(run), adapted.classes, adapted.size
        self.value_range = adapted.config.data.source_values
        # The images shown have the size and the place of the source's, redrawn.
        self._classifiers: dict[str, ClassifierModel] = {"adapted": TorchClassifier.from_checkpoint(adapted, framed=False)}
        if baseline is not None:
            other = load_checkpoint(Path(baseline), finished=False)
            if (other.classes, other.size) != (self.classes, self.size):
                raise InputError(f"{baseline} has other classes or sizes than {run}; give a baseline with the same ones.")
            self._classifiers["baseline"] = TorchClassifier.from_checkpoint(other, framed=False)

    def style(self, seed: int) -> NDArray[np.float32]:
        """Return a noise sample z, (noise_dim,), a function of `seed`."""
        return self._redraw.noise(seed, "style")

    def redraw(self, image: Bytes, styles: NDArray[np.float32]) -> Bytes:
        """Return an image (S, S, 3) translated with each of K noise samples, (K, noise_dim); uint8 (K, S, S, 3).

        Raises InputError for another image or other noise.
        """
        image, styles = np.asarray(image), np.asarray(styles, np.float32)
        require_rgb(image[None], self.size)
        if styles.ndim != 2 or not len(styles) or styles.shape[1] != len(self.style(0)):
            raise InputError(
                f"The noise has the shape {styles.shape}; give (K, {len(self.style(0))}), for one sample z as z[None]."
            )
        return self._redraw(np.repeat(image[None], len(styles), axis=0), styles)

    def answers(self, images: Bytes) -> dict[str, NDArray[np.float32]]:
        """Return each classifier's probabilities, (N, classes), for uint8 images (N, S, S, 3)."""
        return {name: model(images) for name, model in self._classifiers.items()}

    def examples(self) -> list[tuple[str, Bytes]]:
        """Return source images of the test split with their classes, as stored by an evaluation; empty before the first."""
        arrays = read_samples(self.run / "samples" / "gallery.npz", GALLERY, len(self.classes))
        if arrays is None:
            return []
        return [
            (self.classes[int(label)], image) for image, label in zip(arrays["source"], arrays["source_labels"], strict=True)
        ]
