"""Who is in the test split, and who in the validation split."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pixelscope.data.imageset import ImageSet
from pixelscope.errors import InputError


@dataclass(frozen=True)
class Split:
    """Three parts of one set, without overlap."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    training_positions: Tensor
    """Where the training images lie in the whole set, int64, in the order of `train`."""

    @property
    def count(self) -> int:
        """Return the number of images of the whole set."""
        return len(self.train) + len(self.validation) + len(self.test)


def random_test_mask(count: int, fraction: float, seed: int) -> Tensor:
    """Return a bool mask (count,) that is True for one random `fraction` of the indices, a function of the three arguments.

    A fraction above 0 marks at least one index of two or more.
    """
    mask = torch.zeros(count, dtype=torch.bool)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    marked = max(round(count * fraction), int(fraction > 0 and count > 1))
    mask[order[:marked]] = True
    return mask


def shared_test_mask(source: ImageSet, target: ImageSet, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the test masks of two domains.

    Aligned sets (image i of both shows the same item) share one mask, so that no test digit is seen in training in
    either domain: the mask that came with the target, which was made from the source, else a random one. Other sets
    keep the split they come with, or get a random one.
    """
    if source.is_aligned_with(target):
        mask = target.test if target.test is not None else random_test_mask(len(source), fraction, seed)
        return mask, mask
    return own_test_mask(source, fraction, seed), own_test_mask(target, fraction, seed)


def own_test_mask(images: ImageSet, fraction: float, seed: int) -> Tensor:
    """Return the test mask that a set comes with, or a random one."""
    return images.test if images.test is not None else random_test_mask(len(images), fraction, seed)


def split(images: ImageSet, test: Tensor, validation_fraction: float, seed: int) -> Split:
    """Divide `images` by the mask `test`, and hold a random `validation_fraction` of the rest out for validation."""
    rest = (~test).nonzero().flatten()
    held_out = random_test_mask(len(rest), validation_fraction, seed + 1)
    if len(rest) - int(held_out.sum()) < 1 or not bool(test.any()):
        raise InputError(
            f"{images.provenance.source} has {len(images)} image(s), too few to hold out a test split; give at least 2 a class."
        )
    training = rest[~held_out]
    return Split(images.select(training), images.select(rest[held_out]), images.select(test), training)
