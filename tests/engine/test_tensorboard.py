"""TensorBoard event files hold the numbers of stats.jsonl and the sample images, also over a resumed training."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures import tiny
from pixelscope import InputError, errors, resume
from pixelscope.engine import monitor
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder, read_stats

installed = pytest.mark.skipif(find_spec("tensorboard") is None, reason="the extra tensorboard is not installed")


def read(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tiny.write_domains(tmp_path_factory.mktemp("domains"))
    config = tiny.pixelda(source=source, target=target, training={"images": 64, "tensorboard": True})
    made = train_pixelda(config, run=tmp_path_factory.mktemp("runs") / "run")
    return resume(made, images=96)


@installed
@pytest.mark.filterwarnings("ignore")  # of tensorboard and what it imports
def test_scalars_are_those_of_the_log(run: Path) -> None:
    events = read(run)
    lines = read_stats(RunFolder.open(run).stats)
    assert {line["images"] for line in lines} == {0, 16, 32, 48, 64, 80, 96}
    for name in ("loss/generator", "loss/discriminator", "accuracy/source_train"):
        expected = [(line["images"], line[name]) for line in lines if name in line]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert len(expected) > 1 and [step for step, _ in found] == [images for images, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])
    histogram = next(line["histogram/source"] for line in lines if "histogram/source" in line)
    assert events.Scalars("histogram/source/1")[0].value == pytest.approx(histogram[1])


@installed
@pytest.mark.filterwarnings("ignore")
def test_samples_are_grids_of_the_stored_images(run: Path) -> None:
    import io

    from PIL import Image

    with np.load(run / "samples" / "progress.npz", allow_pickle=False) as stored:
        moments, rows = stored["images"], stored["generated"]
    images = read(run).Images("samples/generated")
    assert [image.step for image in images] == moments.tolist()
    for image, row in zip(images, rows, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        assert (shown == np.concatenate(list(row), axis=1)).all()


def test_a_grid_fills_rows_and_leaves_white() -> None:
    images = np.arange(12 * 2 * 3 * 3, dtype=np.uint8).reshape(12, 2, 3, 3)
    found = monitor.image_grid(images)
    assert found.shape == (4, 30, 3)
    assert (found[2:4, 3:6] == images[11]).all() and (found[:2, 27:] == images[9]).all() and (found[2:, 6:] == 255).all()


def test_without_tensorboard_a_training_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tiny.write_domains(tmp_path)
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"pixelscope\[tensorboard\]\""):
        train_pixelda(tiny.pixelda(source=source, target=target, training={"tensorboard": True}), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not (train_pixelda(tiny.pixelda(source=source, target=target), run=tmp_path / "run") / "tensorboard").exists()
