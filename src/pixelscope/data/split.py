"""Who is in the test split, and who in the validation split."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixelscope.data.imageset import ImageSet, image_hashes
from pixelscope.errors import InputError


@dataclass(frozen=True)
class Split:
    """Three parts of one set, without overlap."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    training_positions: Tensor
    """Where the training images lie in the whole set, int64, in the order of `train`."""
    notes: tuple[str, ...] = ()
    """Copies among the images, and classes that a part has no image of."""

    @property
    def count(self) -> int:
        """Return the number of images of the whole set."""
        return len(self.train) + len(self.validation) + len(self.test)


def random_test_mask(count: int, fraction: float, seed: int, copies: Tensor | None = None) -> Tensor:
    """Return a bool mask (count,) that is True for one random `fraction` of the indices, a function of the arguments.

    A fraction above 0 marks at least one index of two or more. `copies`, from `find_copies`, keeps images together that are
    the same: a group is marked as a whole, or not at all where it would exceed the fraction. Without copies they make no
    difference.
    """
    mask = torch.zeros(count, dtype=torch.bool)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    marked = max(round(count * fraction), int(fraction > 0 and count > 1))
    if copies is None:
        mask[order[:marked]] = True
        return mask
    _, group = copies.unique(return_inverse=True)
    return torch.isin(group, _chosen_groups(group[order].numpy(), marked))


def _chosen_groups(order: np.ndarray, marked: int) -> Tensor:
    """Return groups of at most `marked` members together, the first that fit, in the order in which their members come.

    Where the smallest group is larger than `marked`, and not all there is, it is chosen alone.
    """
    _, first, sizes = np.unique(order, return_index=True, return_counts=True)
    chosen, count = [], 0
    for group in order[np.sort(first)].tolist():
        if count == marked:
            break
        if count + sizes[group] <= marked:
            chosen.append(group)
            count += int(sizes[group])
    if not chosen and marked and len(sizes) > 1:
        chosen.append(int(sizes.argmin()))
    return torch.tensor(chosen, dtype=torch.int64)


def find_copies(images: ImageSet) -> Tensor | None:
    """Return a number per image, int64 (N,), the same for images of the same pixels; None where no two are the same."""
    different, groups = torch.from_numpy(image_hashes(images.images)).unique(return_inverse=True)
    return None if len(different) == len(images) else groups


def shared_test_mask(source: ImageSet, target: ImageSet, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the test masks of two domains.

    Aligned sets (image i of both shows the same item) share one mask, so that no test digit is seen in training in
    either domain: the mask that came with the target, which was made from the source, else a random one. Other sets
    keep the split they come with, or get a random one. A random mask does not part copies, in either domain.
    """
    if source.is_aligned_with(target):
        if target.test is not None:
            return target.test, target.test
        mask = random_test_mask(len(source), fraction, seed, _joined(find_copies(source), find_copies(target)))
        return mask, mask
    return own_test_mask(source, fraction, seed), own_test_mask(target, fraction, seed)


def own_test_mask(images: ImageSet, fraction: float, seed: int) -> Tensor:
    """Return the test mask that a set comes with, or a random one, which does not part copies."""
    return images.test if images.test is not None else random_test_mask(len(images), fraction, seed, find_copies(images))


def _joined(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return groups that keep together whatever is together in either of two groupings."""
    if one is None or other is None:
        return other if one is None else one
    groups, before = torch.arange(len(one)), None
    while before is None or not torch.equal(groups, before):
        before = groups
        for grouping in (one, other):
            least = torch.full((len(one),), len(one)).scatter_reduce(0, grouping, groups, "amin")
            groups = least[grouping]
    return groups


def split(images: ImageSet, test: Tensor, validation_fraction: float, seed: int) -> Split:
    """Divide `images` by the mask `test`, and hold a random `validation_fraction` of the rest out for validation."""
    copies = find_copies(images)
    rest = (~test).nonzero().flatten()
    held_out = random_test_mask(len(rest), validation_fraction, seed + 1, None if copies is None else copies[rest])
    if len(rest) - int(held_out.sum()) < 1 or not bool(test.any()):
        raise InputError(
            f"{images.provenance.source} has {len(images)} image(s), too few to hold out a test split; give at least 2 a class"
            f"{'' if copies is None else ', and not copies of one image alone'}."
        )
    training = rest[~held_out]
    part = torch.zeros(len(images), dtype=torch.int64)
    part[rest[held_out]], part[test] = 1, 2
    notes = (*_copy_notes(images, copies, part), *_class_notes(images, part))
    return Split(images.select(training), images.select(rest[held_out]), images.select(test), training, notes)


def _copy_notes(images: ImageSet, copies: Tensor | None, part: Tensor) -> tuple[str, ...]:
    """Say how many images are copies, whether they stand on both sides of the split, and whether their labels differ.

    part: 0 for training, 1 for validation, 2 for the test, int64 (N,).
    """
    if copies is None:
        return ()
    sizes = torch.bincount(copies)
    extra, groups = int((sizes - 1).clamp(min=0).sum()), int((sizes > 1).sum())
    what = f"{extra:,} of {len(images):,} images are exact copies of others, in {groups:,} groups"
    both = _among(copies, part != 2) & _among(copies, part == 2)
    parted = int((both[copies] & (part == 2)).sum())
    across = f"{parted:,} test images are exact copies of images in training or validation, by the split that came with them."
    notes = [f"{what}.", across] if parted else [f"{what}; each group lies in one part of the split."]
    different = 0 if images.labels is None else _differing(copies, images.labels)
    return (*notes, *([f"The copies of {different:,} groups have different labels."] if different else ()))


def _differing(copies: Tensor, labels: Tensor) -> int:
    """Return how many groups of copies have more than one label."""
    none = torch.zeros(int(copies.max()) + 1, dtype=torch.int64)
    least, greatest = (none.scatter_reduce(0, copies, labels, reduce, include_self=False) for reduce in ("amin", "amax"))
    return int((least != greatest).sum())


def _among(copies: Tensor, chosen: Tensor) -> Tensor:
    """Return whether each group has a member among the `chosen` images."""
    return torch.bincount(copies, chosen.double(), minlength=int(copies.max()) + 1) > 0


def _class_notes(images: ImageSet, part: Tensor) -> tuple[str, ...]:
    """Name the classes without an image for training, or for the test."""
    if images.labels is None:
        return ()
    counts = [torch.bincount(images.labels[part == number], minlength=len(images.classes)).tolist() for number in range(3)]
    notes = []
    for name, train, validation, test in zip(images.classes, *counts, strict=True):
        if not train or not test:
            missing = " and ".join(what for what, count in (("training", train), ("test", test)) if not count)
            counted = f"{train:,} in training, {validation:,} in validation, {test:,} in test"
            notes.append(f"The class {name} has no {missing} image: {counted}.")
    return tuple(notes)
