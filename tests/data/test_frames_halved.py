"""Frames far larger than their square are decoded at half their size: what is stored of them stays the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.frames import BOTTOM, LEFT, RIGHT, TOP, drawn, save, write_frames
from pixelscope.data.formats.decode import image_size, read_image
from pixelscope.data.frames.duplicates import clusters, perceptual_hash, split_by_cluster
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.preprocess import prepare_file, prepare_frame
from pixelscope.data.frames.store import FrameStore
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.content_area import Box

CONFIG = PrepareConfig(size=32)
WIDTH, HEIGHT = 421, 343
"""Of the large frames: over eight times their square, and odd."""
LEAST_PSNR = 40


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return two classes of large JPEG frames, some of them twice with other noise."""
    random = np.random.default_rng(0)
    for name, count in (("normal-cecum", 12), ("polyps", 6)):
        for number in range(count):
            frame = drawn(1000 * len(name) + number // 2, WIDTH, HEIGHT)
            noisy = np.clip(frame + random.normal(0, 2, frame.shape), 0, 255).astype(np.uint8)
            save(tmp_path / "large" / name / f"{number}.jpg", Image.fromarray(noisy), quality=92)
    return tmp_path / "large"


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = float(((first.astype(np.float64) - second) ** 2).mean())
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def sides(box: Box) -> np.ndarray:
    return np.array([box.left, box.top, box.left + box.width, box.top + box.height])


def whole(paths: list[Path], config: PrepareConfig) -> list[tuple[Box, np.ndarray]]:
    """Return content area and square of each frame as they are found in the whole frame."""
    prepared = [prepare_frame(read_image(path), None, config) for path in paths]
    return [(one.content, one.frame) for one in prepared]


def splits(hashes: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in split_by_cluster(clusters(hashes), labels, (0.2, 0.2), seed=0)]


def check_same(store: FrameStore, folder: Path, config: PrepareConfig) -> None:
    """Assert that contents, frames and splits are those of whole frames, within a pixel and 40 dB."""
    reference = whole([folder / name for name in store.names], config)
    for index, (content, frame) in enumerate(reference):
        found = Box(*store.boxes[index].tolist())
        assert np.abs(sides(found) - sides(content)).max() <= 1, store.names[index]
        assert psnr(np.asarray(store.frames[index]), frame) >= LEAST_PSNR, store.names[index]
    hashes = np.array([perceptual_hash(frame) for _, frame in reference], np.uint64)
    assert splits(store.hashes, store.labels) == splits(hashes, store.labels)


def test_drawn_frames_are_stored_as_before(large: Path) -> None:
    store = prepare([large], config=CONFIG)
    check_same(store, large, CONFIG)
    assert len(set(clusters(store.hashes).tolist())) == 9
    assert store.sizes.tolist() == [[WIDTH, HEIGHT]] * 18
    reference = np.stack([frame for _, frame in whole([large / name for name in store.names], CONFIG)])
    assert not np.array_equal(store.frames, reference)  # else they were not decoded at half their size


def test_boxes_are_those_of_the_whole_frame(large: Path) -> None:
    found = prepare_file(large / "polyps" / "0.jpg", CONFIG).content
    assert np.abs(sides(found) - [LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM]).max() <= 1


def test_a_frame_without_border_keeps_its_odd_sides(tmp_path: Path) -> None:
    bright = np.full((HEIGHT, WIDTH, 3), 180, np.uint8)
    bright[:, ::40] = 120
    path = save(tmp_path / "bright.jpg", Image.fromarray(bright))
    assert prepare_file(path, CONFIG).content == Box(0, 0, WIDTH, HEIGHT)


def test_masks_have_the_size_of_the_whole_frame(large: Path) -> None:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[::2, ::2] = 0  # every fourth pixel, which is every pixel of one half
    mask[:100], mask[220:], mask[:, :150], mask[:, 290:] = 0, 0, 0, 0
    save(large / "polyp-masks" / "0.png", mask)
    store = prepare([large], config=CONFIG)
    index = store.names.index("polyps/0.jpg")
    expected = prepare_frame(read_image(large / "polyps" / "0.jpg"), mask > 0, CONFIG).lesion
    # The content area may lie a pixel of the half elsewhere, which moves some of the outline, a tenth of the lesion here.
    assert np.count_nonzero(np.asarray(store.lesions[index]) != expected) <= 16
    assert expected.sum() > 100


def test_smaller_frames_and_other_formats_are_whole(tmp_path: Path) -> None:
    write_frames(tmp_path / "small", {"normal-cecum": 2})
    save(tmp_path / "small" / "polyps" / "0.jpg", Image.fromarray(drawn(7, 240, 200)), quality=92)
    save(tmp_path / "small" / "polyps" / "1.png", drawn(8, WIDTH, HEIGHT))
    store = prepare([tmp_path / "small"], config=CONFIG)
    reference = np.stack([frame for _, frame in whole([tmp_path / "small" / name for name in store.names], CONFIG)])
    np.testing.assert_array_equal(store.frames, reference)


def test_real_frames_are_stored_as_before(real_frames: Path, tmp_path: Path) -> None:
    least = 8 * PrepareConfig().size
    for folder in ("normal-colon", "polyps"):
        files = sorted((real_frames / folder).glob("*.jpg"))
        far_larger = [file for file in files if min(image_size(file) or (0, 0)) >= least]
        (tmp_path / "some" / folder).mkdir(parents=True)
        for file in [*files[:20], *(far for far in far_larger if far not in files[:20])]:
            (tmp_path / "some" / folder / file.name).symlink_to(file)
    store = prepare([tmp_path / "some"])
    assert (store.sizes.min(axis=1) >= least).sum() >= 10
    check_same(store, tmp_path / "some", PrepareConfig())
