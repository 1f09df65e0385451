"""What a training stores of its moments, so that later stages can look back: classifiers and generated images."""

from typing import Any

import numpy as np
from safetensors.torch import save_file

from pixelscope.data.disk_array import Positions
from pixelscope.data.imageset import ImageSet
from pixelscope.engine.task import Task
from pixelscope.files import written_whole
from pixelscope.pixelda.forward import pixels, redraw
from pixelscope.pixelda.task import PixelDATask
from pixelscope.runs.arrays import save_arrays
from pixelscope.runs.folder import RunFolder


def save_classifiers(folder: RunFolder, task: Task[Any], images: int) -> None:
    """Store T and its average as they are after `images` images; `evaluate` draws curves and the oracle from them."""
    tensors = {f"last.{name}": tensor for name, tensor in task.networks["classifier"].state_dict().items()}
    if "classifier" in task.averages:
        averaged = task.averages["classifier"].network.state_dict()
        tensors |= {f"ema.{name}": tensor for name, tensor in averaged.items()}
    with written_whole(folder.classifiers / f"{images:012d}.safetensors") as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def one_of_each_class(images: ImageSet, most: int = 10) -> Positions:
    """Return the positions of the first image of each class, at most `most` of them."""
    assert images.labels is not None
    return np.unique(images.labels, return_index=True)[1][:most]


class ProgressSamples:
    """The same source images with the same z, redrawn as training goes on: samples/progress.npz."""

    def __init__(self, folder: RunFolder, source: ImageSet) -> None:
        self.path = folder.samples / "progress.npz"
        self.source = source.images[one_of_each_class(source)]

    def draw(self, task: PixelDATask, images: int) -> None:
        """Add a row for the moment after `images` images."""
        averaged = task.averages.get("generator")
        network = task.generator if averaged is None else averaged.network
        drawn = pixels(redraw(network, self.source, task.fixed_z(len(self.source))))
        moments, rows = self._read()
        self._write(np.append(moments, images), np.concatenate([rows, drawn[None]]))

    def forget_after(self, images: int) -> None:
        """Drop the rows drawn after the checkpoint that a run resumes from."""
        if self.path.is_file():
            moments, rows = self._read()
            self._write(moments[moments <= images], rows[moments <= images])

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.path.is_file():
            shape = pixels(self.source).shape
            return np.empty(0, np.int64), np.empty((0, *shape), np.uint8)
        with np.load(self.path, allow_pickle=False) as stored:
            return stored["images"], stored["generated"]

    def _write(self, moments: np.ndarray, rows: np.ndarray) -> None:
        save_arrays(self.path, images=moments, generated=rows, source=pixels(self.source))
