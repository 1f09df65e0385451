"""Weights planted in stored files, so that a test sees from an answer alone which of them was asked."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def tensors_of(path: Path, prefix: str = "") -> Tensors:
    """Return the tensors of a safetensors file whose names begin with `prefix`, without it."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dict
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def edit(path: Path, change: Callable[[Tensors], None]) -> None:
    """Let `change` alter the tensors of a safetensors file in place; its header stays."""
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, path, metadata=header)


def always(path: Path, answers: dict[str, int], classes: int = 3) -> None:
    """Make the classifier under each prefix answer one class, whatever it sees."""

    def change(tensors: Tensors) -> None:
        for prefix, label in answers.items():
            (name,) = [n for n, t in tensors.items() if n.startswith(prefix) and t.ndim == 2 and len(t) == classes]
            tensors[name] = torch.zeros_like(tensors[name])
            tensors[name.removesuffix("weight") + "bias"] = 5.0 * torch.eye(classes)[label]

    edit(path, change)
