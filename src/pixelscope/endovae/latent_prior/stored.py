"""The folder `prior` of a run: prior.json and prior.safetensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.latent_prior.config import Kind
from pixelscope.endovae.latent_prior.flow import FlowPrior
from pixelscope.endovae.latent_prior.mixture import MixturePrior
from pixelscope.endovae.latent_prior.results import PriorResult
from pixelscope.errors import InputError
from pixelscope.files import atomic_file, atomic_folder
from pixelscope.runs.folder import RunFolder

RESULT, TENSORS = "prior.json", "prior.safetensors"
DTYPES = (torch.float32, torch.float64, torch.int64)


@dataclass(frozen=True)
class StoredPrior:
    """A prior and its record."""

    prior: MixturePrior | FlowPrior
    result: PriorResult

    def draw(self, numbers: range, seed: int, kind: Kind | None, guidance: float) -> Tensor:
        """Return codes (n, latent); see `FlowPrior.draw`."""
        return torch.as_tensor(self.prior.draw(numbers, seed, kind, guidance))


def require_replaceable(folder: RunFolder) -> None:
    """Raise InputError if what has the name of a run's prior is not one alone: `save_prior` would delete it."""
    path = folder.prior
    _require_no_file(path)
    own = (RESULT, TENSORS)
    others = sorted(one.name for one in path.glob("[!.]*") if one.name not in own) if path.exists() else []
    if others:
        raise InputError(f"{path / others[0]} is no part of a prior, and would be deleted with the prior; move it away.")


def _require_no_file(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, and a prior is a folder; move it away.")


def save_prior(folder: RunFolder, prior: MixturePrior | FlowPrior, values: Mapping[str, Any]) -> PriorResult:
    """Write a prior into a run, and replace an earlier one; all of it or nothing.

    Args:
        folder: the run, locked by this process.
        prior: the prior.
        values: what prior.json says about it, but for the SHA-256 of the tensors.

    Raises:
        InputError: a file, or a folder with other files, has the name of the prior.
    """
    require_replaceable(folder)
    tensors = {name: torch.as_tensor(tensor).contiguous() for name, tensor in prior.tensors().items()}
    content = to_bytes(tensors)
    result = PriorResult.model_validate({**values, "tensors_sha256": hashlib.sha256(content).hexdigest()})
    folder.require_lock()
    with atomic_folder(folder.prior, replace=True) as work:
        with atomic_file(work / TENSORS) as temporary:
            temporary.write_bytes(content)
        result.save(work / RESULT)
    return result


def load_prior(checkpoint: Checkpoint) -> StoredPrior | None:
    """Return the prior in a checkpoint's run; None if the run has none.

    Raises:
        InputError: the prior is a file, damaged, or was fitted to the codes of other weights.
    """
    folder = checkpoint.folder.prior
    _require_no_file(folder)
    if not folder.exists():
        return None
    result = PriorResult.load(folder / RESULT)
    run = checkpoint.folder.path
    remedy = f"run `pixelscope endovae prior {run} --checkpoint {checkpoint.name}`, or do without it by --prior none"
    if result.weights_sha256 != checkpoint.sha256:
        raise InputError(
            f"The prior in {folder} is of other weights ({result.checkpoint} at {result.images:,} images) than the checkpoint "
            f"{checkpoint.name} at {checkpoint.images:,} images; {remedy}."
        )
    prior = _read_tensors(folder / TENSORS, result, checkpoint)
    if prior is None:
        raise InputError(f"The prior in {folder} is damaged or was changed since it was written; {remedy}.")
    return StoredPrior(prior, result)


def _read_tensors(path: Path, result: PriorResult, checkpoint: Checkpoint) -> MixturePrior | FlowPrior | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    kinds, spatial = tuple(result.kinds), checkpoint.config.model.kind == "spatial"
    if hashlib.sha256(content).hexdigest() != result.tensors_sha256 or (result.method == "flow") is not spatial:
        return None
    try:
        tensors = from_bytes(content)
    except SafetensorError:
        return None
    if any(tensor.dtype not in DTYPES or not tensor.isfinite().all() for tensor in tensors.values()):
        return None
    if spatial:
        return FlowPrior.from_tensors(tensors, kinds, checkpoint.config.code_shape, result.config)
    return MixturePrior.from_tensors(_arrays(tensors), kinds, checkpoint.config.code_values)


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
