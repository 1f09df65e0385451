"""The two domains of a run: read, checked against each other, split; the target without labels where training looks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelscope.data import load
from pixelscope.data.imageset import ImageSet
from pixelscope.data.split import Split, own_test_mask, shared_test_mask, split
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig, DataConfig, PixelDAConfig


@dataclass(frozen=True)
class Domains:
    """Source and target of a run; `target` has its labels, if any, and is for evaluation only."""

    source: Split
    target: Split | None
    aligned: bool
    """Whether image i of both domains shows the same item."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the source's classes."""
        return self.source.train.classes

    def training_target(self) -> ImageSet:
        """Return the target's training images stripped of labels and names: all that a training ever sees of it."""
        assert self.target is not None
        return self.target.train.without_labels()

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each domain's training images, as a checkpoint remembers them."""
        digests = {"source": self.source.train.digest()}
        if self.target is not None:
            digests["target"] = self.training_target().digest()
        return digests

    def describe(self, config: BaselineConfig) -> dict[str, Any]:
        """Return what run.json says about the data."""
        digests = self.digests()
        domains = {"source": (config.source, self.source), "target": (config.target, self.target)}
        return {name: _describe(spec, parts, digests[name]) for name, (spec, parts) in domains.items() if parts is not None}


def load_domains(config: BaselineConfig, data_root: Path | None = None, training: bool = True) -> Domains:
    """Read and split both domains of `config`; raises InputError for anything that could not be used.

    training: whether the images are to be trained on, which needs a batch of them.
    """
    if not config.source:
        raise InputError("No source is given; name labelled images with --source, for example --source mnist:DIR.")
    if isinstance(config, PixelDAConfig) and not config.target:
        raise InputError("No target is given; name images of the other domain with --target.")
    data = config.data
    source = load(config.source, size=data.size, strict=data.strict, data_root=data_root)
    _check_source(source, config)
    if not config.target:
        mask = own_test_mask(source, data.test_fraction, data.seed)
        return Domains(split(source, mask, data.validation_fraction, data.seed), None, aligned=False)
    target = load(config.target, size=data.size, strict=data.strict, data_root=data_root)
    domains = _split_both(source, with_classes_of(target, source.classes), data)
    if training:
        _check_batch(domains, config)
    return domains


def _split_both(source: ImageSet, target: ImageSet, data: DataConfig) -> Domains:
    source_test, target_test = shared_test_mask(source, target, data.test_fraction, data.seed)
    return Domains(
        split(source, source_test, data.validation_fraction, data.seed),
        split(target, target_test, 0.0, data.seed),
        aligned=source.is_aligned_with(target),
    )


def _check_source(source: ImageSet, config: BaselineConfig) -> None:
    if source.labels is None:
        raise InputError(f"{config.source} has no labels; a source needs one folder a class (class/name.jpg) or a label file.")
    if len(source.classes) < 2:
        raise InputError(f"{config.source} has one class only, {', '.join(source.classes)}; a classifier needs at least two.")
    empty = [name for name, count in zip(source.classes, source.class_counts(), strict=True) if count == 0]
    if empty:
        raise InputError(f"{config.source} has no image of class {empty[0]!r}; add some, or remove the class.")


def _check_batch(domains: Domains, config: BaselineConfig) -> None:
    size = config.training.batch_size
    for name, parts in (("source", domains.source), ("target", domains.target)):
        if isinstance(config, PixelDAConfig) and parts is not None and len(parts.train) < size:
            raise InputError(
                f"The {name} {config.source if name == 'source' else config.target} has {len(parts.train)} training images, "
                f"fewer than a batch of {size}; give more, or lower --training.batch-size."
            )


def with_classes_of(target: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """Express the target's labels in the source's `classes`, so that evaluation counts the same thing in both.

    A target whose class names are not the source's is used without labels, as unlabelled images are.
    """
    if target.labels is None or target.classes == classes:
        return target
    if not set(target.classes) <= set(classes):
        note = f"Used without labels: its classes ({', '.join(target.classes[:5])}, ...) are not the source's."
        noted = replace(target.provenance, notes=(*target.provenance.notes, note))
        return replace(target.without_labels(), provenance=noted)
    positions = {name: index for index, name in enumerate(classes)}
    return target.relabelled([positions[name] for name in target.classes], classes)


def _describe(spec: str, parts: Split, digest: str) -> dict[str, Any]:
    origin = parts.train.provenance
    sizes = {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)}
    return {
        "spec": spec,
        "title": origin.title,
        "count": sum(sizes.values()),
        **sizes,
        "sha256": digest,
        "collection": parts.train.collection,
        "licence": origin.licence,
        "citation": origin.citation,
        "notes": list(origin.notes),
    }
