"""Encoder and decoder in torch, from a run or from exported weights, on NumPy arrays."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelscope.endovae.anomaly.calibration import Calibration, read_metadata
from pixelscope.endovae.anomaly.scores import ErrorMaps
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint, load_networks
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import as_channels_first, to_frames, to_unit
from pixelscope.endovae.forward import Reconstructed, decode, random_latents
from pixelscope.endovae.losses import Posterior
from pixelscope.endovae.metrics import Dissimilarity, pixel_maps
from pixelscope.endovae.networks import AnyDecoder, AnyEncoder
from pixelscope.engine.checkpoint import weights_sha256
from pixelscope.errors import InputError
from pixelscope.exports.weights import read_weights
from pixelscope.imaging.config import PrepareConfig
from pixelscope.imaging.convert import require_rgb
from pixelscope.inference.replicas import AT_ONCE, ReplicaPool
from pixelscope.rng import generator

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

NETWORKS = ("encoder", "decoder")
"""Prefix of tensor names in a .safetensors file."""


class TorchVAE:
    """Encoder and decoder of a run."""

    def __init__(self, encoder: AnyEncoder, decoder: AnyDecoder, pooled: bool = False, devices: int | None = 1) -> None:
        """Use these networks.

        Args:
            encoder: on the CPU.
            decoder: likewise.
            pooled: compute on GPUs if there are some, and by several threads at a time; False: on the CPU.
            devices: of a pool; see `ReplicaPool`.
        """
        self._networks = nn.ModuleDict(dict(zip(NETWORKS, (encoder, decoder), strict=True)))
        self._replicas = ReplicaPool(self._networks, devices) if pooled else None
        self.devices, self._at_once = (
            (1, AT_ONCE) if self._replicas is None else (self._replicas.devices, self._replicas.at_once)
        )

    @property
    def identity(self) -> dict[str, str]:
        """Return the SHA-256 of the weights."""
        return {"model": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        return weights_sha256(*self._networks.values())

    def encode(self, frames: Bytes) -> Floats:
        """Return the posterior means (N, latent) of uint8 frames (N, S, S, 3)."""
        parts = [self._reconstruct(frames[rows]) for rows in self._batches(len(frames))]
        return np.concatenate([part.posterior.mean.numpy() for part in parts])

    def decode(self, z: Floats) -> Bytes:
        """Return the uint8 frames (N, S, S, 3) of latent vectors (N, latent)."""
        with self._acquire() as (networks, device):
            return decode(networks["decoder"], torch.from_numpy(np.asarray(z, np.float32)).to(device)).cpu().numpy()

    def reconstruct(
        self, frames: Bytes, noise: Floats | None = None, insets: NDArray[np.bool_] | None = None
    ) -> tuple[Bytes, Floats, Floats]:
        """Return reconstructions of uint8 frames (N, S, S, 3), and their PSNR in dB and SSIM, (N,) each.

        Args:
            frames: as the encoder takes them.
            noise: standard normal values (N, latent) to sample each posterior with; None uses its mode.
            insets: pixels that are left out of PSNR and SSIM, (N, S, S).
        """
        drawn, quality = [], []
        with self._share_of_cores():
            for rows in self._batches(len(frames)):
                part = self._reconstruct(frames[rows], None if noise is None else noise[rows])
                mask = None if insets is None else torch.from_numpy(~insets[rows, None]).float()
                drawn.append(to_frames(part.reconstructions))
                quality.append(pixel_maps(part.images, part.reconstructions).quality(mask))
        psnr, ssim = (torch.cat([one[name] for one in quality]).numpy() for name in ("psnr", "ssim"))
        return np.concatenate(drawn), psnr, ssim

    def analyze(self, frames: Bytes) -> tuple[ErrorMaps, Bytes]:
        """Return error maps and reconstructions of uint8 frames (N, S, S, 3)."""
        with self._share_of_cores():
            parts = [self._reconstruct(frames[rows]) for rows in self._batches(len(frames))]
            maps = ErrorMaps.join([_error_maps(part) for part in parts])
            return maps, np.concatenate([to_frames(part.reconstructions) for part in parts])

    @torch.no_grad()
    def _reconstruct(self, frames: Bytes, noise: Floats | None = None) -> Reconstructed:
        with self._acquire() as (networks, device):
            images = to_unit(as_channels_first(frames).to(device))
            posterior = Posterior.from_parameters(networks["encoder"](images))
            z = posterior.mode if noise is None else posterior.sample(torch.from_numpy(noise).to(device))
            reconstructions = networks["decoder"](z).float().cpu()
            return Reconstructed(images.cpu(), reconstructions, Posterior(posterior.mean.cpu(), posterior.log_variance.cpu()))

    def _batches(self, count: int) -> Iterator[slice]:
        return (slice(start, start + self._at_once) for start in range(0, count, self._at_once))

    def _share_of_cores(self) -> AbstractContextManager[None]:
        return nullcontext() if self._replicas is None else self._replicas.share_of_cores()

    @contextmanager
    def _acquire(self) -> Iterator[tuple[nn.ModuleDict, torch.device]]:
        if self._replicas is None:
            yield self._networks, torch.device("cpu")
        else:
            with self._replicas.acquire() as one:
                yield one


class TorchScorer(TorchVAE):
    """Encoder and decoder with the calibration of their scores; see `ScoringModel`."""

    def __init__(
        self,
        encoder: AnyEncoder,
        decoder: AnyDecoder,
        prepare: PrepareConfig,
        calibration: Calibration,
        devices: int | None = 1,
    ) -> None:
        super().__init__(encoder, decoder, True, devices)
        self.prepare, self.calibration = prepare, calibration

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, calibration: Calibration, devices: int | None = 1) -> Self:
        """Use the networks of a checkpoint; `calibration` must be of these weights."""
        return cls(checkpoint.encoder, checkpoint.decoder, checkpoint.config.prepare, calibration, devices)

    @classmethod
    def from_run(cls, run: Path, checkpoint: str = "auto", devices: int | None = 1) -> Self:
        """Open a finished and evaluated run."""
        loaded = load_checkpoint(run, checkpoint)
        return cls.from_checkpoint(loaded, loaded.calibration(), devices)

    @classmethod
    def from_file(cls, path: Path, devices: int | None = 1) -> Self:
        """Open a .safetensors file made by `export`; raises InputError if it cannot be used."""
        tensors, about = read_weights(path)
        prepare, calibration = read_metadata(about, str(path))
        networks = load_networks(EndoVAEConfig.parse(about.config, str(path)), tensors)
        if networks is None:
            raise InputError(f"The weights in {path} do not match the configuration in its metadata; export the run again.")
        return cls(*networks, prepare, calibration, devices)

    def __call__(self, frames: Bytes) -> ErrorMaps:
        """Return the error maps of uint8 frames (N, S, S, 3); raises InputError for others."""
        require_rgb(frames, self.prepare.size)
        with self._share_of_cores():
            return ErrorMaps.join([_error_maps(self._reconstruct(frames[rows])) for rows in self._batches(len(frames))])


class EndoVAEGraph(nn.Module):
    """The network exported to ONNX: maps frames to reconstructions from the posterior mode, and to `ErrorMaps`."""

    OUTPUTS = ("reconstruction", "error", "dissimilarity", "kl", "mean")

    def __init__(self, encoder: AnyEncoder, decoder: AnyDecoder, size: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dissimilarity = encoder, decoder, Dissimilarity(size)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs named in `OUTPUTS` for frames (N, 3, S, S) in [0, 1]."""
        posterior = Posterior.from_parameters(self.encoder(frames))
        reconstruction = self.decoder(posterior.mode)
        error = (frames - reconstruction).square().mean(1)
        return reconstruction, error, self.dissimilarity(frames, reconstruction), posterior.measured_kl(), posterior.mean


def exported_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of encoder and decoder by their names in a .safetensors file."""
    named = zip(NETWORKS, (checkpoint.encoder, checkpoint.decoder), strict=True)
    return {f"{name}.{key}": value for name, network in named for key, value in network.state_dict().items()}


def draw_latents(count: int, latent: int, seed: int, *path: int | str) -> Floats:
    """Return random latent vectors (count, latent), z ~ N(0, I), determined by `seed` and `path`."""
    return random_latents(count, latent, generator("cpu", seed, *path)).numpy()


@torch.no_grad()
def _error_maps(batch: Reconstructed) -> ErrorMaps:
    found = pixel_maps(batch.images, batch.reconstructions)
    kl, mean = batch.posterior.measured_kl(), batch.posterior.mean
    return ErrorMaps(found.error.numpy(), found.dissimilarity.numpy(), kl.numpy(), mean.numpy())
