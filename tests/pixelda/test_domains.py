"""The two domains of a run: copies stay on one side of their splits, and what is missing is named."""

import json
from pathlib import Path

import pytest
import torch

import tiny
from data.made import write_classes
from pixelscope import train_baseline
from pixelscope.errors import InputError
from pixelscope.pixelda.domains import load_domains


def with_copies(folder: Path) -> Path:
    """Write two classes of 20 images, each of them twice, and one class of a single image."""
    write_classes(folder, {"a": 20, "b": 20, "rare": 1}, side=tiny.SIZE)
    for file in sorted(folder.glob("[ab]/*.png")):
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    return folder


def pixels(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_copy_of_a_training_image_is_tested(tmp_path: Path, seed: int) -> None:
    source = with_copies(tmp_path / "source")
    config = tiny.pixelda(source=str(source), target=str(source))
    config = config.model_copy(update={"data": config.data.model_copy(update={"seed": seed, "validation_fraction": 0.2})})
    domains = load_domains(config, training=False)
    assert domains.target is not None
    parts = [pixels(part.in_memory()) for part in (domains.source.train, domains.source.validation, domains.source.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 41
    assert not pixels(domains.target.train.in_memory()) & pixels(domains.target.test.in_memory())


def test_copies_and_classes_without_images_are_in_the_record_and_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train_baseline(tiny.baseline(source=str(with_copies(tmp_path / "source"))), run=tmp_path / "run")
    notes = json.loads((run / "run.json").read_text())["data"]["source"]["notes"]
    assert notes[0].startswith("40 of 81 images are exact copies of others")
    assert notes[1].startswith("The class rare has no t")
    printed = capfd.readouterr().err
    assert all(f"Note on the source: {note}" in printed for note in notes)


def test_a_source_without_labels_says_how_it_was_read(tmp_path: Path) -> None:
    source = write_classes(tmp_path / "source", {"a": 3, "b": 3}, side=tiny.SIZE)
    (source / "a" / "0.png").rename(source / "loose.png")
    with pytest.raises(InputError, match=r"has no labels; .*labels\.csv.*beside the folders a, b: loose\.png"):
        load_domains(tiny.baseline(source=str(source)), training=False)
