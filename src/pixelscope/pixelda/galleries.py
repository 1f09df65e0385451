"""The pictures of a run, stored as arrays in samples/: pairs, gallery, styles; figures are drawn from them later."""

import numpy as np
from torch import nn

from pixelscope.data.disk_array import Bytes, Positions
from pixelscope.data.imageset import ImageSet
from pixelscope.data.permutation import permutation
from pixelscope.pixelda.accuracy import logits_of
from pixelscope.pixelda.checkpoints import Checkpoint
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.domains import Domains
from pixelscope.pixelda.forward import draw_noise, pixels, redraw
from pixelscope.pixelda.networks import Generator
from pixelscope.pixelda.snapshots import one_of_each_class
from pixelscope.rng import derive, generator
from pixelscope.runs.arrays import save_arrays
from pixelscope.runs.folder import RunFolder

SHOWN = 16
STYLED = 4
STYLES = 10


def write_galleries(domains: Domains, found: Checkpoint) -> None:
    """Store the pictures of a run's test splits, as many as its system and data allow."""
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
        classes=np.array(source.classes),
    )


def _write_gallery(
    folder: RunFolder, domains: Domains, classifier: nn.Module, network: Generator, config: PixelDAConfig
) -> None:
    assert domains.target is not None and domains.source.test.labels is not None
    source, target = domains.source.test, domains.target.test
    here, there = _random_positions(source, config.seed, "gallery"), _random_positions(target, config.seed, "gallery target")
    z = draw_noise(config, len(here), generator("cpu", config.seed, "gallery z"))
    generated = redraw(network, source.images[here], z)
    assert source.labels is not None
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
