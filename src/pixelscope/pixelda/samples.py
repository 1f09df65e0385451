"""Stores the classifiers and generated images of a training, and the galleries of its evaluation."""

from typing import Any

import numpy as np
from safetensors.torch import save
from torch import nn

from pixelscope.data.disk_array import Bytes, Positions
from pixelscope.data.imageset import ImageSet
from pixelscope.data.split import permutation
from pixelscope.engine.task import Task
from pixelscope.files import atomic_file
from pixelscope.pixelda.checkpoints import Checkpoint
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import Domains
from pixelscope.pixelda.forward import draw_noise, pixels, redraw
from pixelscope.pixelda.metrics import logits_of
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.task import PixelDATask
from pixelscope.rng import derive, generator
from pixelscope.runs.folder import RunFolder, save_arrays


def save_classifiers(folder: RunFolder, task: Task[Any], images: int) -> None:
    """Store T and its average after `images` images; `evaluate` computes curves and the oracle from them."""
    tensors = {f"last.{name}": tensor for name, tensor in task.networks["classifier"].state_dict().items()}
    if "classifier" in task.averages:
        averaged = task.averages["classifier"].network.state_dict()
        tensors |= {f"ema.{name}": tensor for name, tensor in averaged.items()}
    with atomic_file(folder.classifiers / f"{images:012d}.safetensors") as temporary:
        temporary.write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


def one_of_each_class(images: ImageSet, most: int = 10) -> Positions:
    """Return the positions of the first image of each class, at most `most`."""
    assert images.labels is not None
    return np.unique(images.labels, return_index=True)[1][:most]


class ProgressSamples:
    """Writes samples/progress.npz: what G generates over the training from the same source images and z."""

    def __init__(self, folder: RunFolder, source: ImageSet) -> None:
        self.path = folder.samples / "progress.npz"
        self.source = source.images[one_of_each_class(source)]

    def draw(self, task: PixelDATask, images: int) -> None:
        """Add a row of generated images after `images` images."""
        averaged = task.averages.get("generator")
        network = task.generator if averaged is None else averaged.network
        drawn = pixels(redraw(network, self.source, task.fixed_z(len(self.source))))
        points, rows = self._read()
        self._write(np.append(points, images), np.concatenate([rows, drawn[None]]))

    def forget_after(self, images: int) -> None:
        """Remove the rows after `images` images, which a run that resumes there generates again."""
        if self.path.is_file():
            points, rows = self._read()
            self._write(points[points <= images], rows[points <= images])

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.path.is_file():
            shape = pixels(self.source).shape
            return np.empty(0, np.int64), np.empty((0, *shape), np.uint8)
        with np.load(self.path, allow_pickle=False) as stored:
            return stored["images"], stored["generated"]

    def _write(self, points: np.ndarray, rows: np.ndarray) -> None:
        save_arrays(self.path, images=points, generated=rows, source=pixels(self.source))


SHOWN = 16
"""Images per gallery."""
STYLED = 4
"""Source images from which G generates several times."""
STYLES = 10
"""Draws of z per source image."""


def write_galleries(domains: Domains, found: Checkpoint) -> None:
    """Store the galleries of a run's test splits that its system and data allow."""
    folder, config = found.folder, found.config
    if domains.target is not None and domains.aligned:
        _write_pairs(folder, domains.source.test, domains.target.test, config.seed)
    if isinstance(config, PixelDAConfig) and found.generator is not None:
        _write_gallery(folder, domains, found.classifier, found.generator, config)
        _write_styles(folder, domains.source.test, found.generator, config)


def _write_pairs(folder: RunFolder, source: ImageSet, target: ImageSet, seed: int) -> None:
    shown = _random_positions(source, seed, "pairs")
    assert source.labels is not None
    save_arrays(
        folder.samples / "pairs.npz",
        source=pixels(source.images[shown]),
        target=pixels(target.images[shown]),
        labels=source.labels[shown],
    )


def _write_gallery(
    folder: RunFolder, domains: Domains, classifier: nn.Module, network: Generator, config: PixelDAConfig
) -> None:
    assert domains.target is not None
    source, target = domains.source.test, domains.target.test
    assert source.labels is not None
    here, there = _random_positions(source, config.seed, "gallery"), _random_positions(target, config.seed, "gallery target")
    z = draw_noise(config, len(here), generator("cpu", config.seed, "gallery z"))
    generated = redraw(network, source.images[here], z)
    save_arrays(
        folder.samples / "gallery.npz",
        source=pixels(source.images[here]),
        generated=pixels(generated),
        target=pixels(target.images[there]),
        source_labels=source.labels[here],
        source_predictions=_predicted(classifier, source.images[here], source=True),
        generated_predictions=_predicted(classifier, generated),
        target_labels=np.full(len(there), -1) if target.labels is None else target.labels[there],
        target_predictions=_predicted(classifier, target.images[there]),
    )


def _write_styles(folder: RunFolder, source: ImageSet, network: Generator, config: PixelDAConfig) -> None:
    images = source.images[one_of_each_class(source, STYLED)]
    z = draw_noise(config, STYLES, generator("cpu", config.seed, "styles"))
    drawn = redraw(network, np.repeat(images, STYLES, axis=0), z.repeat(len(images), 1))
    rows = drawn.reshape(len(images), STYLES, *drawn.shape[1:])
    save_arrays(folder.samples / "styles.npz", source=pixels(images), generated=pixels(rows))


def _predicted(classifier: nn.Module, images: Bytes, source: bool = False) -> np.ndarray:
    return logits_of(classifier, images, source=source).argmax(1).numpy()


def _random_positions(images: ImageSet, seed: int, purpose: str) -> Positions:
    return permutation(len(images), derive(seed, purpose))[:SHOWN]
