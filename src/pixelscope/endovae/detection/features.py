"""Features of a view's frames: maps of a network, pretrained or learned, summarised per frame and per patch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.detection.config import LEARNED_SIDE, PRETRAINED_SIDE
from pixelscope.endovae.detection.pseudo_lesions import (
    LesionHead,
    LesionNet,
    draw_into_each,
    train_lesion_head,
    train_lesion_net,
)
from pixelscope.endovae.lite0 import BLOCKS, PATCHED, Lite0Features, load_lite0
from pixelscope.imaging.resize import resize_frames_bicubic
from pixelscope.inference.files import in_order
from pixelscope.inference.replicas import limited_threads
from pixelscope.rng import derive

BATCH = 32
"""Frames whose features a detector scores at once."""
PASS = 4
"""Frames per forward pass of a network: of 32, activations fill the memory, and a pass takes twice as long per frame."""
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FrameFeatures:
    """Features of N frames; the first dimension of each array is the frame."""

    pooled: tuple[Floats, ...]
    """(N, 2 C) for each map: mean and standard deviation of each channel over all positions."""
    patches: Floats
    """(N, G, G, C'): the channels of two maps, at the size of the coarser."""
    fine: Floats
    """(N, H, W, C'): the same at the size of the finer, averaged over 3 x 3 positions (Roth et al. 2022, equation 2)."""
    lesion: Floats | None = None
    """(N, h, w) in [0, 1]: probability of a pseudo-lesion at each position; None if nothing was trained to find them."""
    with_lesion: tuple[Floats, ...] | None = None
    """`pooled` of the same frames with one pseudo-lesion drawn into each; None where nothing is fitted to them."""

    def __getitem__(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "FrameFeatures":
        lesion = None if self.lesion is None else self.lesion[rows]
        drawn = None if self.with_lesion is None else tuple(one[rows] for one in self.with_lesion)
        return FrameFeatures(tuple(one[rows] for one in self.pooled), self.patches[rows], self.fine[rows], lesion, drawn)

    def __len__(self) -> int:
        return len(self.patches)

    def batches(self) -> Iterator["ImageFeatures"]:
        """Yield the features as tensors, some frames at a time."""
        for start in range(0, len(self), BATCH):
            rows = slice(start, start + BATCH)
            lesion = None if self.lesion is None else torch.from_numpy(self.lesion[rows])
            patches, fine, *pooled = (torch.from_numpy(one[rows]) for one in (self.patches, self.fine, *self.pooled))
            yield ImageFeatures(tuple(pooled), patches, fine, lesion)


class ImageFeatures(NamedTuple):
    """Features of N images as tensors; see `FrameFeatures`."""

    pooled: tuple[Tensor, ...]
    patches: Tensor
    fine: Tensor
    lesion: Tensor | None = None

    def lesion_maps(self) -> Tensor:
        """Return `lesion`.

        Raises:
            ValueError: it is None.
        """
        if self.lesion is None:
            raise ValueError("these features have no lesion maps")
        return self.lesion


class Extractor(nn.Module, ABC):
    """A network that makes features.

    Attributes:
        trained: what was trained on pseudo-lesions, if anything was.
    """

    side: ClassVar[int]
    """Side in pixels of the images that it sees."""
    trained: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> ImageFeatures:
        """Return the features of float32 images (N, 3, side, side) in [0, 1]."""

    def features(self, frames: Bytes) -> FrameFeatures:
        """Return the features of uint8 frames (N, S, S, 3).

        Where there are enough, every core passes other frames: small convolutions divided among cores wait for one another.
        """
        parts = [frames[start : start + PASS] for start in range(0, len(frames), PASS)]
        threads = torch.get_num_threads()
        workers = max(1, min(threads, len(parts)))

        def one_pass(some: Bytes) -> ImageFeatures:
            with limited_threads(threads // workers), torch.no_grad():
                return self(_images(some, self.side))

        return _joined(in_order(one_pass, parts, workers, ahead=2 * workers), len(frames))

    def with_pseudo_lesions(self, features: FrameFeatures, frames: Bytes, seed: int) -> FrameFeatures:
        """Return the features of uint8 frames (N, S, S, 3), and those of the frames with one pseudo-lesion drawn into each."""
        drawn = draw_into_each(resize_frames_bicubic(frames, self.side), seed)
        parts = [self.features(drawn[start : start + BATCH]).pooled for start in range(0, len(drawn), BATCH)]
        return replace(features, with_lesion=tuple(np.concatenate(levels) for levels in zip(*parts, strict=True)))


class PretrainedExtractor(Extractor):
    """Features of EfficientNet-Lite0; see `Extractor`."""

    side = PRETRAINED_SIDE

    def __init__(self, network: Lite0Features, trained: LesionHead | None = None, mirrored: bool = False) -> None:
        """Take the parts.

        Args:
            network: makes the features.
            trained: layers that make lesion maps of them, if there are any.
            mirrored: pooled features are averaged over an image and its mirror image.
        """
        super().__init__()
        self.network = network
        self.trained: LesionHead | None = trained
        self.mirrored = mirrored

    def forward(self, images: Tensor) -> ImageFeatures:
        """Return the features of float32 images (N, 3, side, side) in [0, 1]."""
        found = self.network(images)
        features = _summarised(found, [found[list(BLOCKS).index(block)] for block in PATCHED])
        if self.mirrored:
            pairs = zip(features.pooled, _pooled(self.network(images.flip(3))), strict=True)
            features = features._replace(pooled=tuple((one + other) / 2 for one, other in pairs))
        return features if self.trained is None else features._replace(lesion=self.trained(features.fine).sigmoid())

    def with_lesion_maps(self, features: FrameFeatures) -> FrameFeatures:
        """Return features of this network with lesion maps, if it has layers that make them."""
        return features if self.trained is None else replace(features, lesion=self.trained.probabilities(features.fine))

    def trained_on(self, frames: Bytes, images: int, seed: int, fold: int) -> "PretrainedExtractor":
        """Train layers that find pseudo-lesions in healthy frames, uint8 (N, S, S, 3), and return the extractor with them."""
        bare = PretrainedExtractor(self.network)
        seeded = derive(seed, "fold", fold)
        head = train_lesion_head(
            lambda some: bare.features(some).fine, resize_frames_bicubic(frames, self.side), images, seeded
        )
        return PretrainedExtractor(self.network, head, self.mirrored)


class LearnedExtractor(Extractor):
    """Features of a network that learned to find pseudo-lesions; see `Extractor`."""

    side = LEARNED_SIDE

    def __init__(self, trained: LesionNet) -> None:
        super().__init__()
        self.trained: LesionNet = trained

    def forward(self, images: Tensor) -> ImageFeatures:
        """Return the features of float32 images (N, 3, side, side) in [0, 1]."""
        encoded = self.trained.encode(images)
        return _summarised(encoded, encoded[1:])._replace(lesion=self.trained.decode(*encoded).sigmoid())


def pretrained_extractor(trained: LesionHead | None = None, mirrored: bool = False) -> PretrainedExtractor:
    """Return the extractor of the features of EfficientNet-Lite0."""
    return PretrainedExtractor(load_lite0("A detector on features of EfficientNet-Lite0"), trained, mirrored)


def learned_extractor(frames: NDArray[np.uint8], images: int, seed: int, fold: int) -> LearnedExtractor:
    """Train a network on healthy frames, uint8 (N, S, S, 3), and return the extractor of its features."""
    return LearnedExtractor(train_lesion_net(frames, images, derive(seed, "fold", fold)))


def _images(frames: Bytes, side: int) -> Tensor:
    """Return uint8 frames (N, S, S, 3) as float32 images (N, 3, side, side) in [0, 1]."""
    # A copy: frames of a store are mapped and cannot be written to.
    return torch.from_numpy(np.array(resize_frames_bicubic(frames, side))).permute(0, 3, 1, 2).float().div_(255)


def _summarised(maps: Sequence[Tensor], patched: Sequence[Tensor]) -> ImageFeatures:
    """Summarise maps (N, C, h, w): all of them pooled, and two as patches, the finer one first."""
    fine, coarse = patched
    patches = torch.cat([F.adaptive_avg_pool2d(fine, (coarse.shape[2], coarse.shape[3])), coarse], 1)
    sharp = torch.cat([fine, F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)], 1)
    smooth = F.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    return ImageFeatures(_pooled(maps), _last(patches), _last(smooth))


def _pooled(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.cat([one.mean((2, 3)), one.std((2, 3))], 1) for one in maps)


def _last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).contiguous()


def _joined(parts: Iterable[ImageFeatures], count: int) -> FrameFeatures:
    """Return the features of batches as those of `count` frames, each batch copied when it is there, to save memory."""
    arrays: list[Floats] = []
    start = levels = 0
    for part in parts:
        levels, stop = len(part.pooled), start + len(part.patches)
        tensors = [*part.pooled, part.patches, part.fine, *([] if part.lesion is None else [part.lesion])]
        arrays = arrays or [np.empty((count, *one.shape[1:]), np.float32) for one in tensors]
        for array, tensor in zip(arrays, tensors, strict=True):
            array[start:stop] = tensor
        start = stop
    patches, fine, *rest = arrays[levels:]
    return FrameFeatures(tuple(arrays[:levels]), patches, fine, rest[0] if rest else None)
