"""Which frames are trained on: by kind, whole clusters of near-duplicates, nothing twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures import tiny
from pixelscope import InputError
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.data import Splits, from_unit, load_other_frames, load_splits, split_store, with_store_settings
from pixelscope.endovae.training import FramesJob
from pixelscope.engine.session import Place
from pixelscope.imaging.config import PrepareConfig
from pixelscope.rng import StepContext


def _divide(store: FrameStore, **split: Any) -> Splits:
    return split_store(store, tiny.endovae(split={"validation_fraction": 0.2, "test_fraction": 0.2, **split}))


def _positions(splits: Splits) -> list[np.ndarray]:
    return [part.positions for part in (splits.train, splits.validation, splits.calibration, *splits.test.values())]


def _kinds(store: FrameStore, positions: np.ndarray) -> set[str]:
    return {store.kinds[label] for label in store.labels[positions]}


def test_every_frame_is_in_one_part(store: FrameStore) -> None:
    for kind in ("normal", "abnormal", "both"):
        parts = _positions(_divide(store, train_on=kind))
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(store)))


def test_training_sees_the_kind_that_was_asked_for(store: FrameStore) -> None:
    splits = _divide(store)
    assert _kinds(store, splits.train.positions) == _kinds(store, splits.validation.positions) == {"normal"}
    assert len(splits.test["abnormal"]) == 12
    assert len(splits.test["normal"]) == pytest.approx(6, abs=2)
    assert _kinds(store, _divide(store, train_on="abnormal").train.positions) == {"abnormal"}
    both = _divide(store, train_on="both")
    assert _kinds(store, both.train.positions) == {"normal", "abnormal"}
    assert 0 < len(both.test["abnormal"]) < 12


def test_a_training_reads_its_training_frames_and_no_other(store: FrameStore, tmp_path: Path) -> None:
    config = tiny.endovae(
        frames=str(store.path), split={"validation_fraction": 0.2, "test_fraction": 0.2}, augmentation={"copies_per_frame": 0}
    )
    splits = load_splits(config)
    training = FramesJob("endovae", config, Place(tmp_path), splits).build(tiny.fabric())
    steps = range(len(splits.train) // 8 + 1)
    read = torch.cat([from_unit(training.batches(StepContext(8 * step, step, 8, seed=0)).images) for step in steps])
    frames = {frame.tobytes() for frame in splits.train.frames}
    assert {frame.tobytes() for frame in read.permute(0, 2, 3, 1).contiguous().numpy()} == frames
    assert len(frames) == len(splits.train) and len(splits.validation)


def test_the_split_has_a_seed_of_its_own(store: FrameStore) -> None:
    first, again, other = _divide(store), _divide(store), _divide(store, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(_positions(first), _positions(again), strict=True))
    assert not np.array_equal(first.train.positions, other.train.positions)
    assert first.digests() == again.digests() != other.digests()


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    tiny.write_frames(tmp_path / "frames", normal=12, abnormal=1)
    for number, frame in enumerate(tiny.frames(12)):
        brighter = np.clip(frame.astype(int) + 3, 0, 255).astype(np.uint8)
        Image.fromarray(brighter).save(tmp_path / "frames" / "normal-tiny" / f"again-{number:02d}.png")
    store = prepare([tmp_path / "frames"], config=PrepareConfig(size=tiny.SIZE), out=tmp_path / "store")
    for part in _positions(_divide(store, seed=3))[:3]:
        names = {store.names[i].removeprefix("normal-tiny/").removeprefix("again-") for i in part}
        assert 2 * len(names) == len(part), "a frame and its near-duplicate are in the same part"


def test_half_of_the_healthy_validation_frames_only_calibrate(store: FrameStore) -> None:
    splits = _divide(store, validation_fraction=0.4)
    assert len(splits.validation) + len(splits.calibration) == pytest.approx(12, abs=2)
    assert len(splits.calibration) == pytest.approx(len(splits.validation), abs=1)
    both = _divide(store, train_on="both", validation_fraction=0.4)
    assert _kinds(store, both.calibration.positions) == {"normal"}
    assert _kinds(store, both.validation.positions) == {"normal", "abnormal"}
    assert len(_divide(store, train_on="abnormal").calibration) == 0


def test_a_validation_part_of_one_cluster_is_not_parted(tmp_path: Path) -> None:
    tiny.write_frames(tmp_path / "frames", normal=6, abnormal=1)
    store = prepare([tmp_path / "frames"], config=PrepareConfig(size=tiny.SIZE), out=tmp_path / "store")
    splits = _divide(store, validation_fraction=0.1)
    assert (len(splits.validation), len(splits.calibration)) == (1, 0)


def test_what_is_not_there_is_said(store: FrameStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--frames"):
        load_splits(tiny.endovae())
    only = tiny.write_frames(tmp_path / "frames", normal=10, abnormal=0)
    (only / "polyps").rmdir()
    normal = prepare([only], config=PrepareConfig(size=tiny.SIZE), out=tmp_path / "store")
    with pytest.raises(InputError, match="--split.train-on"):
        _divide(normal, train_on="abnormal")
    assert set(_divide(normal).test) == {"normal"}


def test_a_folder_is_prepared_and_the_stores_own_settings_hold(
    frame_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny.endovae(frames=str(frame_folder))
    splits = load_splits(config)
    assert splits.store.frames.shape[1] == tiny.SIZE
    other = tiny.endovae(frames=str(splits.store.path), prepare={"size": 96})
    assert with_store_settings(other, load_splits(other)).prepare.size == tiny.SIZE
    described = splits.describe(config)["frames"]
    assert described["count"] == len(splits.store) == 42
    assert described["train"] == len(splits.train)


def test_insets_are_left_out_only_where_the_store_says_so(frame_folder: Path, tmp_path: Path) -> None:
    for insets in ("keep", "mask"):
        config = PrepareConfig(size=tiny.SIZE, insets=insets)
        store = prepare([frame_folder], config=config, out=tmp_path / insets)
        assert (_divide(store).train.ignore_mask is not None) == (insets == "mask")


def test_deep_frames_that_were_scaled_otherwise_are_refused(tmp_path: Path) -> None:
    (tmp_path / "frames" / "normal-tiny").mkdir(parents=True)
    for number, frame in enumerate(tiny.frames(3)):
        deep = Image.fromarray(frame[..., 0].astype(np.uint16) * 200)
        deep.save(tmp_path / "frames" / "normal-tiny" / f"{number}.png")
    stores = [
        prepare([tmp_path / "frames"], config=PrepareConfig(size=tiny.SIZE, range=values), out=tmp_path / str(values))
        for values in (None, (0, 50_000))
    ]
    config = tiny.endovae(prepare=stores[0].settings.model_dump())
    assert config.prepare.range == (0, 65535) and len(load_other_frames(config, str(stores[0].path))) == 3
    with pytest.raises(InputError, match="--range 0 65535"):
        load_other_frames(config, str(stores[1].path))
    assert len(load_other_frames(tiny.endovae(), str(stores[1].path))) == 3
