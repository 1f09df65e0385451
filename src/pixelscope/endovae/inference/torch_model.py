"""Encoder and decoder in torch as a function of frames, from a run or a .safetensors file."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.endovae.anomaly.maps import error_maps
from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import as_channels_first, to_unit
from pixelscope.endovae.forward import Reconstructed
from pixelscope.endovae.inference.metadata import read_metadata
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.task import build_networks
from pixelscope.engine.checkpoint import fingerprint
from pixelscope.errors import InputError
from pixelscope.exports.weights import read_weights
from pixelscope.imaging.config import PrepareConfig
from pixelscope.inference.replicas import Replicas

NETWORKS = ("encoder", "decoder")
"""What the names of its tensors begin with in a .safetensors file."""


class TorchScorer:
    """Encoder and decoder on one or several devices; see `ScoringModel`."""

    def __init__(
        self, encoder: Encoder, decoder: Decoder, prepare: PrepareConfig, calibration: Calibration, devices: int = 1
    ) -> None:
        self.prepare, self.calibration, self.devices = prepare, calibration, devices
        self.identity = {"model": fingerprint(encoder, decoder)}
        self._replicas = Replicas(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), devices)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, calibration: Calibration, devices: int = 1) -> Self:
        """Take over the networks of a checkpoint; `calibration` is of these weights."""
        return cls(checkpoint.encoder, checkpoint.decoder, checkpoint.config.prepare, calibration, devices)

    @classmethod
    def from_run(cls, run: Path, rule: str = "auto", devices: int = 1) -> Self:
        """Open a finished and evaluated run."""
        checkpoint = load_checkpoint(run, rule)
        return cls.from_checkpoint(checkpoint, checkpoint.calibration(), devices)

    @classmethod
    def from_file(cls, path: Path, devices: int = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError where it cannot be used."""
        tensors, about = read_weights(path)
        prepare, calibration = read_metadata(about, str(path))
        networks = build_networks(EndoVAEConfig.parse(about.config, str(path)))
        for name, network in zip(NETWORKS, networks, strict=True):
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            try:
                network.load_state_dict(own)
            except RuntimeError:
                raise InputError(f"{path} holds weights of other shapes than it says; export the run again.") from None
        return cls(*networks, prepare, calibration, devices)

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8]) -> ErrorMaps:
        """Return what the networks make of uint8 frames (N, S, S, 3)."""
        with self._replicas.lent() as (networks, device):
            images = to_unit(as_channels_first(frames).to(device))
            posterior = Posterior.from_parameters(networks["encoder"](images))
            reconstructions = networks["decoder"](posterior.mode)
            posterior = Posterior(posterior.mean.cpu(), posterior.log_variance.cpu())
            return error_maps(Reconstructed(images.cpu(), reconstructions.float().cpu(), posterior))
