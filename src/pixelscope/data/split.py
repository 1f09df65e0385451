"""Split sets of images into training, validation and test."""

import re
from array import array
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.disk_array import Positions
from pixelscope.data.imageset import ImageSet, Mask, image_hashes
from pixelscope.errors import InputError, note, plural


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of a set."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    training_positions: Positions
    """Positions of the training images in the whole set, int64, in the order of `train`."""
    notes: tuple[str, ...] = ()
    """Notes on copies, on groups, and on classes without images in a part."""
    leaks: tuple[str, ...] = ()
    """Those of the notes that say that test images are copies of images that are trained on or chosen by."""

    @property
    def count(self) -> int:
        """Return the number of images of the whole set."""
        return len(self.train) + len(self.validation) + len(self.test)


def random_test_mask(count: int, fraction: float, seed: int, together: Positions | None = None) -> Mask:
    """Return a bool mask (count,) that is True for one random `fraction` of the indices, a function of the arguments.

    A fraction above 0 marks at least one of two or more indices. Indices with equal numbers in `together` are kept together:
    all are marked, or none if they would exceed the fraction. If all numbers differ, `together` has no effect.
    """
    mask = np.zeros(count, np.bool_)
    order = permutation(count, seed)
    marked = max(round(count * fraction), int(fraction > 0 and count > 1))
    if together is None:
        mask[order[:marked]] = True
        return mask
    group = _numbered(together)
    return np.isin(group, _chosen_groups(group[order], marked))


def _chosen_groups(order: Positions, marked: int) -> Positions:
    """Return groups with at most `marked` members in total: the first that fit, in the order of their first members.

    If the smallest group has more than `marked` members, and is not the only one, it is chosen alone.
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
    return np.array(chosen, np.int64)


def _numbered(values: Positions) -> Positions:
    """Return values renumbered from 0, equal for equal values, in their order."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def find_copies(images: ImageSet) -> Positions | None:
    """Return a number per image, int64 (N,), equal for images with the same pixels; None if all images differ."""
    groups = _numbered(image_hashes(images.images))
    return None if groups.max(initial=-1) + 1 == len(images) else groups


def group_by_name(images: ImageSet, pattern: str) -> ImageSet:
    """Return the images with `groups`: images whose names match the same text in the first group of `pattern` belong together.

    An image whose name does not match is its own group. If no name matches, there are no groups.
    """
    found = [re.search(pattern, name) for name in images.names]
    texts = [None if match is None else match[1] for match in found]
    numbers: dict[str, int] = {}
    for text in texts:
        if text is not None:
            numbers.setdefault(text, len(numbers))
    if not numbers:
        return images
    groups = [len(numbers) + i if text is None else numbers[text] for i, text in enumerate(texts)]
    return replace(images, groups=_numbered(np.array(groups)))


def shared_test_mask(source: ImageSet, target: ImageSet, fraction: float, seed: int) -> tuple[Mask, Mask]:
    """Return the test masks of two domains.

    Aligned sets (image i of both shows the same item) share a mask, so that no test digit is seen in training in either
    domain: the target's own mask, which was made from the source, else a random one. Other sets keep their own split, or get a
    random one. A random mask never separates copies or groups, in either domain.
    """
    if source.is_aligned_with(target):
        if target.test is not None:
            return target.test, target.test
        mask = random_test_mask(len(source), fraction, seed, _joined(_together(source), _together(target)))
        return mask, mask
    return own_test_mask(source, fraction, seed), own_test_mask(target, fraction, seed)


def own_test_mask(images: ImageSet, fraction: float, seed: int) -> Mask:
    """Return a set's own test mask, or a random one that never separates copies or groups."""
    return images.test if images.test is not None else random_test_mask(len(images), fraction, seed, _together(images))


def _together(images: ImageSet) -> Positions | None:
    """Return a number per image, equal for images that are kept together: copies, and members of a group."""
    return _joined(find_copies(images), images.groups)


def _joined(one: Positions | None, other: Positions | None) -> Positions | None:
    """Return the finest grouping that keeps images together if either of two groupings does."""
    if one is None or other is None:
        return other if one is None else one
    both = [_numbered(numbers) for numbers in (one, other)]
    groups, before = np.arange(len(one)), None
    while before is None or not np.array_equal(groups, before):
        before = groups
        for grouping in both:
            least = np.full(len(one), len(one))
            np.minimum.at(least, grouping, groups)
            groups = least[grouping]
    return groups


def split(images: ImageSet, test: Mask, validation_fraction: float, seed: int) -> Split:
    """Split `images` by the mask `test`, and hold out a random `validation_fraction` of the rest for validation."""
    copies = find_copies(images)
    together = _joined(copies, images.groups)
    rest = np.flatnonzero(~test)
    held_out = random_test_mask(len(rest), validation_fraction, seed + 1, None if together is None else together[rest])
    if len(rest) - int(held_out.sum()) < 1 or not bool(test.any()):
        raise InputError(_too_few(images, copies))
    training = rest[~held_out]
    part = np.zeros(len(images), np.int64)
    part[rest[held_out]], part[test] = 1, 2
    leaks = _leaks(copies, part)
    about = (*_copy_notes(images, copies, leaks), *_group_notes(images, part, validation_fraction), *_class_notes(images, part))
    return Split(images.select(training), images.select(rest[held_out]), images.select(test), training, about, leaks)


def _too_few(images: ImageSet, copies: Positions | None) -> str:
    which = "that are not all copies of one image" if copies is not None else ""
    which += ", and more than one group of --data.group-by" if images.groups is not None else ""
    what = f"{images.provenance.source} has {plural(len(images), 'image')}, too few to hold out a test split"
    return f"{what}; give at least 2 per class{which}."


def _group_notes(images: ImageSet, part: Positions, validation_fraction: float) -> tuple[str, ...]:
    """Return notes on the number of groups, and on groups that a split separates; `part` is as for `_leaks`."""
    if images.groups is None:
        return ()
    sizes = np.bincount(images.groups)
    parted = _parted(images.groups, part)
    across = f"{parted:,} test images belong to groups with images in training or validation, in the data's own split"
    what = (
        f"{len(images):,} images are in {int((sizes > 0).sum()):,} groups by their names, the largest of {int(sizes.max()):,}"
    )
    without = validation_fraction > 0 and not (part == 1).any()
    return (
        f"{what}; {across if parted else 'each group is in one part of the split'}.",
        *(["The groups are so large that none is held out for validation."] if without else []),
    )


def _leaks(copies: Positions | None, part: Positions) -> tuple[str, ...]:
    """Return a note on test images that are copies of others; `part` is 0 for training, 1 for validation, 2 for test, (N,)."""
    parted = 0 if copies is None else _parted(copies, part)
    if not parted:
        return ()
    return (f"{parted:,} test images are exact copies of images in training or validation, in the data's own split.",)


def _copy_notes(images: ImageSet, copies: Positions | None, leaks: tuple[str, ...]) -> tuple[str, ...]:
    """Return notes on copies, on those across the split (`leaks`), and on those with different labels."""
    if copies is None:
        return ()
    sizes = np.bincount(copies)
    extra, groups = int((sizes - 1).clip(min=0).sum()), int((sizes > 1).sum())
    what = f"{extra:,} of {len(images):,} images are exact copies of others, in {groups:,} groups"
    notes = [f"{what}.", *leaks] if leaks else [f"{what}; each group is in one part of the split."]
    different = 0 if images.labels is None else _differing(copies, images.labels)
    return (*notes, *([f"The copies of {different:,} groups have different labels."] if different else ()))


def _differing(copies: Positions, labels: Positions) -> int:
    """Return the number of groups of copies with more than one label."""
    classes = int(labels.max()) + 1
    return int((np.bincount(np.unique(copies * classes + labels) // classes) > 1).sum())


def _parted(groups: Positions, part: Positions) -> int:
    """Return the number of test images whose group has images in other parts."""
    elsewhere = np.bincount(groups, part != 2) > 0
    return int((elsewhere[groups] & (part == 2)).sum())


def _class_notes(images: ImageSet, part: Positions) -> tuple[str, ...]:
    """Return notes on classes without images, without training images, and without test images."""
    if images.labels is None:
        return ()
    counts = [np.bincount(images.labels[part == number], minlength=len(images.classes)).tolist() for number in range(3)]
    absent = [name for name, *each in zip(images.classes, *counts, strict=True) if not any(each)]
    notes = list(note("{count:class} without an image: {names}.", absent))
    for name, train, validation, test in zip(images.classes, *counts, strict=True):
        if (not train or not test) and name not in absent:
            missing = " and ".join(what for what, count in (("training", train), ("test", test)) if not count)
            counted = f"{train:,} in training, {validation:,} in validation, {test:,} in test"
            notes.append(f"The class {name} has no {missing} image: {counted}.")
    return tuple(notes)


_BLOCK = 1 << 20
"""Random numbers per block."""


def permutation(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of `count` items, int64 (count,), a function of the arguments.

    Equal to `torch.randperm(count, generator=torch.Generator().manual_seed(seed))` for fewer than 2^32 / 20 items, so that
    splits and samples drawn with torch stay the same.
    """
    # NumPy's legacy generator is seeded as torch's is: MT19937 from the low 32 bits, by the reference's `init_genrand`.
    draw = np.random.RandomState(seed & 0xFFFFFFFF)
    order = array("q", range(count))
    for start in range(0, count - 1, _BLOCK):
        places = np.arange(start, min(start + _BLOCK, count - 1))
        raw = draw.randint(0, 2**32, len(places), np.uint32)
        for place, other in enumerate((places + raw % (count - places)).tolist(), start):
            order[place], order[other] = order[other], order[place]
    return np.frombuffer(order, np.int64) if count else np.empty(0, np.int64)
