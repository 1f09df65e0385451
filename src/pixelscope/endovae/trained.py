"""The networks of a finished run and their calibration, ready for use."""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelscope.endovae.anomaly.calibration import FILE, Calibration, read_calibration
from pixelscope.endovae.anomaly.maps import maps_of
from pixelscope.endovae.anomaly.scores import Maps
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.chosen import choose
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.exported import told
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.reconstruction import Reconstructed
from pixelscope.endovae.task import build_networks
from pixelscope.endovae.training import read_config
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.errors import InputError
from pixelscope.exchange.weights_file import read_weights
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.folder import RunFolder

NETWORKS = ("encoder", "decoder")
"""What the names of its tensors begin with in a .safetensors file."""


class TrainedRun:
    """A finished run of EndoVAE, its weights chosen by a rule."""

    def __init__(self, run: Path, rule: str = "auto", finished: bool = True) -> None:
        """Open it; raises InputError where it is not one, or damaged.

        finished: refuse a run that is not, unless a rule is named.
        """
        self.folder = RunFolder.open(run)
        self.config = read_config(self.folder)
        if finished and rule == "auto":
            self.folder.require_finished()
        self.rule, self.weights = choose(self.folder, self.config, rule)

    def calibration(self) -> Calibration:
        """Return the calibration of these weights; raises InputError where there is none, or it is of others."""
        found = read_calibration(self.folder.checkpoints / FILE)
        path = self.folder.path
        if (found.rule, found.images) != (self.rule, self.weights.images):
            raise InputError(
                f"The calibration in {path} is of the weights {found.rule} after {found.images:,} images and not of "
                f"{self.rule} after {self.weights.images:,}; run `pixelscope endovae evaluate {path} --rule {self.rule}`."
            )
        if found.weights not in ("", fingerprint(self.weights.encoder, self.weights.decoder)):
            raise InputError(
                f"The calibration in {path} is of other weights than the run's, of the same rule and as many images; run "
                f"`pixelscope endovae evaluate {path} --rule {self.rule}`."
            )
        return found


class TorchScorer:
    """Encoder and decoder on one or several devices; see `ScoringModel`."""

    def __init__(
        self, encoder: Encoder, decoder: Decoder, prepare: PrepareConfig, calibration: Calibration, devices: int = 1
    ) -> None:
        self.prepare, self.calibration, self.devices = prepare, calibration, devices
        self.identity = {"model": fingerprint(encoder, decoder)}
        self._replicas = Replicas(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), devices)

    @classmethod
    def of_run(cls, run: Path, rule: str = "auto", devices: int = 1) -> Self:
        """Open a finished and evaluated run."""
        opened = TrainedRun(run, rule)
        weights = opened.weights
        return cls(weights.encoder, weights.decoder, opened.config.prepare, opened.calibration(), devices)

    @classmethod
    def of_file(cls, path: Path, devices: int = 1) -> Self:
        """Open a .safetensors file that `export` made; raises InputError where it cannot be used."""
        tensors, about = read_weights(path)
        prepare, calibration = told(about, str(path))
        networks = build_networks(EndoVAEConfig.parse(about.config, str(path)))
        for name, network in zip(NETWORKS, networks, strict=True):
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            try:
                network.load_state_dict(own)
            except RuntimeError:
                raise InputError(f"{path} holds weights of other shapes than it says; export the run again.") from None
        return cls(*networks, prepare, calibration, devices)

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8]) -> Maps:
        """Return what the networks make of uint8 frames (N, S, S, 3)."""
        with self._replicas.lent() as (networks, device):
            images = to_unit(as_channels_first(frames).to(device))
            posterior = Posterior.of(networks["encoder"](images))
            reconstructions = networks["decoder"](posterior.mode)
            posterior = Posterior(posterior.mean.cpu(), posterior.log_variance.cpu())
            return maps_of(Reconstructed(images.cpu(), reconstructions.float().cpu(), posterior))
