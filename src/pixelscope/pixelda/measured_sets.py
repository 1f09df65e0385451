"""The labelled sets that a run is measured on: its own test splits, or other images without what it trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelscope.data import load
from pixelscope.data.imageset import ImageSet
from pixelscope.data.split import own_test_mask
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.domains import Domains, load_domains, with_classes_of

Seen = Mapping[str, Tensor]
"""By collection, the items (int64) whose images a training may have seen in either domain."""


@dataclass(frozen=True)
class MeasuredSet:
    """Labelled images of one domain."""

    title: str
    parts: list[ImageSet]
    source: bool
    """Whether they are of the source, whose images may have a first layer of T to themselves."""

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def own_sets(domains: Domains) -> dict[str, MeasuredSet]:
    """Return the run's own sets: the source's test split; the target's, and all of it, where it has labels."""
    source, target = domains.source, domains.target
    sets = {"source_test": MeasuredSet(f"{_origin(source.test)}, source test split", [source.test], source=True)}
    if target is not None and target.test.labels is not None:
        sets["target_test"] = MeasuredSet(f"{_origin(target.test)}, target test split", [target.test], source=False)
        all_of_it = [target.test, target.train]
        sets["target_all"] = MeasuredSet(f"{_origin(target.test)}, all target images", all_of_it, source=False)
    return sets


def other_sets(
    folder: RunFolder, config: BaselineConfig, source: str | None, target: str | None, data_root: Path | None = None
) -> tuple[dict[str, MeasuredSet], tuple[str, ...]]:
    """Return what a run is measured on where `source` or `target` replaces its own, and the classes of the source.

    Where images of both kinds show items of one collection (digits of MNIST), those whose item the run may have trained on, in
    either domain, are left out of every set. All of the target's test split is then a set of its own,
    `target_test_partly_seen`.

    Raises:
        InputError: nothing is left to measure, a target has no labels of the run's classes, or images cannot be read.
    """
    needs_own = source is None or target is None or _knows_items(folder)
    own = load_domains(config, data_root, training=False) if needs_own else None
    seen: Seen = {} if own is None else _items_seen(own)
    sets = {} if own is None else own_sets(own)
    data, classes = config.data, () if own is None else own.classes
    if source is not None:
        images = load(source, size=data.size, strict=data.strict, data_root=data_root)
        sets, classes = _source_sets(source, images, seen, config) | _without(sets, "source"), images.classes
    if target is not None:
        images = load(target, size=data.size, strict=data.strict, data_root=data_root)
        sets = _without(sets, "target") | _target_sets(target, with_classes_of(images, classes), seen, config)
    return sets, classes


def _source_sets(spec: str, images: ImageSet, seen: Seen, config: BaselineConfig) -> dict[str, MeasuredSet]:
    if images.labels is None:
        raise InputError(f"{spec} has no labels to measure by; give labelled images.")
    test = images.select(own_test_mask(images, config.data.test_fraction, config.data.seed))
    return _not_empty({"source_test": _unseen(test, seen, "source test split", source=True)}, spec)


def _target_sets(spec: str, images: ImageSet, seen: Seen, config: BaselineConfig) -> dict[str, MeasuredSet]:
    if images.labels is None:
        raise InputError(f"{spec} has no labels of the run's classes to measure by; give labelled images of the same classes.")
    test = images.select(own_test_mask(images, config.data.test_fraction, config.data.seed))
    found = {
        "target_test": _unseen(test, seen, "target test split", source=False),
        "target_all": _unseen(images, seen, "all target images", source=False),
    }
    sets, known = _not_empty(found, spec), len(test) - len(found["target_test"])
    if known:
        title = f"{_origin(test)}, target test split, partly seen digits: the run trained on those of {known:,} images"
        sets["target_test_partly_seen"] = MeasuredSet(title, [test], source=False)
    return sets


def _not_empty(sets: dict[str, MeasuredSet], spec: str) -> dict[str, MeasuredSet]:
    left = {name: one for name, one in sets.items() if len(one)}
    if not left:
        raise InputError(f"The run trained on every digit of {spec}, so that nothing is left to measure; give other digits.")
    return left


def _unseen(images: ImageSet, seen: Seen, part: str, source: bool) -> MeasuredSet:
    """Return the images whose item is not among those seen; all of them where their collection is another or not known."""
    title = f"{_origin(images)}, {part}"
    if images.items is None or images.collection is None or images.collection not in seen:
        return MeasuredSet(title, [images], source)
    unseen = ~torch.isin(images.items, seen[images.collection])
    left_out = len(images) - int(unseen.sum())
    note = f", without {left_out:,} images of digits that the run trained on" if left_out else ""
    return MeasuredSet(title + note, [images.select(unseen)], source)


def _items_seen(own: Domains) -> Seen:
    parts = [own.source.train, own.source.validation, *([] if own.target is None else [own.target.train])]
    seen: dict[str, Tensor] = {}
    for part in parts:
        if part.collection is not None and part.items is not None:
            seen[part.collection] = torch.cat([seen.get(part.collection, part.items[:0]), part.items]).unique()
    return seen


def _knows_items(folder: RunFolder) -> bool:
    """Return whether a domain of the run shows items of a known collection; a record that does not say may."""
    return any(domain.get("collection", "") is not None for domain in folder.read_record().get("data", {}).values())


def _without(sets: dict[str, MeasuredSet], domain: str) -> dict[str, MeasuredSet]:
    return {name: one for name, one in sets.items() if not name.startswith(domain)}


def _origin(images: ImageSet) -> str:
    return images.provenance.title
