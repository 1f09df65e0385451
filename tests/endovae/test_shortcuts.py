"""What frames can be told apart by without tissue, and which cameras a calibration knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from fixtures.frames import drawn, save, write_frames
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore, InsetRecord
from pixelscope.endovae.anomaly.baselines import cross_validated, jpeg_bytes, sharpness, shortcut_features
from pixelscope.endovae.anomaly.calibration import camera_names, camera_warnings, count_cameras, group_sizes
from pixelscope.imaging.config import PrepareConfig


def told(store: FrameStore, view: str) -> tuple[float, float]:
    """Return the AUROC of shortcuts and of mean colour, each frame a cluster of its own."""
    groups = np.arange(len(store))
    found = shortcut_features(store, view, groups)  # pyright: ignore[reportArgumentType]
    areas = []
    for features in found:
        scores = cross_validated(features, store.abnormal, groups)
        assert scores is not None and np.isfinite(scores).all()
        areas.append(float(roc_auc_score(store.abnormal, scores)))
    return areas[0], areas[1]


def made(folder: Path, change) -> FrameStore:
    """Return a store of healthy frames and of frames drawn in the same way, `change` applied to the latter."""
    for kind in ("normal-a", "polyps"):
        for i in range(40):
            frame = drawn(i + 1000 * (kind == "polyps"), 160, 130)
            save(folder / kind / f"{i}.png", change(frame, i) if kind == "polyps" else frame)
    return prepare([folder], config=PrepareConfig(size=48), out=folder.parent / "store")


def black_corner(frame: np.ndarray, _: int) -> np.ndarray:
    frame[:45, :60] = 0
    return frame


def enlarged(frame: np.ndarray, _: int) -> np.ndarray:
    small = Image.fromarray(frame).resize((80, 65), Image.Resampling.BOX)
    return np.asarray(small.resize((160, 130), Image.Resampling.BICUBIC))


def redder(frame: np.ndarray, _: int) -> np.ndarray:
    lit = frame.max(axis=2, keepdims=True) > 0
    return np.where(lit, np.clip(frame + np.array([60, -20, -20]), 1, 255), 0).astype(np.uint8)


def test_frames_of_one_kind_are_not_told_apart(tmp_path: Path) -> None:
    store = made(tmp_path / "frames", lambda frame, _: frame)
    for view in ("full", "centre"):
        assert max(told(store, view)) < 0.7


def test_a_black_corner_is_told_on_the_full_view_alone(tmp_path: Path) -> None:
    store = made(tmp_path / "frames", black_corner)
    assert told(store, "full")[0] > 0.99
    assert told(store, "centre")[0] < 0.7


def test_features_are_what_the_view_shows_and_how_large_the_original_was(tmp_path: Path) -> None:
    """A black border in the first quarter of the frame, a black spot amid it, and an inset that hides black in its corner."""
    store = prepare([write_frames(tmp_path / "frames", {"normal-a": 2})], config=PrepareConfig(size=48), out=tmp_path / "store")
    frame, inset = np.full((48, 48, 3), (160, 90, 70), np.uint8), np.zeros((48, 48), np.uint8)
    frame[:6, :16] = frame[20:24, 20:23] = frame[40:, 44:] = 0
    inset[40:, 44:] = 1
    boxes = (
        InsetRecord(kind="green", box=(30, 40, 10, 6)),
        InsetRecord(kind="black", box=(60, 50, 5, 4)),
        InsetRecord(kind="black", box=(70, 50, 2, 5)),
    )
    record = store.index.frames[0].model_copy(update={"size": (80, 60), "content": (8, 4, 50, 40), "insets": boxes})
    index = store.index.model_copy(update={"frames": (record, record)})
    shown = {"frames": frame[None], "insets": inset[None], "centre": frame[None], "centre_insets": inset[None]}
    store = replace(store, index=index, **shown)
    compression, sharp = np.log(jpeg_bytes(frame)), sharpness(frame[None])[0]
    content, areas = [8 / 80, 4 / 60, 50 / 80, 40 / 60], [60 / 2000, 30 / 2000]
    quarters = [6 * 16 / 24**2, 0, 0, 0]
    expected = {
        "full": [np.log(80), np.log(60), *content, *areas, *quarters, compression, sharp],
        "centre": [(6 * 16 + 4 * 3 + 8 * 4) / 48**2, 8 * 4 / 48**2, compression, sharp],
    }
    for view, values in expected.items():
        features, colours = shortcut_features(store, view, np.arange(1))  # pyright: ignore[reportArgumentType]
        assert features[0] == pytest.approx(values)
        assert colours[0] == pytest.approx(frame[inset == 0].mean(0))


def test_a_colour_is_told_by_the_colour_alone(tmp_path: Path) -> None:
    store = made(tmp_path / "frames", redder)
    assert told(store, "centre")[1] > 0.85
    assert told(store, "full")[1] > 0.85


def test_enlargement_is_told_by_sharpness() -> None:
    fine = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    soft = np.stack([enlarged(np.kron(one[:65, :80], np.ones((3, 3, 1), np.uint8))[:130, :160], 0)[:64, :64] for one in fine])
    assert sharpness(fine).min() > sharpness(soft).max() + 1


def test_a_cluster_is_never_in_training_and_test() -> None:
    """Labels that follow clusters at random are known to who has seen the cluster, and to nobody else."""
    draw = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5)
    abnormal = np.repeat(draw.random(60) < 0.5, 5)
    features = np.repeat(np.eye(60), 5, axis=0)
    seen = cross_validated(features, abnormal, np.arange(300))
    unseen = cross_validated(features, abnormal, clusters)
    assert seen is not None and unseen is not None
    assert roc_auc_score(abnormal, seen) > 0.95
    assert abs(roc_auc_score(abnormal, unseen) - 0.5) < 0.15


@pytest.mark.parametrize("clusters", [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 3, 3]])
def test_one_cluster_of_a_kind_cannot_be_tested(clusters: list[int]) -> None:
    features = np.random.default_rng(0).normal(size=(6, 2))
    assert cross_validated(features, np.repeat([False, True], 3), np.array(clusters)) is None


def test_sizes_that_differ_by_a_crop_are_one_camera() -> None:
    sizes = [(633, 532)] * 5 + [(622, 530)] * 3 + [(720, 576)] * 4 + [(1350, 1080)]
    groups = group_sizes(sizes)
    assert groups[622, 530] == groups[633, 532] == (633, 532)
    assert groups[720, 576] == (720, 576) and groups[1350, 1080] == (1350, 1080)
    found = camera_names([(622, 530), (720, 576)], ["normal-cecum", "polyps"], groups)
    assert found == ["normal-cecum, 633 x 532", "polyps, 720 x 576"]


def test_another_camera_is_warned_of_with_both_numbers() -> None:
    known = {"633 x 532": 38, "720 x 576": 2}
    (found,) = camera_warnings(known, {"633 x 532": 60, "720 x 576": 40}, "healthy test frames")
    assert "40% of the 100 healthy test frames are 720 x 576" in found and "5% of the 40 calibration frames" in found
    assert camera_warnings(known, {"633 x 532": 95, "720 x 576": 5}, "frames") == ()
    assert camera_warnings({"a": 20, "b": 20}, {"a": 1, "b": 3}, "frames") == ()
    assert camera_warnings(known, {"633 x 532": 91, "9 x 9": 9}, "frames") == ()
    assert len(camera_warnings(known, {"633 x 532": 90, "9 x 9": 10}, "frames")) == 1
    (found,) = camera_warnings(known, {"9 x 9": 1}, "frames")
    assert "100% of the 1 frames are 9 x 9, and 0% of the 40" in found


def test_files_are_counted_with_the_camera_that_they_are_near() -> None:
    found = count_cameras([(640, 530), (640, 531), (300, 300), (310, 300)], {(633, 532): 5, (720, 576): 4})
    assert found == {"633 x 532": 2, "300 x 300": 2}
