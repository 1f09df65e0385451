"""A tiny store and a tiny trained run, made once for all tests of EndoVAE."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.training import train_endovae
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
        losses={"reduction": "sum", "kl": 0.2},
    )
    return train_endovae(config, run=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def outlined_store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Two healthy classes of other sizes, lesions with masks, and and insets left out in which kinds differ."""
    folder = tmp_path_factory.mktemp("outlined")
    draw = np.random.default_rng(0)
    for seed, (name, count, size) in enumerate((("normal-cecum", 60, 32), ("normal-pylorus", 40, 48), ("polyps", 24, 32))):
        (folder / name).mkdir()
        for number, frame in enumerate(tiny.frames(count, seed)):
            Image.fromarray(frame).resize((size, size), Image.Resampling.NEAREST).save(folder / name / f"{number:02d}.png")
    (folder / "polyp-masks").mkdir()
    for number in range(16):
        mask = np.zeros((32, 32), np.uint8)
        top, left = draw.integers(0, 16, 2)
        mask[top : top + 14, left : left + 10] = 255
        Image.fromarray(mask).save(folder / "polyp-masks" / f"{number:02d}.png")
    config = PrepareConfig(size=tiny.SIZE, insets="mask")
    made = prepare([folder], config=config, out=tmp_path_factory.mktemp("stores") / "outlined-0")
    insets, frames = np.array(made.insets), np.array(made.frames)
    insets[::2, 10:, :6] = 1
    insets[1::2, :4, 9:] = 1
    noise = draw.integers(0, 256, frames.shape, dtype=np.uint8)
    flat = np.full_like(frames, 128)
    drawn = np.where(made.abnormal[:, None, None, None], noise, flat)
    np.save(made.path / "insets.npy", insets)
    np.save(made.path / "frames.npy", np.where(insets[..., None] > 0, drawn, frames))
    return FrameStore.open(made.path)


@pytest.fixture(scope="session")
def averaged_run(outlined_store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.endovae(
        frames=str(outlined_store.path),
        split={"validation_fraction": 0.3, "test_fraction": 0.2},
        augmentation={"copies_per_frame": 0},
        training={"epochs": 8, "ema_half_life": 1.0},
        model={"width": 4},
    )
    return train_endovae(config, run=tmp_path_factory.mktemp("runs") / "averaged")
