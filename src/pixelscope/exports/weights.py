"""Exported safetensors files: networks, metadata, and a checksum of both."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pixelscope.errors import InputError
from pixelscope.exports.metadata import KEY, Metadata, parse_metadata

CHECKSUM = f"{KEY}.sha256"
REMEDY = "write it again with the command that made it"


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Metadata) -> None:
    """Write tensors and metadata to `path`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = about.model_dump_json()
    path.write_bytes(save(plain, metadata={KEY: text, CHECKSUM: _checksum(plain, text)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read a file written by `write_weights`; raises InputError for other and for changed files."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); {REMEDY}.") from None
    if KEY not in metadata or CHECKSUM not in metadata:
        raise InputError(
            f"{path} was not made by `pixelscope export` or `pixelscope endovae detect`; give a file that was, or the run."
        )
    if metadata[CHECKSUM] != _checksum(tensors, metadata[KEY]):
        raise InputError(f"{path} was changed since it was written; {REMEDY}.")
    return tensors, parse_metadata(metadata[KEY], str(path))


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
