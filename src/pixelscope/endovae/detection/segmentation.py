"""A small U-Net that finds pseudo-lesions, trained from scratch on healthy frames without labels."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.detection.pseudo_lesions import draw_example, vary
from pixelscope.rng import derive

SIDE = 112
"""Side of the frames that the network sees, in pixels."""
STRIDE = 4
"""Pixels of a frame per element of the map."""
WIDTHS = (24, 32, 48, 64, 96)
"""Channels of the encoder at 1/2, 1/2, 1/4, 1/8 and 1/16 of the side."""
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
DICE_WEIGHT = 0.5


class LesionNet(nn.Module):
    """A U-Net with a map at a quarter of the side (Ronneberger et al., MICCAI 2015, reduced)."""

    def __init__(self) -> None:
        super().__init__()
        stem, half, quarter, eighth, sixteenth = WIDTHS
        self.stem = nn.Sequential(_convolution(3, stem, stride=2), _convolution(stem, half))
        self.quarter = nn.Sequential(_convolution(half, quarter, stride=2), _convolution(quarter, quarter))
        self.eighth = nn.Sequential(_convolution(quarter, eighth, stride=2), _convolution(eighth, eighth))
        self.sixteenth = nn.Sequential(_convolution(eighth, sixteenth, stride=2), _convolution(sixteenth, sixteenth))
        self.up_eighth = _convolution(sixteenth + eighth, eighth)
        self.up_quarter = _convolution(eighth + quarter, quarter)
        self.map = nn.Conv2d(quarter, 1, 1)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of frames (N, 3, S, S) in [0, 1] at 1/4, 1/8 and 1/16 of the side."""
        quarter = self.quarter(self.stem(frames * 2 - 1))
        eighth = self.eighth(quarter)
        return quarter, eighth, self.sixteenth(eighth)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits of lesion pixels, (N, S/4, S/4), for frames (N, 3, S, S) in [0, 1]."""
        return self.decode(*self.encode(frames))

    def decode(self, quarter: Tensor, eighth: Tensor, sixteenth: Tensor) -> Tensor:
        """Return the logits of lesion pixels, (N, S/4, S/4), from what `encode` returned."""
        eighth = self.up_eighth(torch.cat([_doubled(sixteenth), eighth], 1))
        quarter = self.up_quarter(torch.cat([_doubled(eighth), quarter], 1))
        return self.map(quarter).squeeze(1)


def segmentation_loss(logits: Tensor, lesions: Tensor) -> Tensor:
    """Return cross-entropy and weighted Dice loss (Milletari et al., 3DV 2016, section 3), of (N, h, w) each."""
    found = logits.sigmoid()
    both, either = (found * lesions).sum((1, 2)), (found + lesions).sum((1, 2))
    dice = 1 - (2 * both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, lesions) + DICE_WEIGHT * dice.mean()


def train_lesion_net(frames: NDArray[np.uint8], images: int, seed: int) -> LesionNet:
    """Train on pseudo-lesions.

    Args:
        frames: healthy frames, uint8 (N, S, S, 3), N > 1.
        images: number of drawn examples to train on.
        seed: seed of weights and examples.

    Returns:
        The network, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights of the lesion network"))
        network = LesionNet()
    steps = max(1, images // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for examples, lesions in _batches(resized(frames, SIDE), steps, seed):
        optimizer.zero_grad()
        segmentation_loss(network(examples), lesions).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def resized(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return uint8 frames (N, S, S, 3), or masks (N, S, S), at another side, by area where they shrink."""
    if frames.shape[1] == side:
        return frames
    how = cv2.INTER_AREA if frames.shape[1] > side else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (side, side), interpolation=how) for frame in frames])


def _batches(frames: NDArray[np.uint8], steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield examples (n, 3, S, S) in [0, 1] and their lesions (n, S/4, S/4), each a function of seed and step."""
    for step in range(steps):
        rng = np.random.default_rng(derive(seed, "pseudo-lesions", step))
        some = [frames[i] for i in rng.integers(len(frames), size=2 * BATCH)]
        drawn = [draw_example(vary(one, rng), vary(other, rng), rng) for one, other in zip(some[::2], some[1::2], strict=True)]
        examples = torch.from_numpy(np.stack([example for example, _ in drawn])).permute(0, 3, 1, 2)
        lesions = torch.from_numpy(np.stack([lesion for _, lesion in drawn]))
        yield examples, F.avg_pool2d(lesions, STRIDE)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
