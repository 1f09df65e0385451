"""Reads, checks and splits the two domains of a run. Training sees the target without labels."""

import logging
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pixelscope.data import load
from pixelscope.data.disk_array import sampled
from pixelscope.data.imageset import ImageSet, class_key, image_hashes
from pixelscope.data.sources.masks import load_masks, require_same_names
from pixelscope.data.sources.relocate import find, written
from pixelscope.data.split import Split, group_by_name, own_test_mask, shared_test_mask, split
from pixelscope.errors import InputError, note, plural
from pixelscope.files import atomic_file
from pixelscope.imaging.framing import SAMPLE, Framing, find_foreground, matching
from pixelscope.pixelda.config import BaselineConfig, DataConfig, PixelDAConfig
from pixelscope.pixelda.results import LEFT_OUT
from pixelscope.runs.folder import RunFolder

System = Literal["baseline", "pixelda"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """The content of a run folder of PixelDA or its baseline, read once."""

    folder: RunFolder
    record: Mapping[str, Any]
    """The content of run.json."""
    system: System
    config: BaselineConfig


@dataclass(frozen=True)
class Domains:
    """Source and target of a run. `target` keeps its labels, if any, for evaluation only."""

    source: Split
    target: Split | None
    aligned: bool
    """Whether image i of both domains shows the same item."""
    framing: Framing | None = None
    """How target images were scaled and shifted; None if they were not."""
    target_unmeasured: str = ""
    """Why the given target cannot be measured; empty if it can."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the source's classes."""
        return self.source.train.classes

    def training_target(self) -> ImageSet:
        """Return the target's training images without labels and names; training sees nothing else of it."""
        assert self.target is not None
        return self.target.train.without_labels()

    def held_out_source(self) -> ImageSet:
        """Return the source's validation images; without any, its training images."""
        return self.source.validation if len(self.source.validation) else self.source.train

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each domain's training images, as stored in checkpoints."""
        digests = {"source": self.source.train.digest()}
        if self.target is not None:
            digests["target"] = self.training_target().digest()
        return digests

    def split_digests(self) -> dict[str, dict[str, str]]:
        """Return the SHA-256 of each domain's splits, by the keys of run.json; the target's is of its images alone."""
        digests = {"source": _split_digests(self.source)}
        if self.target is not None:
            digests["target"] = _split_digests(self.target, labelled=False)
        return digests

    def describe(self, config: BaselineConfig) -> dict[str, Any]:
        """Return the entry of run.json about the data."""
        digests = self.split_digests()
        domains = {"source": (config.source, self.source), "target": (config.target, self.target)}
        return {name: _describe(spec, parts, digests[name]) for name, (spec, parts) in domains.items() if parts is not None}


def load_domains(config: BaselineConfig, data_root: Path | None = None, training: bool = True) -> Domains:
    """Read and split both domains of `config`.

    Args:
        config: the settings.
        data_root: folder in which a source given as a KIND alone is looked up.
        training: whether to train on the images, which needs at least one batch of them.

    Raises:
        InputError: a source is missing, or its images or labels cannot be used.
    """
    if not config.source:
        raise InputError("No source is given; give labelled images with --source, for example --source mnist:DIR.")
    if isinstance(config, PixelDAConfig) and not config.target:
        raise InputError("No target is given; give images of the other domain with --target.")
    data = config.data
    source = load_domain(config.source, data, data.source_values, data_root)
    _check_source(source, config)
    if config.target:
        domains = _load_both(source, config, data_root)
    else:
        _check_groups(data, {"source": source})
        mask = own_test_mask(source, data.test_fraction, data.seed)
        domains = Domains(split(source, mask, data.validation_fraction, data.seed), None, aligned=False)
    if training:
        _check_grouped_classes(domains, data)
        _check_batch(domains, config)
    return domains


def _load_both(source: ImageSet, config: BaselineConfig, data_root: Path | None) -> Domains:
    data = config.data
    target = load_domain(config.target, data, data.target_values, data_root)
    _check_groups(data, {"source": source, "target": target})
    target, unmeasured = with_classes_of(target, source.classes, data.classes == "source")
    return replace(_framed(_split_both(source, target, data), data), target_unmeasured=unmeasured)


def load_domain(spec: str, data: DataConfig, values: tuple[float, float] | None, data_root: Path | None) -> ImageSet:
    """Read images by the settings `data`, with their groups; `values` is the value range of deep images."""
    images = load(spec, size=data.size, strict=data.strict, data_root=data_root, value_range=values)
    return images if data.group_by is None else group_by_name(images, data.group_by)


def _check_groups(data: DataConfig, domains: Mapping[str, ImageSet]) -> None:
    """Raise InputError if --data.group-by matches no image, or puts all images of a domain into one group."""
    if data.group_by is None:
        return
    what = _group_by(data)
    if all(images.groups is None for images in domains.values()):
        known = [
            f"the {role} has {images.names[0]}" if images.names else f"the {role} {_no_names(images)}"
            for role, images in domains.items()
        ]
        raise InputError(f"{what} matches the path of no image ({'; '.join(known)}); change it, or leave it out.")
    for role, images in domains.items():
        if images.groups is not None and len(np.unique(images.groups)) == 1:
            raise InputError(
                f"{what} puts all images of the {role} {images.provenance.source} into one group, which leaves no test split; "
                "put its first parentheses around text that differs between the groups."
            )


def _check_grouped_classes(domains: Domains, data: DataConfig) -> None:
    """Raise InputError if --data.group-by groups by class, or leaves a class of the source without a training image."""
    if data.group_by is None:
        return
    for role, parts in (("source", domains.source), ("target", domains.target)):
        if parts is not None and _by_class(parts):
            raise InputError(
                f"{_group_by(data)} puts each class of the {role} into one group, so whole classes are held out of "
                f"training; give an expression for parts of classes, such as {PATIENT} for CLASS/PATIENT/name, or leave it out."
            )
    source = domains.source.train
    if source.groups is None:
        return
    missing = [name for name, count in zip(source.classes, source.class_counts(), strict=True) if not count]
    if missing:
        raise InputError(
            f"{_group_by(data)} leaves no training image of {plural(len(missing), 'class')} of the source "
            f"({_listed(missing)}), because their groups are held out; make the groups smaller, such as {PATIENT} for "
            "CLASS/PATIENT/name, or choose another --data.seed."
        )


PATIENT = "'^([^/]+/[^/]+)/'"
"""Value of --data.group-by for images in CLASS/PATIENT/name."""


def _group_by(data: DataConfig) -> str:
    return f"--data.group-by '{data.group_by}'"


def _by_class(parts: Split) -> bool:
    """Return whether all images of each class are in one group, in a random split of a labelled domain."""
    images = [one for one in (parts.train, parts.validation, parts.test) if len(one)]
    if any(one.groups is None or one.labels is None for one in images):
        return False
    groups, labels = (np.concatenate([getattr(one, name) for one in images]) for name in ("groups", "labels"))
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    return len(pairs[0]) == len(np.unique(labels)) < len(labels)


def _no_names(images: ImageSet) -> str:
    source = images.provenance.source
    return f"{source} has no paths" + ("; pack its images again to keep them" if source.startswith("pack:") else "")


def with_findings(config: BaselineConfig, domains: Domains) -> BaselineConfig:
    """Return the configuration with the value ranges and the framing that were found, with which later images are read."""
    source, target = domains.source.train, None if domains.target is None else domains.target.train
    found = config.data.ranges_of(source.provenance.value_range, None if target is None else target.provenance.value_range)
    if domains.framing is not None:
        found["target_framing"] = domains.framing.numbers()
    return config.model_copy(update={"data": config.data.model_copy(update=found)})


def load_own(run: StoredRun, data_root: Path | None = None, names: Collection[str] = ("source", "target")) -> Domains:
    """Read the images of a run from their current places, in the splits of its training.

    Args:
        run: the run.
        data_root: folder in which a source given as a KIND alone is looked up.
        names: the domains whose images must be the run's.

    Raises:
        InputError: images are missing, or their SHA-256 differs from the one in run.json.
    """
    found = current_config(run, data_root)
    domains = load_domains(found, data_root, training=False)
    require_same_images(replace(run, config=found), domains, names)
    return domains


def load_unframed_test(run: StoredRun, data_root: Path | None = None) -> ImageSet:
    """Return the test images of a run's target, or of a baseline's source, before any framing, as a user has them.

    Raises:
        InputError: images are missing, or their SHA-256 differs from the one in run.json.
    """
    domains = load_own(run, data_root)
    if domains.framing is not None:
        found = current_config(run, data_root)
        plain = found.data.model_copy(update={"framing": "none", "target_framing": None})
        domains = load_domains(found.model_copy(update={"data": plain}), data_root, training=False)
    return (domains.target or domains.source).test


def current_config(run: StoredRun, data_root: Path | None = None) -> BaselineConfig:
    """Return the configuration of a run with the current places of its sources; see `data.sources.relocate.find`."""

    def digests(places: dict[str, str]) -> dict[str, str]:
        return load_domains(_at(run.config, places), data_root, training=False).digests()

    return _at(run.config, find(_places(run.config), run.record, run.folder.path, digests))


def require_same_images(run: StoredRun, domains: Domains, names: Collection[str] = ("source", "target")) -> None:
    """Raise InputError if the images of a split of the domains `names` differ from those recorded in run.json."""
    recorded, specs = run.record.get("data", {}), _specs(run.config)
    # The target first: if the sets are aligned, a changed target also changes the source's split.
    for domain, digests in reversed(domains.split_digests().items()):
        if domain not in names:
            continue
        known = recorded.get(domain, {})
        # That of the training images may not be missing: a run of somebody else's could name any images without it.
        changed = [part for part, key in DIGESTS.items() if known.get(key, key != "sha256" and digests[key]) != digests[key]]
        if changed:
            raise InputError(
                f"The {changed[0]} images of the {domain} {specs[domain]} are not those of the run {run.folder.path} (their "
                "SHA-256 differs), so the run's training splits may have some of them. Restore them"
                f"{_or_measure(run, domains, domain)}."
            )


def _or_measure(run: StoredRun, domains: Domains, changed: str) -> str:
    """Return how to measure changed images of a domain as other images; empty for a target without labels of the classes."""
    named = {name: spec for name, spec in _specs(run.config).items() if spec and (name == changed or domains.aligned)}
    if "target" in named and domains.target is not None and domains.target.test.labels is None:
        return ""
    flags = [word for name, spec in named.items() for word in (f"--{name}", spec)]
    command = shlex.join(["pixelscope", "pixelda", "evaluate", str(run.folder.path), *flags])
    return f", or measure them as other images with `{command}`"


def _specs(config: BaselineConfig) -> dict[str, str]:
    return {"source": config.source, "target": config.target}


DIGESTS = {"training": "sha256", "validation": "sha256_validation", "test": "sha256_test"}
"""Key of each split's SHA-256 in run.json."""


def _split_digests(parts: Split, labelled: bool = True) -> dict[str, str]:
    splits = zip(DIGESTS.values(), (parts.train, parts.validation, parts.test), strict=True)
    return {key: (images if labelled else images.without_labels()).digest() for key, images in splits}


def _split_both(source: ImageSet, target: ImageSet, data: DataConfig) -> Domains:
    source_test, target_test = shared_test_mask(source, target, data.test_fraction, data.seed)
    ours = split(source, source_test, data.validation_fraction, data.seed)
    theirs = split(target, target_test, 0.0, data.seed)
    used, tested = (_hashes(*parts) for parts in ((ours.train, ours.validation), (ours.test,)))
    leaks, training = _source_leaks(used, ours, theirs), _hashes(theirs.train)
    same = bool(np.isin(training, np.concatenate([used, tested])).all())
    notes = (*theirs.notes, *leaks, *([SAME_IMAGES] if same else []))
    theirs = replace(theirs, notes=notes, leaks=(*theirs.leaks, *leaks))
    return Domains(ours, theirs, aligned=source.is_aligned_with(target))


SAME_IMAGES = "Every training image of the target is also in the source; give images of the other domain as the target."


def _source_leaks(used: NDArray[np.int64], source: Split, target: Split) -> tuple[str, ...]:
    """Return a note on labelled test images of the target that are copies of source images outside of its test split.

    used: hashes of these source images.
    """
    tested = target.test
    # Digits of one collection that training used are left out of what is measured, see `pixelda.evaluation`.
    if tested.labels is None or (tested.collection is not None and tested.collection == source.test.collection):
        return ()
    copied = int(np.isin(_hashes(tested), used).sum())
    if not copied:
        return ()
    what = f"{copied:,} of {len(tested):,} test images are exact copies of labelled source images"
    return (f"{what} in training or validation; remove them from one of the two.",)


def _hashes(*parts: ImageSet) -> NDArray[np.int64]:
    return np.concatenate([image_hashes(part.images) for part in parts])


def _framed(domains: Domains, data: DataConfig) -> Domains:
    """Return the domains with target images scaled and shifted by the settings, measured on training images."""
    target = domains.target
    assert target is not None
    framing, why = data.framed, ""
    if framing is None and data.framing == "match":
        framing, why = match_framing(domains.source.train, target.train)
    if framing is None:
        return replace(domains, target=replace(target, notes=(*target.notes, *([why] if why else []))))
    parts = {name: getattr(target, name).framed(framing) for name in ("train", "validation", "test")}
    return replace(domains, target=replace(target, **parts), framing=framing)


def match_framing(source: ImageSet, target: ImageSet) -> tuple[Framing | None, str]:
    """Return the framing that matches the target to the source, of one size; or None and the reason."""
    found = [find_foreground(sampled(images.images, SAMPLE).transpose(0, 2, 3, 1)) for images in (source, target)]
    theirs, ours = found
    if ours is None or theirs is None:
        unclear = " and ".join(role for role, one in zip(("source", "target"), found, strict=True) if one is None)
        return None, f"Not scaled or shifted: no foreground was found in the {unclear}."
    framing = matching(ours, theirs, target.images.shape[-1])
    return framing, "" if framing else "Not scaled or shifted: the foregrounds of both domains match already."


def _check_source(source: ImageSet, config: BaselineConfig) -> None:
    if source.labels is None:
        why = " ".join(source.provenance.notes)
        raise InputError(
            f"{config.source} has no labels; give one folder per class (class/name.jpg) or a labels.csv. {why}".rstrip()
        )
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


RENAME = "Rename its class folders or labels"


def with_classes_of(
    target: ImageSet,
    classes: tuple[str, ...],
    leave_out: bool = False,
    remedy: str = f"{RENAME}, or leave the others out with --data.classes source",
) -> tuple[ImageSet, str]:
    """Map the target's labels to the source's `classes`.

    Case, surrounding blanks and forms of Unicode of class names are ignored.

    Args:
        target: images, labelled or not.
        classes: names of the source's classes.
        leave_out: leave out images of classes that the source lacks, with a note in the provenance.
        remedy: what to do about such classes if they are not left out and other classes are shared.

    Returns:
        The target, and why it cannot be measured (empty if it can). A target that cannot be measured has no labels.

    Raises:
        InputError: `leave_out` is on, and the target has no labels or none of the source's classes.
    """
    if target.labels is None:
        if leave_out:
            raise InputError(
                f"{target.provenance.source} has no labels, which --data.classes source needs; remove the setting."
            )
        return target, f"{target.provenance.source} has no labels."
    if target.classes == classes:
        return target, ""
    positions = {class_key(name): index for index, name in enumerate(classes)}
    own = [class_key(name) for name in target.classes]
    if len(positions) < len(classes) or len(set(own)) < len(own):
        positions, own = {name: index for index, name in enumerate(classes)}, list(target.classes)
    extra = [name for name, plain in zip(target.classes, own, strict=True) if plain not in positions]
    if extra and leave_out:
        return with_classes_of(_without(target, extra, classes), classes)
    if extra:
        why = (
            f"{target.provenance.source} has classes that the source does not have ({_listed(extra)}); the source has "
            f"{_listed(classes)}. {remedy if len(extra) < len(target.classes) else RENAME}."
        )
        noted = replace(target.provenance, notes=(*target.provenance.notes, f"Used without labels: {why}"))
        return replace(target.without_labels(), provenance=noted, groups=target.groups), why
    return target.relabelled([positions[name] for name in own], classes), ""


def _without(target: ImageSet, extra: Sequence[str], classes: Sequence[str]) -> ImageSet:
    """Return the target without the classes `extra` and their images."""
    assert target.labels is not None
    kept = np.array([name not in extra for name in target.classes])
    chosen = kept[target.labels]
    if not chosen.any():
        raise InputError(
            f"No image of {target.provenance.source} has a class of the source ({_listed(classes)}); its classes are "
            f"{_listed(target.classes)}. {RENAME}."
        )
    left_out = len(target) - int(chosen.sum())
    what = f"Left out {left_out:,} of {len(target):,} {LEFT_OUT}"
    text = f"{what}, of {{count:class}} that the source lacks: {{names}}."
    names = tuple(name for name in target.classes if name not in extra)
    title = target.provenance.title.replace(f", {len(target.classes)} classes", f", {plural(len(names), 'class')}")
    noted = replace(target.provenance, title=title, notes=(*target.provenance.notes, *note(text, extra)))
    left = replace(target.select(chosen), provenance=noted)
    return left.relabelled((kept.cumsum() - 1).clip(min=0).tolist(), names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... {len(names):,} in all" if len(names) > 5 else "")


def _describe(spec: str, parts: Split, digests: dict[str, str]) -> dict[str, Any]:
    origin = parts.train.provenance
    sizes = {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)}
    return {
        "spec": spec,
        "title": origin.title,
        "count": sum(sizes.values()),
        **sizes,
        **digests,
        "licence": origin.licence,
        "citation": origin.citation,
        "notes": [*origin.notes, *parts.notes],
    }


def paths(config: BaselineConfig, current: BaselineConfig, run: Path) -> dict[str, dict[str, str]]:
    """Return the places of the sources for run.json of the run folder `run`; `current` has their current places."""
    return written(_places(config), _places(current), run)


def _places(config: BaselineConfig) -> dict[str, str]:
    masks = config.losses.content_mask if isinstance(config, PixelDAConfig) and config.losses.content else "pixels"
    return {"source": config.source, "target": config.target, "masks": "" if masks == "pixels" else masks}


def _at(config: BaselineConfig, places: dict[str, str]) -> BaselineConfig:
    changes: dict[str, Any] = {name: places[name] for name in ("source", "target") if name in places}
    if "masks" in places:
        assert isinstance(config, PixelDAConfig)
        changes["losses"] = config.losses.model_copy(update={"content_mask": places["masks"]})
    return config.model_copy(update=changes)


FILE = "seen.safetensors"
_HASHES = "hashes"
_ITEMS = "items."


@dataclass(frozen=True)
class SeenImages:
    """Images in the training splits of both domains, validation images of the source among them."""

    hashes: NDArray[np.int64]
    """Their `image_hashes`, sorted."""
    items: dict[str, NDArray[np.int64]]
    """The items that they show, per collection, sorted."""

    @classmethod
    def of(cls, domains: Domains) -> "SeenImages":
        """Return the images of both training splits and of the source's validation split.

        A baseline trains on the source alone. It is measured without the target's, too, to be compared with adapted runs.
        """
        parts = [domains.source.train, domains.source.validation]
        parts += [] if domains.target is None else [domains.target.train]
        items: dict[str, list[NDArray[np.int64]]] = {}
        for part in parts:
            if part.collection is not None and part.items is not None:
                items.setdefault(part.collection, []).append(part.items)
        return cls(_sorted(image_hashes(part.images) for part in parts), {name: _sorted(of) for name, of in items.items()})

    def save(self, folder: RunFolder) -> None:
        """Write the hashes and items into a run folder."""
        tensors = {_HASHES: self.hashes} | {f"{_ITEMS}{name}": values for name, values in self.items.items()}
        with atomic_file(folder.path / FILE) as temporary:
            temporary.write_bytes(save(tensors))

    @classmethod
    def load(cls, folder: RunFolder) -> "SeenImages | None":
        """Read what `save` wrote; None for a run of an earlier version, which stored nothing."""
        path = folder.path / FILE
        if not path.is_file():
            return None
        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}); restore it, or train again.") from None
        if _HASHES not in found:
            raise InputError(f"{path} is damaged (it has no hashes); restore it, or train again.")
        items = {name.removeprefix(_ITEMS): values for name, values in found.items() if name.startswith(_ITEMS)}
        return cls(found[_HASHES], items)

    def holds(self, images: ImageSet) -> NDArray[np.bool_]:
        """Return a bool mask (N,): True if the image was seen, or its item (digit) was seen in another image."""
        seen = np.isin(image_hashes(images.images), self.hashes)
        if images.items is not None and images.collection in self.items:
            seen |= np.isin(images.items, self.items[images.collection])
        return seen


def _sorted(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([*parts, np.empty(0, np.int64)]))


def load_content_masks(config: BaselineConfig, domains: Domains, data_root: Path | None = None) -> ImageSet | None:
    """Return the masks of the source's training images, see `load_masks`; None if the configuration uses none.

    Raises:
        InputError: masks cannot be read, or their number or names do not match the images.
    """
    if not isinstance(config, PixelDAConfig) or config.losses.content_mask == "pixels":
        return None
    source = config.losses.content_mask
    if not config.losses.content:
        _log.warning("--losses.content-mask %s is not used, because --losses.content is 0.", source)
        return None
    masks = load_masks(source, config.data.size, data_root)
    if len(masks) != domains.source.count:
        raise InputError(
            f"--losses.content-mask has {len(masks)} masks for {domains.source.count} source images; "
            "give one per image, in the order of the images."
        )
    training = masks.select(domains.source.training_positions)
    require_same_names(training, domains.source.train)
    return training
