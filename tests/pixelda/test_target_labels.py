"""Target labels cannot reach training."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from fixtures import tiny
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.task import PairedBatches
from pixelscope.pixelda.training import train_pixelda
from pixelscope.rng import StepContext
from pixelscope.runs.folder import RunFolder


def test_the_training_target_has_no_labels_classes_or_names(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    training = load_domains(tiny.pixelda(source=source, target=target)).training_target()
    assert training.labels is None
    assert training.classes == ()
    assert not training.names


def test_batches_strip_a_target_that_still_has_them() -> None:
    labelled = replace(tiny.image_set(seed=1), labels=np.arange(30) // 7 % 3)
    batches = PairedBatches(tiny.image_set(), labelled, 0, torch.device("cpu"))
    assert batches.target.labels is None
    batch = batches(StepContext(0, 0, 8, seed=0))
    assert {field.name for field in fields(batch)} == {"source", "labels", "target", "mask"}
    assert not _reachable(batches, labelled.labels)


def _reachable(thing: Any, wanted: np.ndarray | None, depth: int = 8) -> bool:
    """Whether the numbers of `wanted`, or most of them, lie in anything that can be reached from `thing`."""
    if isinstance(thing, torch.Tensor | np.ndarray):
        found = torch.as_tensor(thing)
        if wanted is None or found.numel() != wanted.size:
            return False
        return bool((found.flatten() == torch.from_numpy(wanted)).double().mean() > 0.9)
    if depth == 0 or isinstance(thing, str | bytes | int | float):
        return False
    if isinstance(thing, Mapping):
        return any(_reachable(value, wanted, depth - 1) for value in thing.values())
    if isinstance(thing, list | tuple | set):
        plain = bool(thing) and all(isinstance(value, int) for value in thing)
        values = [torch.tensor(list(thing))] if plain else thing
        return any(_reachable(value, wanted, depth - 1) for value in values)
    return any(_reachable(value, wanted, depth - 1) for value in getattr(thing, "__dict__", {}).values())


@pytest.mark.parametrize(
    "hide",
    [
        lambda labels: labels.copy(),
        lambda labels: torch.from_numpy(labels).to(torch.uint8),
        lambda labels: labels.tolist(),
        lambda labels: {"inside": [labels.copy()]},
        lambda labels: SimpleNamespace(deep=(SimpleNamespace(labels=labels.copy()),)),
    ],
)
def test_labels_are_found_wherever_they_are_hidden(hide: Callable[[np.ndarray], Any]) -> None:
    labels = tiny.image_set(seed=1).labels
    assert labels is not None
    device = torch.device("cpu")
    batches = PairedBatches(tiny.image_set(labelled=True), tiny.image_set(seed=1), 0, device)
    assert _reachable(SimpleNamespace(target=batches.target, kept=hide(labels)), labels)
    assert not _reachable(batches.target, labels)


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
