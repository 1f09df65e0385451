"""Target labels cannot reach training."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

import tiny
from pixelscope import train_pixelda
from pixelscope.engine.run import RunFolder
from pixelscope.engine.task import Moment
from pixelscope.pixelda.domains import load_domains
from pixelscope.pixelda.task import PairedBatches


def test_the_training_target_has_no_labels_classes_or_names(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    training = load_domains(tiny.pixelda(source=source, target=target)).training_target()
    assert training.labels is None
    assert training.classes == ()
    assert not training.names


def test_batches_strip_a_target_that_still_has_them() -> None:
    labelled = tiny.image_set(seed=1)
    batches = PairedBatches(tiny.image_set(), labelled, 0, torch.device("cpu"))
    assert batches.target.labels is None
    batch = batches(Moment(0, 0, 8, seed=0))
    assert {field.name for field in fields(batch)} == {"source", "labels", "target", "mask"}
    assert not _reachable(batches, labelled.labels)


def _reachable(thing: Any, wanted: torch.Tensor | None, depth: int = 5) -> bool:
    """Whether `wanted` can be reached from `thing` through attributes."""
    if isinstance(thing, torch.Tensor):
        return wanted is not None and thing.data_ptr() == wanted.data_ptr()
    if depth == 0 or not (hasattr(thing, "__dict__") or is_dataclass(thing)):
        return False
    return any(_reachable(value, wanted, depth - 1) for value in vars(thing).values())


def test_weights_are_the_same_whatever_the_target_labels(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    images, labels = tiny.pictures(60, 1, coloured=True)
    np.savez(tmp_path / "wrong.npz", images=images, labels=(labels + 1) % 3)
    np.savez(tmp_path / "none.npz", images=images)
    found = []
    for spec in (target, f"arrays:{tmp_path / 'wrong.npz'}", f"arrays:{tmp_path / 'none.npz'}"):
        run = train_pixelda(tiny.pixelda(source=source, target=spec, training={"images": 48}), runs=tmp_path / "runs")
        found.append(RunFolder(run).checkpoint_files()[-1].read_bytes())
    first, *others = (load(file) for file in found)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
