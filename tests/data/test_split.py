"""Random splits: which images they hold out, copies that stay together, classes that a part has no image of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.split import find_copies, group_by_name, own_test_mask, random_test_mask, shared_test_mask, split
from pixelscope.errors import InputError


def images_of(values: list[int], labels: list[int] | None = None, test: list[bool] | None = None) -> ImageSet:
    """Return one plain image (1, 2, 2) per value."""
    return ImageSet(
        np.array(values, np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3),
        Provenance("made", "made"),
        None if labels is None else np.array(labels),
        ("a", "b", "rare") if labels is not None else (),
        test=None if test is None else np.array(test),
    )


def parts_of(images: ImageSet, mask: NDArray[np.bool_]) -> list[set[int]]:
    values = images.in_memory()[:, 0, 0, 0]
    return [set(values[chosen].tolist()) for chosen in (mask, ~mask)]


@pytest.mark.parametrize(("count", "fraction", "seed"), [(50, 0.2, 0), (51, 0.33, 7), (2, 0.01, 1), (10, 0.0, 0)])
def test_without_copies_the_mask_is_that_of_a_permutation(count: int, fraction: float, seed: int) -> None:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    marked = max(round(count * fraction), 1 if fraction else 0)
    expected = [index in order[:marked] for index in range(count)]
    assert random_test_mask(count, fraction, seed).tolist() == expected
    assert random_test_mask(count, fraction, seed, np.arange(count)[::-1]).tolist() == expected
    assert own_test_mask(images_of(list(range(count))), fraction, seed).tolist() == expected


@given(st.lists(st.integers(0, 20), min_size=2, max_size=60), st.floats(0.05, 0.6), st.integers(0, 5))
def test_copies_are_never_parted(values: list[int], fraction: float, seed: int) -> None:
    images = images_of(values)
    mask = own_test_mask(images, fraction, seed)
    test, rest = parts_of(images, mask)
    assert not test & rest
    if len(set(values)) > 1:
        assert test
        assert rest
        smallest = min(values.count(value) for value in set(values))
        assert mask.sum() <= max(round(len(values) * fraction), smallest)


def test_validation_parts_no_copies_either() -> None:
    images = images_of([value // 2 for value in range(80)])
    parts = split(images, own_test_mask(images, 0.2, 3), 0.2, 3)
    shown = [set(part.in_memory()[:, 0, 0, 0].tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in shown] == [26, 6, 8]
    assert sum(map(len, shown)) == 40
    assert parts.count == 80
    assert parts.notes == ("40 of 80 images are exact copies of others, in 40 groups; each group is in one part of the split.",)


def test_validation_is_drawn_from_what_the_test_leaves() -> None:
    images = images_of(list(range(50)))
    mask = own_test_mask(images, 0.2, 3)
    rest = np.flatnonzero(~mask)
    held = random_test_mask(40, 0.25, 4)
    parts = split(images, mask, 0.25, 3)
    assert parts.training_positions.tolist() == rest[~held].tolist()
    assert parts.train.in_memory()[:, 0, 0, 0].tolist() == rest[~held].tolist()
    assert parts.validation.in_memory()[:, 0, 0, 0].tolist() == rest[held].tolist()
    assert parts.test.in_memory()[:, 0, 0, 0].tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_groups_larger_than_the_fraction_leave_the_smallest_for_the_test(seed: int) -> None:
    values = [1] * 6 + [2] * 5 + [3] * 7
    assert own_test_mask(images_of(values), 0.1, seed).tolist() == [value == 2 for value in values]


def test_what_cannot_be_divided_is_not() -> None:
    assert not own_test_mask(images_of([7] * 4), 0.5, 0).any()
    assert random_test_mask(1, 0.5, 0).tolist() == [False]


def _shown(values: list[int], collection: str | None, test: list[bool] | None = None) -> ImageSet:
    images = images_of(values, test=test)
    items = np.arange(len(values))
    return ImageSet(
        images.images, images.provenance, test=images.test, collection=collection, items=items if collection else None
    )


def test_aligned_sets_share_the_split_that_came_with_the_target() -> None:
    own = [index % 3 == 0 for index in range(12)]
    masks = shared_test_mask(_shown(list(range(12)), "x"), _shown(list(range(12)), "x", own), 0.2, 0)
    assert [mask.tolist() for mask in masks] == [own, own]


def test_sets_that_are_not_aligned_have_splits_of_their_own() -> None:
    source, target = _shown(list(range(30)), None), _shown(list(range(20)), None, [True] + [False] * 19)
    of_source, of_target = shared_test_mask(source, target, 0.2, 0)
    assert np.array_equal(of_source, random_test_mask(30, 0.2, 0))
    assert of_target.tolist() == [True] + [False] * 19


@pytest.mark.parametrize("swapped", [False, True])
def test_copies_in_one_of_two_aligned_sets_stay_together(swapped: bool) -> None:
    sets = [_shown([i // 2 for i in range(60)], "x"), _shown(list(range(60)), "x")]
    source, target = sets[::-1] if swapped else sets
    mask, _ = shared_test_mask(source, target, 0.2, 1)
    test, rest = parts_of(sets[0], mask)
    assert test
    assert not test & rest


def test_copies_in_either_of_two_aligned_sets_stay_together() -> None:
    items = np.arange(60)
    source, target = (
        ImageSet(images_of(values).images, Provenance("made", "made"), collection="x", items=items)
        for values in ([i // 2 for i in range(60)], [(i + 1) // 2 for i in range(50)] + list(range(100, 110)))
    )
    for seed in range(5):
        mask, other = shared_test_mask(source, target, 0.2, seed)
        assert np.array_equal(mask, other)
        for images in (source, target):
            test, rest = parts_of(images, mask)
            assert not test & rest


def test_copies_across_a_split_that_came_with_the_set_are_counted() -> None:
    images = images_of([1, 2, 3, 1, 1, 4], test=[False, False, False, True, True, True])
    assert images.test is not None
    parts = split(images, images.test, 0.0, 0)
    assert len(parts.test) == 3
    assert parts.notes[0] == "2 of 6 images are exact copies of others, in 1 groups."
    assert parts.notes[1].startswith("2 test images are exact copies of images in training")
    assert parts.leaks == parts.notes[1:2]


def test_copies_with_different_labels_are_counted() -> None:
    images = images_of([1, 1, 2, 2, 3, 4], [0, 1, 0, 0, 1, 2])
    notes = split(images, np.array([False, False, False, False, True, True]), 0.0, 0).notes
    assert "The copies of 1 groups have different labels." in notes


@pytest.mark.parametrize(
    ("test", "missing"),
    [([False, True, False, True, False], "test image: 1 in training, 0 in validation, 0 in test"),
     ([False, True, False, True, True], "training image: 0 in training, 0 in validation, 1 in test")],
)  # fmt: skip
def test_a_class_that_a_part_has_no_image_of_is_named(test: list[bool], missing: str) -> None:
    images = images_of([1, 2, 3, 4, 5], [0, 0, 1, 1, 2])
    assert split(images, np.array(test), 0.0, 0).notes == (f"The class rare has no {missing}.",)


def test_without_copies_there_are_none() -> None:
    assert find_copies(images_of([1, 2, 3])) is None
    copies = find_copies(images_of([5, 2, 5, 9]))
    assert copies is not None
    assert [copies[0] == copies[i] for i in range(4)] == [True, False, True, False]


def test_one_image_in_copies_is_too_few() -> None:
    images = images_of([7] * 10)
    with pytest.raises(InputError, match="too few .*copies of one image"):
        split(images, own_test_mask(images, 0.2, 0), 0.0, 0)


# --- groups by name ---------------------------------------------------------------------------------------------------

TRACK = r"^(\d+/\d+)_"


def named(names: list[str], values: list[int] | None = None) -> ImageSet:
    return replace(images_of(values or list(range(len(names)))), names=names)


def test_the_first_group_of_the_pattern_decides_and_other_names_are_groups_of_their_own() -> None:
    names = ["0/1_1.png", "0/1_2.png", "1/1_1.png", "loose.png", "0/1_3.png", "x.png"]
    groups = group_by_name(named(names), TRACK).groups
    assert groups is not None
    assert [np.flatnonzero(groups == one).tolist() for one in groups] == [
        [0, 1, 4], [0, 1, 4], [2], [3], [0, 1, 4], [5],
    ]  # fmt: skip
    assert group_by_name(named(["a.png", "b.png"]), TRACK).groups is None
    assert group_by_name(images_of([1, 2]), TRACK).groups is None


def test_a_group_that_takes_no_part_in_the_match_is_no_match() -> None:
    groups = group_by_name(named(["a1", "b", "b"]), r"(?:a(\d))|b").groups
    assert groups is not None and len(np.unique(groups)) == 3


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=3, max_size=60, unique=False),
    st.floats(0.05, 0.6),
    st.integers(0, 5),
)
def test_neither_groups_nor_copies_are_parted(tracks: list[tuple[int, int]], fraction: float, seed: int) -> None:
    """Image i has a track and a value; images of one value are copies, and what either joins stays together."""
    names, values = [f"0/{track}_{i}.png" for i, (track, _) in enumerate(tracks)], [value for _, value in tracks]
    images = group_by_name(named(names, values), TRACK)
    mask = own_test_mask(images, fraction, seed)
    try:
        parts = split(images, mask, 0.3, seed)
    except InputError:
        assert mask.sum() in (0, len(tracks)), "all are joined"
        return
    seen = [
        ({name.split("_")[0] for name in part.names}, set(part.in_memory()[:, 0, 0, 0].tolist()))
        for part in (parts.train, parts.validation, parts.test)
    ]
    for i, (groups, pixels) in enumerate(seen):
        for others, other_pixels in seen[:i]:
            assert not groups & others
            assert not pixels & other_pixels


def test_the_share_of_the_test_is_that_of_images_not_of_groups() -> None:
    names = [f"0/{track}_{i}.png" for track in range(100) for i in range(1 + track % 7)]
    pixels = np.arange(4 * len(names)).reshape(-1, 1, 2, 2)
    different = ImageSet(np.concatenate([pixels // 256, pixels % 256], 2).astype(np.uint8), Provenance("a", "a"), names=names)
    for seed in range(5):
        mask = own_test_mask(group_by_name(different, TRACK), 0.25, seed)
        assert abs(float(mask.mean()) - 0.25) < 0.02


def test_groups_are_counted_in_the_notes() -> None:
    images = group_by_name(named([f"0/{i // 3}_{i}.png" for i in range(30)]), TRACK)
    notes = split(images, own_test_mask(images, 0.2, 0), 0.2, 0).notes
    assert notes == ("30 images are in 10 groups by their names, the largest of 3; each group is in one part of the split.",)
    given_split = replace(images, test=np.arange(30) >= 20)
    assert given_split.test is not None
    notes = split(given_split, given_split.test, 0.0, 0).notes
    assert "1 test images belong to groups with images in training or validation" in notes[0]


def test_a_group_too_large_to_leave_a_validation_part_is_said() -> None:
    images = group_by_name(named([f"0/{i // 10}_{i}.png" for i in range(20)]), TRACK)
    parts = split(images, own_test_mask(images, 0.2, 0), 0.2, 0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (10, 0, 10)
    assert any("none is held out for validation" in note for note in parts.notes)


def test_groups_in_either_of_two_aligned_sets_stay_together() -> None:
    items = np.arange(40)
    source, target = (
        group_by_name(replace(named([f"0/{(i + offset) // 4}_{i}.png" for i in range(40)]), collection="x", items=items), TRACK)
        for offset in (0, 1)
    )
    assert source.groups is not None
    source = replace(source, names=[], groups=None)
    mask, other = shared_test_mask(source, target, 0.25, 2)
    assert np.array_equal(mask, other)
    tracks = (items + 1) // 4
    assert not set(tracks[mask].tolist()) & set(tracks[~mask].tolist())


def test_a_training_target_keeps_no_groups() -> None:
    images = group_by_name(named(["0/1_1.png", "0/1_2.png", "0/2_1.png"]), TRACK)
    assert images.without_labels().groups is None
    selected = images.select(np.array([2, 0]))
    assert selected.groups is not None and len(np.unique(selected.groups)) == 2
    with pytest.raises(InputError, match="3 images but 2 groups"):
        replace(images, groups=np.array([0, 1]))


def test_some_of_grouped_images_with_copies_can_be_split() -> None:
    images = group_by_name(named([f"0/{i // 2}_{i}.png" for i in range(20)], [i // 3 for i in range(20)]), TRACK)
    some = images.select(np.arange(12, 20))
    mask = own_test_mask(some, 0.4, 0)
    assert mask.any() and not mask.all()
    tracks = np.arange(12, 20) // 2
    assert not set(tracks[mask].tolist()) & set(tracks[~mask].tolist())


@pytest.mark.parametrize(("test", "fraction"), [([True] * 4, 0.0), ([False] * 4, 0.0), ([True, False, False, False], 1.0)])
def test_a_split_without_training_or_test_images_is_refused(test: list[bool], fraction: float) -> None:
    with pytest.raises(InputError, match="too few"):
        split(images_of([1, 2, 3, 4]), np.array(test), fraction, 0)
