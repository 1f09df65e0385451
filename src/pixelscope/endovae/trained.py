"""The networks of a finished run and their calibration, ready for use."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelscope.endovae.anomaly.calibration import FILE, Calibration, read_calibration
from pixelscope.endovae.anomaly.maps import maps_of
from pixelscope.endovae.anomaly.scores import Maps
from pixelscope.endovae.batches import as_channels_first, to_unit
from pixelscope.endovae.chosen import choose
from pixelscope.endovae.posterior import Posterior
from pixelscope.endovae.reconstruction import Reconstructed
from pixelscope.endovae.training import read_config
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.engine.replicas import Replicas
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError


class TrainedRun:
    """A finished run of EndoVAE, its weights chosen by a rule."""

    def __init__(self, run: Path, rule: str = "auto") -> None:
        """Open it; raises InputError where it is not one, not finished (and no rule named), or damaged."""
        self.folder = RunFolder.open(run)
        self.config = read_config(self.folder)
        if rule == "auto":
            self.folder.require_finished()
        self.rule, self.weights = choose(self.folder, self.config, rule)

    def calibration(self) -> Calibration:
        """Return the calibration of these weights; raises InputError where there is none, or it is of others."""
        found = read_calibration(self.folder.checkpoints / FILE)
        if (found.rule, found.images) != (self.rule, self.weights.images):
            path = self.folder.path
            raise InputError(
                f"The calibration in {path} is of the weights {found.rule} after {found.images:,} images and not of "
                f"{self.rule} after {self.weights.images:,}; run `pixelscope endovae evaluate {path} --rule {self.rule}`."
            )
        return found


class TrainedScorer:
    """Encoder and decoder of a run; see `ScoringModel`."""

    def __init__(self, run: Path, rule: str = "auto", devices: int = 1) -> None:
        opened = TrainedRun(run, rule)
        self.prepare, self.calibration, self.devices = opened.config.prepare, opened.calibration(), devices
        weights = opened.weights
        self.identity = {"model": fingerprint(weights.encoder, weights.decoder)}
        self._replicas = Replicas(nn.ModuleDict({"encoder": weights.encoder, "decoder": weights.decoder}), devices)

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8]) -> Maps:
        """Return what the networks make of uint8 frames (N, S, S, 3)."""
        with self._replicas.lent() as (networks, device):
            images = to_unit(as_channels_first(frames).to(device))
            posterior = Posterior.of(networks["encoder"](images))
            reconstructions = networks["decoder"](posterior.mode)
            posterior = Posterior(posterior.mean.cpu(), posterior.log_variance.cpu())
            return maps_of(Reconstructed(images.cpu(), reconstructions.float().cpu(), posterior))
