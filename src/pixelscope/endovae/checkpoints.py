"""Opens trained runs with one of their checkpoints; no checkpoint is selected on test frames."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelscope.config import read_yaml
from pixelscope.endovae.anomaly.calibration import FILE, Calibration, read_calibration
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.networks import AnyDecoder, AnyEncoder, Networks, make_networks
from pixelscope.engine import checkpoint
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder

SYSTEM = "endovae"
CHECKPOINTS = ("best-validation", "ema-last", "last")


@dataclass(frozen=True)
class Checkpoint:
    """A run with the networks of one checkpoint, in evaluation mode, on the CPU."""

    folder: RunFolder
    record: Mapping[str, Any]
    """Content of run.json when the run was opened."""
    config: EndoVAEConfig
    name: str
    """Name of the checkpoint: `best-validation`, `ema-last` or `last`."""
    images: int
    """Images seen at this checkpoint."""
    encoder: AnyEncoder
    decoder: AnyDecoder

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 of the weights."""
        return weights_sha256(self.encoder, self.decoder)

    def calibration(self) -> Calibration:
        """Return the calibration of these weights.

        Raises:
            InputError: the run has no calibration, or one of other weights or of frames that were prepared otherwise.
        """
        path = self.folder.path
        found = read_calibration(self.folder.checkpoints / FILE)
        remedy = f"run `pixelscope endovae evaluate {path} --checkpoint {self.name}`."
        if (found.checkpoint, found.images) != (self.name, self.images):
            raise InputError(
                f"The calibration in {path} is of the checkpoint {found.checkpoint} at {found.images:,} images, not of "
                f"{self.name} at {self.images:,}; {remedy}"
            )
        if found.weights_sha256 != self.sha256:
            raise InputError(f"The calibration in {path} is of other weights than the run's checkpoint; {remedy}")
        found.require_prepared(self.config.prepare, self.folder.config)
        return found


def load_checkpoint(run: Path, name: str = "auto", *, finished: bool = True) -> Checkpoint:
    """Open a run with one of its checkpoints.

    Args:
        run: a run folder of EndoVAE.
        name: `best-validation`, `ema-last` or `last`; `auto` is the first of these that the run has.
        finished: refuse an unfinished run, unless a checkpoint is named.

    Raises:
        InputError: `run` is not a run of EndoVAE, is damaged or unfinished, or has no such checkpoint.
    """
    opened = _open(run)
    if finished and name == "auto":
        opened.folder.require_finished(opened.record)
    return _select(_read(opened), name)


def load_checkpoints(run: Path, name: str = "auto") -> tuple[Checkpoint, list[Checkpoint]]:
    """Open a run with all its checkpoints, and return the one called `name` and all.

    best-validation: lowest validation loss, as in the reference study, with moving averages if the run has them; a run with
    an adversarial loss has none. ema-last: the newest moving averages. last: the newest weights. `auto` is the first of
    these that the run has.

    Raises:
        InputError: `run` is not a run of EndoVAE, is damaged, or has no such checkpoint.
    """
    checkpoints = list(_read(_open(run)))
    return _select(checkpoints, name), checkpoints


def _select(checkpoints: Iterable[Checkpoint], name: str) -> Checkpoint:
    """Return a checkpoint by name, the first for `auto`; raises InputError if there is none."""
    others: list[Checkpoint] = []
    for one in checkpoints:
        if name in ("auto", one.name):
            return one
        others.append(one)
    names = ", ".join(other.name for other in others)
    raise InputError(f"{others[0].folder.path} has no checkpoint {name!r}; choose one of {names}.")


def read_config(folder: RunFolder) -> EndoVAEConfig:
    """Return the configuration of a run; raises InputError if it is not a run of EndoVAE."""
    return _config(folder, folder.read_record())


@dataclass(frozen=True)
class _Opened:
    folder: RunFolder
    record: Mapping[str, Any]
    config: EndoVAEConfig


def _open(run: Path) -> _Opened:
    folder = RunFolder.open(run)
    record = folder.read_record()
    return _Opened(folder, record, _config(folder, record))


def _config(folder: RunFolder, record: Mapping[str, Any]) -> EndoVAEConfig:
    system = record.get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not of endovae; give a run of endovae.")
    return EndoVAEConfig.parse(read_yaml(folder.config), str(folder.config))


def _read(run: _Opened) -> Iterator[Checkpoint]:
    """Yield the checkpoints; each file is read once, when it is needed."""
    best, numbered = run.folder.checkpoints / "best.safetensors", run.folder.checkpoint_files()
    if not numbered and not best.is_file():
        raise InputError(f"{run.folder.path} has no checkpoint yet; wait until the training has saved its first one.")
    if best.is_file():
        tensors, header = checkpoint.load(best)
        yield _built(run, "best-validation", best, "average" if _has_average(tensors) else "network", tensors, header)
    if numbered:
        newest = numbered[-1]
        tensors, header = checkpoint.load(newest)
        if _has_average(tensors):
            yield _built(run, "ema-last", newest, "average", tensors, header)
        yield _built(run, "last", newest, "network", tensors, header)


def _has_average(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("average.decoder.") for name in tensors)


def _built(
    run: _Opened, name: str, path: Path, kind: str, tensors: Mapping[str, Tensor], header: checkpoint.CheckpointHeader
) -> Checkpoint:
    found = load_networks(run.config, tensors, f"{kind}.")
    if found is None:
        raise InputError(f"The networks in {path} differ from those in the run's config.yaml; restore that file.")
    return Checkpoint(run.folder, run.record, run.config, name, header.progress.images, *found)


def load_networks(config: EndoVAEConfig, tensors: Mapping[str, Tensor], prefix: str = "") -> Networks | None:
    """Build encoder and decoder and load their tensors, which are named PREFIXencoder.NAME and PREFIXdecoder.NAME.

    Returns:
        Both in evaluation mode; None if names or shapes differ.
    """
    own = [
        {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        for start in (f"{prefix}encoder.", f"{prefix}decoder.")
    ]
    if not checkpoint.has_shapes(lambda: _untrained(config), *own):
        return None
    networks = _untrained(config)
    for network, some in zip(networks, own, strict=True):
        network.load_state_dict(some)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        network.eval().requires_grad_(False)
    return networks


def _untrained(config: EndoVAEConfig) -> Networks:
    """Return the networks of a configuration, their weights not yet loaded."""
    with torch.random.fork_rng(devices=[]):  # The initial weights are replaced.
        return make_networks(config.prepare.size, **config.model.model_dump())
