"""A tiny store and a tiny trained run, made once for all tests of EndoVAE."""

from pathlib import Path

import pytest

import tiny
from pixelscope import FrameStore, prepare, train_endovae
from pixelscope.imaging.config import PrepareConfig


@pytest.fixture(scope="session")
def frame_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=30, abnormal=12)


@pytest.fixture(scope="session")
def store(frame_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return prepare([frame_folder], config=PrepareConfig(size=tiny.SIZE), out=tmp_path_factory.mktemp("stores") / "tiny-0")


@pytest.fixture(scope="session")
def run(store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.endovae(
        frames=str(store.path),
        training={"epochs": 60, "log_every": 5, "sample_every": 20},
        model={"width": 4},
        losses={"reading": "sum", "kl": 0.2},
    )
    return train_endovae(config, run=tmp_path_factory.mktemp("runs") / "run")
