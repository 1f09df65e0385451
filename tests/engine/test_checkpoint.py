"""Checkpoints: exact, whole, and clear about what is wrong with them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pixelscope.engine import checkpoint
from pixelscope.engine.checkpoint import CheckpointHeader, Progress
from pixelscope.errors import InputError

HEADER = CheckpointHeader("pixelda", {"seed": 0}, {"source": "abc"}, Progress(64, 2, 1.5, best=0.25))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "images-000000000064.safetensors"
    checkpoint.save(path, {"a": torch.arange(4.0), "b": torch.tensor([True, False])}, HEADER)
    return path


def test_what_is_saved_is_what_is_loaded(written: Path) -> None:
    tensors, header = checkpoint.load(written)
    assert header == HEADER
    assert torch.equal(tensors["a"], torch.arange(4.0))
    assert tensors["b"].dtype == torch.bool
    assert list(written.parent.iterdir()) == [written]


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_cut_off_file_is_named(written: Path, keep: int) -> None:
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged.*delete it"):
        checkpoint.load(written)


def test_another_format_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"pixelscope": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="format 99"):
        checkpoint.load(path)
    save_file({"a": torch.zeros(1)}, path, {"pixelscope": json.dumps({"format": 1})})  # as version 0.1 wrote it
    with pytest.raises(InputError, match=r"format 1.*run\.json"):
        checkpoint.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not written by pixelscope"):
        checkpoint.load(path)
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_a_failed_write_leaves_the_earlier_file(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(RuntimeError, match="share"):
        both = torch.zeros(4)
        checkpoint.save(written, {"a": both, "b": both}, HEADER)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]
