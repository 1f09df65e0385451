"""The labelled sets that a run is measured on: its own test splits, or other images without what it trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelscope.data.imageset import ImageSet
from pixelscope.data.split import Split, own_test_mask
from pixelscope.engine.runtime import computing_device
from pixelscope.errors import InputError
from pixelscope.pixelda.accuracy import confusion, logits_of
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.domains import Domains, load_domain, load_own, with_classes_of
from pixelscope.pixelda.places import StoredRun
from pixelscope.pixelda.seen import SeenImages


@dataclass(frozen=True)
class MeasuredSet:
    """Labelled images of one domain."""

    title: str
    parts: list[ImageSet]
    source: bool
    """Whether they are of the source, whose images may have a first layer of T to themselves."""

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def measure(classifier: nn.Module, images: MeasuredSet) -> Tensor:
    """Return the confusion counts (classes, classes) of `classifier` over all `images`; it moves to the GPU."""
    return measure_all(classifier, {"": images})[""]


def measure_all(classifier: nn.Module, sets: Mapping[str, MeasuredSet]) -> dict[str, Tensor]:
    """Return `measure` of every set; images that several sets share are classified once."""
    classifier, known = classifier.to(computing_device()), dict[tuple[int, bool], Tensor]()
    for images in sets.values():
        for part in images.parts:
            if (id(part), images.source) not in known:
                known[id(part), images.source] = _counts(classifier, part, images.source)
    return {
        name: torch.stack([known[id(part), images.source] for part in images.parts]).sum(0) for name, images in sets.items()
    }


def accuracies(counts: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the accuracy of each set by its confusion counts."""
    return {name: int(found.trace()) / int(found.sum()) for name, found in counts.items()}


def _counts(classifier: nn.Module, images: ImageSet, source: bool) -> Tensor:
    assert images.labels is not None
    logits = logits_of(classifier, images.images, source=source)
    return confusion(logits.argmax(1), torch.from_numpy(images.labels), logits.shape[1])


def own_sets(domains: Domains) -> dict[str, MeasuredSet]:
    """Return the run's own sets: the source's test split; the target's, and all of it, where it has labels."""
    source, target = domains.source, domains.target
    sets = {"source_test": MeasuredSet(f"{_origin(source.test)}, source test split", [source.test], source=True)}
    if target is None:
        return sets
    if not domains.aligned and source.train.collection is not None and source.train.collection == target.train.collection:
        return _sets_of_one_collection(domains, target)
    if target.test.labels is not None:
        sets["target_test"] = MeasuredSet(f"{_origin(target.test)}, target test split", [target.test], source=False)
        all_of_it = [target.test, target.train]
        sets["target_all"] = MeasuredSet(f"{_origin(target.test)}, all target images", all_of_it, source=False)
    return sets


def _sets_of_one_collection(domains: Domains, target: Split) -> dict[str, MeasuredSet]:
    """Return the own sets of domains that show digits of one collection in splits of their own, without what either trained on.

    Raises:
        InputError: a digit has one label in the source and another in the target, or no digit is left.
    """
    for part in (target.train, target.test):
        _check_labels(domains, part)
    seen, source = SeenImages.of(domains), domains.source.test
    sets = _not_empty({"source_test": _unseen(source, seen, "source test split", source=True)}, source.provenance.source)
    if target.test.labels is None:
        return sets
    test = _unseen(target.test, seen, "target test split", source=False)
    sets |= _not_empty({"target_test": test}, target.test.provenance.source)
    sets |= _partly_seen(target.test, len(target.test) - len(test))
    title = f"{_origin(target.test)}, all target images"
    return sets | {"target_all": MeasuredSet(title, [target.test, target.train], source=False)}


def _check_labels(domains: Domains, images: ImageSet) -> None:
    """Raise InputError where an image has another label than its digit has in the source: its file is wrongly numbered."""
    source = domains.source
    if images.items is None or images.labels is None or images.collection != source.train.collection:
        return
    known: dict[int, int] = {}
    for part in (source.train, source.validation, source.test):
        assert part.items is not None and part.labels is not None
        known |= dict(zip(part.items.tolist(), part.labels.tolist(), strict=True))
    for item, label in zip(images.items.tolist(), images.labels.tolist(), strict=True):
        if known.get(item, label) != label:
            raise InputError(
                f"An image of {images.provenance.source} has the label {images.classes[label]} and its digit, number {item} of "
                f"the source, the label {images.classes[known[item]]}; a file is wrongly numbered: unpack the images again."
            )


def other_sets(
    run: StoredRun, source: str | None, target: str | None, data_root: Path | None = None
) -> tuple[dict[str, MeasuredSet], tuple[str, ...]]:
    """Return what a run is measured on where `source` or `target` is named, and the classes of the source.

    Images that the run may have trained on, and images of digits that it may have trained on in another form, are left out
    of every set. All of the target's test split is then a set of its own, `target_test_partly_seen`.

    Raises:
        InputError: nothing is left to measure, a target has no labels of the run's classes, or images cannot be read.
    """
    seen, config = SeenImages.load(run.folder), run.config
    kept = [
        name for name, given, has in (("source", source, True), ("target", target, bool(config.target))) if has and not given
    ]
    own = None
    if kept or seen is None:
        own = load_own(run, data_root, ("source", "target") if seen is None else kept)
    if seen is None:
        assert own is not None
        seen = SeenImages.of(own)
    classes = tuple(run.record.get("classes", ()))
    sets, data = {} if own is None else own_sets(own), config.data
    if source is not None:
        images = load_domain(source, data, data.source_values, data_root)
        sets, classes = _source_sets(source, images, seen, config) | _without(sets, "source"), images.classes
    if target is not None:
        images = load_domain(target, data, data.target_values, data_root)
        images = images if data.framed is None else images.framed(data.framed)
        images, unmeasured = with_classes_of(images, classes, data.classes == "source")
        if unmeasured:
            raise InputError(f"There is nothing to measure by: {unmeasured}")
        if own is not None:
            _check_labels(own, images)
        sets = _without(sets, "target") | _target_sets(target, images, seen, config)
    return sets, classes


def _source_sets(spec: str, images: ImageSet, seen: SeenImages, config: BaselineConfig) -> dict[str, MeasuredSet]:
    if images.labels is None:
        raise InputError(f"{spec} has no labels to measure by; give labelled images.")
    test = images.select(own_test_mask(images, config.data.test_fraction, config.data.seed))
    return _not_empty({"source_test": _unseen(test, seen, "source test split", source=True)}, spec)


def _target_sets(spec: str, images: ImageSet, seen: SeenImages, config: BaselineConfig) -> dict[str, MeasuredSet]:
    test = images.select(own_test_mask(images, config.data.test_fraction, config.data.seed))
    found = {
        "target_test": _unseen(test, seen, "target test split", source=False),
        "target_all": _unseen(images, seen, "all target images", source=False),
    }
    return _not_empty(found, spec) | _partly_seen(test, len(test) - len(found["target_test"]))


def _partly_seen(test: ImageSet, known: int) -> dict[str, MeasuredSet]:
    if not known:
        return {}
    title = f"{_origin(test)}, target test split, partly seen: the run trained on {known:,} of these images or their digits"
    return {"target_test_partly_seen": MeasuredSet(title, [test], source=False)}


def _not_empty(sets: dict[str, MeasuredSet], spec: str) -> dict[str, MeasuredSet]:
    left = {name: one for name, one in sets.items() if len(one)}
    if not left:
        raise InputError(
            f"The run trained on every image of {spec}, or on its digit, so nothing is left to measure; give other images."
        )
    return left


def _unseen(images: ImageSet, seen: SeenImages, part: str, source: bool) -> MeasuredSet:
    """Return the images that the run has not trained on."""
    kept = ~seen.holds(images)
    left_out = len(images) - int(kept.sum())
    note = f", without {left_out:,} images that the run trained on, or of digits that it trained on" if left_out else ""
    return MeasuredSet(f"{_origin(images)}, {part}{note}", [images.select(kept) if left_out else images], source)


def _without(sets: dict[str, MeasuredSet], domain: str) -> dict[str, MeasuredSet]:
    return {name: one for name, one in sets.items() if not name.startswith(domain)}


def _origin(images: ImageSet) -> str:
    return images.provenance.title
