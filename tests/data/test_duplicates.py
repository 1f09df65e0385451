"""Near-duplicates: what changes a perceptual hash, and which frames are clustered."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import DBSCAN

from fixtures.frames import drawn
from pixelscope.data.formats.decode import read_all
from pixelscope.data.frames import duplicates
from pixelscope.data.frames.duplicates import DISTANCE, clusters, perceptual_hash
from pixelscope.data.sources.listing import image_files

Bytes = NDArray[np.uint8]


def bits_apart(first: Bytes, second: Bytes) -> int:
    return (perceptual_hash(first) ^ perceptual_hash(second)).bit_count()


def frame(seed: int) -> Bytes:
    return drawn(seed, 116, 106)[4:100, 8:104]


def compressed(image: Bytes) -> Bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


def with_inset(image: Bytes) -> Bytes:
    image = image.copy()
    image[70:, :30] = 0
    return image


@pytest.mark.parametrize(
    "change",
    [
        lambda image: (image * 0.8).astype(np.uint8),
        compressed,
        lambda image: cv2.resize(image, (200, 200), interpolation=cv2.INTER_CUBIC),
        lambda image: np.roll(image, 1, axis=1),
    ],
    ids=["darker", "compressed", "larger", "shifted"],
)
def test_the_same_view_has_nearly_the_same_hash(change: object) -> None:
    for seed in range(10):
        assert bits_apart(frame(seed), change(frame(seed))) <= DISTANCE  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [lambda image: image[:, ::-1], np.rot90, lambda image: 255 - image],
    ids=["mirror", "turn", "negative"],
)
def test_another_view_has_another_hash(change: object) -> None:
    for seed in range(10):
        assert bits_apart(frame(seed), np.ascontiguousarray(change(frame(seed)))) > DISTANCE  # type: ignore[operator]


def test_a_shared_black_inset_makes_no_duplicates() -> None:
    apart = [bits_apart(with_inset(frame(seed)), with_inset(frame(seed + 1))) for seed in range(20)]
    assert min(apart) > DISTANCE
    assert np.median(apart) >= 24


def test_what_lies_in_the_corners_does_not_count() -> None:
    text = frame(0).copy()
    text[:8, :8] = 255
    assert perceptual_hash(text) == perceptual_hash(frame(0))


@pytest.mark.parametrize("value", [0, 255])
def test_a_plain_frame_has_a_hash(value: int) -> None:
    assert 0 <= perceptual_hash(np.full((96, 96, 3), value, np.uint8)) < 2**64


@given(st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=60), st.integers(0, 4), st.integers(1, 400))
def test_clusters_are_those_of_dbscan_without_noise(hashes: list[int], distance: int, pairs: int) -> None:
    array = np.array(hashes, np.uint64)
    expected = DBSCAN(eps=distance + 0.5, min_samples=1, metric="precomputed").fit_predict(
        np.bitwise_count(array[:, None] ^ array).astype(float)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_CHUNK_PAIRS", pairs)
        found = clusters(array, distance)
    assert found.dtype == np.int64
    # DBSCAN counts its clusters in the order of their first members, too.
    assert found.tolist() == expected.tolist()


def test_a_chain_is_one_cluster() -> None:
    assert clusters(np.array([0b1111, 0, 0b11, 0xFF << 40], np.uint64), 2).tolist() == [0, 0, 0, 1]
    assert clusters(np.array([0b1111, 0, 0b11, 0xFF << 40], np.uint64), 1).tolist() == [0, 1, 2, 3]


def test_nothing_has_no_clusters() -> None:
    assert clusters(np.array([], np.uint64)).shape == (0,)


def test_real_frames_of_one_video_cluster_and_those_of_classes_do_not(real_frames: Path) -> None:
    folders = [real_frames / name for name in ("normal-colon", "polyps")]
    files = [file for folder in folders for file in image_files(folder)[:120]]
    hashes = np.array([perceptual_hash(image) for image in read_all(files, 96)], np.uint64)
    found = clusters(hashes)
    assert not set(found[:120]) & set(found[120:])
    assert len(set(found[120:])) >= 118
    assert 50 <= len(set(found[:120])) <= 90
    assert np.bincount(found).max() <= 25


def near(value: int, bits: int) -> int:
    """Return a hash that differs in so many bits."""
    return value ^ ((1 << bits) - 1)


def test_frames_that_follow_each_other_by_name_belong_together() -> None:
    names = [f"polyps/video-{video}_{frame:04d}.jpg" for video in (1, 2) for frame in (5, 10, 15, 200)]
    draw = np.random.default_rng(0)
    bases = [int(draw.integers(0, 2**63)) for _ in range(2)]
    # Each frame 12 bits from the one before, and the last of each video as if the view had changed.
    hashes = np.array([near(base, bits) for base in bases for bits in (0, 12, 24, 50)], np.uint64)
    assert clusters(hashes, 8, names).tolist() == [0, 0, 0, 1, 2, 2, 2, 3]
    assert clusters(hashes, 8).tolist() == list(range(8))
    assert clusters(hashes, 5, names).tolist() == list(range(8))


def test_names_without_a_sequence_tell_nothing() -> None:
    hashes = np.array([near(77, bits) for bits in (0, 12, 24)], np.uint64)
    others = (["a/x.jpg", "a/y.jpg", "a/z.jpg"], ["a/1.jpg", "b/2.jpg", "c/3.jpg"], ["a/x1b.jpg", "a/y2c.jpg", "a/z3d.jpg"])
    for names in others:
        assert clusters(hashes, 8, names).tolist() == [0, 1, 2]
    # The order of the numbers counts, not that of the files.
    assert clusters(hashes, 8, ["a/10.jpg", "a/9.jpg", "a/2.jpg"]).tolist() == [0, 0, 0]
    assert clusters(hashes, 8, ["a/2.jpg", "a/10.jpg", "a/9.jpg"]).tolist() == [0, 1, 1]
