"""A run on images deeper than 8 bits keeps the range of its values, so that what it is used on is read in the same way."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import evaluate, resume
from pixelscope.config import read_yaml
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.training import train_baseline


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Write pictures in 12 of 16 bits, one folder per class."""
    images, labels = tiny.pictures(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "deep" / tiny.CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0].astype(np.uint16) * 16).save(folder / f"{number:02d}.png")
    return tmp_path / "deep"


def labels_of(table: Path) -> list[str]:
    with table.open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def test_a_range_found_in_training_is_used_wherever_the_run_is(deep: Path, tmp_path: Path) -> None:
    run = train_baseline(tiny.baseline(source=str(deep), training={"images": 480}), run=tmp_path / "run")
    assert tuple(read_yaml(run / "config.yaml")["data"]["source_range"]) == (0.0, 4095.0)
    assert evaluate(run).sets["source_test"].accuracy == 1
    # One class alone, whose files would have a range of their own: the same values must give the same answers.
    classify(run, [deep / "left"], tmp_path / "left.csv")
    assert labels_of(tmp_path / "left.csv") == ["left"] * 20
    dark = tmp_path / "dark"
    dark.mkdir()
    Image.fromarray(np.full((16, 16), 4000, np.uint16)).save(dark / "bright.png")
    Image.fromarray(np.full((16, 16), 40, np.uint16)).save(dark / "black.png")
    classify(run, [dark / "black.png"], tmp_path / "alone.csv")
    classify(run, [dark], tmp_path / "both.csv")
    assert labels_of(tmp_path / "both.csv")[0] == labels_of(tmp_path / "alone.csv")[0]
    assert labels_of(tmp_path / "both.csv")[1] == "bright"
    assert resume(run, images=496) == run, "the same images are found to be the same"
