"""Data and settings that a training cannot use: one sentence with the mend, and nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope.cli import main
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder


def _arrays(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> str:
    np.savez(path, images=images, **({} if labels is None else {"labels": labels}))
    return f"arrays:{path}"


IMAGES, LABELS = tiny.pictures(60)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"source": (IMAGES, None)}, "has no labels; give one folder"),
    "one class": ({"source": (IMAGES, LABELS * 0)}, "has one class only"),
    "few source images": ({"source": (IMAGES[:9], LABELS[:9])}, "source .* has 7 training images, fewer than a batch of 8"),
    "few target images": ({"target": (IMAGES[:9], None)}, "target .* has 7 training images, fewer than a batch of 8"),
    "one target image": ({"target": (IMAGES[:1], None)}, "give"),
}


@pytest.mark.parametrize("name", CASES)
def test_data_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    changed, message = CASES[name]
    given = {"source": (IMAGES, LABELS), "target": (IMAGES, None), **changed}
    specs = {domain: _arrays(tmp_path / f"{domain}.npz", *arrays) for domain, arrays in given.items()}
    with pytest.raises(InputError, match=message):
        train_pixelda(tiny.pixelda(**specs), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["source", "target"])
def test_a_domain_that_is_not_named(missing: str, tmp_path: Path) -> None:
    specs = dict(zip(("source", "target"), tiny.write_domains(tmp_path), strict=True))
    with pytest.raises(InputError, match=f"No {missing} is given.*--{missing}"):
        train_pixelda(tiny.pixelda(**{**specs, missing: ""}), run=tmp_path / "run")


def test_images_of_one_bit_and_16_pixels_train_as_any_other(tmp_path: Path) -> None:
    """They are read as the same images of 8 bits are, and every command that a run is used with takes them."""
    lit = (IMAGES[..., 0] > 100) ^ (np.random.default_rng(0).random(IMAGES.shape[:3]) < 0.1)
    for domain, images in (("source", lit), ("target", ~lit[::-1])):
        for form, mode in (("bits", "1"), ("bytes", "L")):
            for index, (image, label) in enumerate(zip(images, LABELS, strict=True)):
                file = tmp_path / form / domain / str(label) / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).convert(mode).save(file)
    config = tiny.pixelda(data={"size": 32}, judge=True, training={"images": 16, "evaluate_every": 16, "sample_every": 16})
    config.save(tmp_path / "config.yaml")
    digests = []
    for form in ("bits", "bytes"):
        source, target, run = (str(tmp_path / form / name) for name in ("source", "target", "run"))
        given = ["--source", source, "--target", target, "--config", str(tmp_path / "config.yaml"), "--out", run]
        assert main(["pixelda", "train", *given]) == 0
        data = json.loads((Path(run) / "run.json").read_text())["data"]
        digests.append([data[domain][key] for domain in data for key in ("sha256", "sha256_test")])
        assert main(["pixelda", "classify", run, target, "--out", f"{run}.csv"]) == 0
        assert main(["pixelda", "adapt", run, source, "--out", f"{run}-redrawn"]) == 0
    assert digests[0] == digests[1]
    answers = [(tmp_path / form / "run.csv").read_text().replace(f"/{form}/", "/") for form in ("bits", "bytes")]
    assert answers[0] == answers[1]
    assert len(list((tmp_path / "bits" / "run-redrawn").rglob("*.png"))) == len(IMAGES)


def test_masks_that_do_not_match_the_images(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    masks = _arrays(tmp_path / "masks.npz", IMAGES[:10])
    config = tiny.pixelda(source=source, target=target, losses={"content": 1.0, "content_mask": masks})
    with pytest.raises(InputError, match="has 10 masks for 60 source images"):
        train_pixelda(config, run=tmp_path / "run")


def test_masks_from_a_source_train(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    masks = _arrays(tmp_path / "masks.npz", np.full_like(IMAGES, 255))
    config = tiny.pixelda(source=source, target=target, losses={"content": 1.0, "content_mask": masks}, training={"images": 16})
    assert train_pixelda(config, run=tmp_path / "run").is_dir()


def test_more_gpus_than_there_are(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    config = tiny.pixelda(source=source, target=target, runtime={"accelerator": "cuda", "devices": 512})
    with pytest.raises(InputError, match="needs 512 GPUs"):
        train_pixelda(config, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system that a few checkpoints fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here, so none can be filled")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(small_disk: Path, tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    settings = tmp_path / "settings.yaml"
    config = tiny.pixelda(source=source, target=target, training={"images": 4000, "evaluate_every": 8, "sample_every": 4000})
    config.save(settings)
    command = [sys.executable, "-m", "pixelscope", "pixelda", "train", "--config", settings, "--out", small_disk / "run"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 2, done.stderr
    assert "The disk is full" in done.stderr.splitlines()[-1]
    assert str(small_disk / "run") in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    files = RunFolder(small_disk / "run").checkpoint_files()
    assert files
    for file in files:
        checkpoint.load(file)
    assert not list(small_disk.rglob(".*"))
