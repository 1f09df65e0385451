"""Tiny trained and evaluated runs, their images as files, and exported models, made once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import evaluate, export
from pixelscope.data.frames.prepare import prepare
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig
from pixelscope.pixelda.training import train_baseline, train_pixelda


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tiny.write_domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the target in class folders, PNG and JPEG, larger than the network's."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = tiny.pictures(40, seed=5, coloured=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / tiny.CLASSES[label]).mkdir(exist_ok=True)
        ending = ".png" if number % 3 else ".jpg"
        Image.fromarray(image).resize((40, 33)).save(folder / tiny.CLASSES[label] / f"{number:03d}{ending}")
    return folder


@pytest.fixture(scope="session")
def pixelda_run(domains: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.pixelda(source=domains[0], target=domains[1])
    run = train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "pixelda")
    evaluate(run)
    return run


@pytest.fixture(scope="session")
def baseline_run(domains: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_baseline(tiny.baseline(source=domains[0]), run=tmp_path_factory.mktemp("runs") / "baseline")


@pytest.fixture(scope="session")
def frame_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with a black border, in class folders."""
    folder = tmp_path_factory.mktemp("frames")
    for seed, (name, count) in enumerate((("normal-tiny", 60), ("polyps", 24))):
        (folder / name).mkdir()
        for number, frame in enumerate(tiny.frames(count, seed)):
            whole = np.zeros((90, 110, 3), np.uint8)
            whole[5:85, 15:95] = np.asarray(Image.fromarray(frame).resize((80, 80)))
            Image.fromarray(whole).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def endovae_run(frame_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = prepare([frame_files], config=PrepareConfig(size=24), out=tmp_path_factory.mktemp("stores") / "tiny-0")
    config = tiny.endovae(
        frames=str(store.path),
        prepare={"size": 24},
        split={"validation_fraction": 0.7},
        training={"epochs": 30},
        model={"width": 4},
    )
    run = train_endovae(config, run=tmp_path_factory.mktemp("runs") / "endovae")
    evaluate_endovae(run)
    return run


@pytest.fixture(scope="session")
def models(pixelda_run: Path, endovae_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported models: pixelda and endovae, .onnx and .safetensors."""
    folder = tmp_path_factory.mktemp("models")
    for name, run in (("pixelda", pixelda_run), ("endovae", endovae_run)):
        export(run, folder / name / "model.onnx")
        export(run, folder / f"{name}-weights" / "model.safetensors", form="safetensors")
    return folder
