"""Exact checkpoints: all tensors of a task in one safetensors file, written atomically, without pickle."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from pixelscope.engine.task import Task
from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE, atomic_file

FORMAT = 2
"""Format of the file; files of other formats are refused."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training."""

    images: int = 0
    step: int = 0
    seconds: float = 0.0
    """Time in training steps over all sessions, without evaluations and samples."""
    best: float | None = None
    """Best value of `Task.monitor` so far."""


@dataclass(frozen=True)
class CheckpointHeader:
    """Metadata of a checkpoint file."""

    system: str
    config: dict[str, Any]
    data: dict[str, str]
    """SHA-256 of each data set."""
    progress: Progress
    format: int = FORMAT


def save(path: Path, tensors: Mapping[str, Tensor], header: CheckpointHeader, check: Callable[[], None] = lambda: None) -> None:
    """Write tensors and header to `path`, atomically.

    check: called when everything is written, before `path` is replaced; nothing is replaced if it raises an error.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        # Not with safetensors.save_file, which leaves a temporary file if the process is killed.
        temporary.write_bytes(to_bytes(plain, metadata={"pixelscope": json.dumps(asdict(header))}))
        check()


def load(path: Path) -> tuple[dict[str, Tensor], CheckpointHeader]:
    """Read a file of `save`; raises InputError if it is missing, truncated, of another program or of another format."""
    try:
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get("pixelscope")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint {path}; give a run folder that has one.") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or truncated ({error}); delete it to use the checkpoint before it.") from None
    if metadata is None:
        raise InputError(f"{path} was not written by pixelscope; give a checkpoint of a run.")
    return tensors, _read_header(path, metadata)


def _read_header(path: Path, metadata: str) -> CheckpointHeader:
    try:
        values = json.loads(metadata)
    except UNREADABLE:
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged (its header is not a JSON object); delete it to use the checkpoint before it.")
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {values.get('format')}, and this version of pixelscope reads format {FORMAT}; "
            "use the version named in the run's run.json, or train again."
        )
    try:
        return TypeAdapter(CheckpointHeader).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is damaged (its header: {where}: {first['msg']}); delete it to use the checkpoint before it."
        ) from None


def has_shapes(build: Callable[[], Iterable[nn.Module | None]], *tensors: Mapping[str, Tensor]) -> bool:
    """Return whether each network has exactly the given tensors, by name and shape.

    The networks are built without weights, so that a damaged configuration with billions of weights takes no memory.

    Args:
        build: builds the networks; None for an absent one.
        tensors: the tensors to load into each network.
    """
    with torch.device("meta"):
        shapes = [{} if one is None else {name: t.shape for name, t in one.state_dict().items()} for one in build()]
    return shapes == [{name: tensor.shape for name, tensor in some.items()} for some in tensors]


def weights(task: Task[Any]) -> dict[str, Tensor]:
    """Return the tensors of every network of `task` and its moving average, by name."""
    tensors: dict[str, Tensor] = {}
    for name, network in task.networks.items():
        tensors |= _prefixed(f"network.{name}", network.state_dict())
    for name, average in task.averages.items():
        tensors |= _prefixed(f"average.{name}", average.network.state_dict())
    return tensors


def state(task: Task[Any]) -> dict[str, Tensor]:
    """Return every tensor needed to continue `task` exactly, by name."""
    tensors = weights(task) | _prefixed("memory", task.schedule_state)
    for name, optimizer in task.optimizers.items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in _moments(optimizer)}
    return tensors


def restore(task: Task[Any], tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Restore the tensors of `state`; raises InputError if names or shapes differ from those of `task`."""
    try:
        for name, network in task.networks.items():
            network.load_state_dict(under(tensors, f"network.{name}."))
        for name, average in task.averages.items():
            average.network.load_state_dict(under(tensors, f"average.{name}."))
    except RuntimeError:
        raise InputError(f"{origin} belongs to a run with other networks; give a checkpoint of this configuration.") from None
    _restore_schedule_state(task.schedule_state, under(tensors, "memory."), origin)
    for name, optimizer in task.optimizers.items():
        _restore_moments(optimizer, under(tensors, f"optimizer.{name}."))


def _restore_schedule_state(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: Path) -> None:
    for name, value in state.items():
        if name not in tensors:
            raise InputError(f"{origin} lacks the number {name!r} of its schedule; give a checkpoint of this version.")
        value.copy_(tensors[name])


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _moments(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            yield f"{index}.{key}", value


def _restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = _match_memory_format(parameters[int(index)], tensor)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _match_memory_format(parameter: Tensor, moment: Tensor) -> Tensor:
    # A file contains tensors in contiguous order. A fused optimizer iterates over weights and moments in memory order, so the
    # moments of a channels-last weight must be channels-last too.
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment) if moment.shape == parameter.shape else moment


def weights_sha256(*networks: nn.Module) -> str:
    """Return the SHA-256 of the names, shapes and values of all tensors of the networks."""
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
