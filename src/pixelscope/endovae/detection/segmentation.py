"""Small networks that find pseudo-lesions: a U-Net on frames, and layers on features of a frozen network."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.detection.config import LEARNED_SIDE
from pixelscope.endovae.detection.pseudo_lesions import draw_example, vary
from pixelscope.endovae.lite0 import BLOCKS, PATCHED
from pixelscope.imaging.resize import resize_frames_bicubic
from pixelscope.rng import derive

STRIDE = 4
"""Pixels of a frame per element of the map."""
WIDTHS = (24, 32, 48, 64, 96)
"""Channels of the encoder at 1/2, 1/2, 1/4, 1/8 and 1/16 of the side."""
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
DICE_WEIGHT = 0.5
HEAD_CHANNELS = sum(BLOCKS[block] for block in PATCHED)
"""Channels of the features of EfficientNet-Lite0 that `LesionHead` sees."""
HEAD_WIDTH = 64
HEAD_DROPOUT = 0.5
"""Fraction of the channels of features that are left out at random while it trains."""
HEAD_DECAY = 1e-2
HEAD_EPOCHS = 6
"""Number of times that it sees each drawn example."""


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


class LesionHead(nn.Module):
    """Layers that find pseudo-lesions in features of a frozen network, at each position alone."""

    def __init__(self, channels: int = HEAD_CHANNELS) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.dropout = nn.Dropout2d(HEAD_DROPOUT)
        self.narrow = nn.Conv2d(channels, HEAD_WIDTH, 1)
        self.hidden = _convolution(HEAD_WIDTH, HEAD_WIDTH, size=1)
        self.map = nn.Conv2d(HEAD_WIDTH, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of lesion positions, (N, h, w), for features (N, h, w, C)."""
        normal = ((features - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.map(self.hidden(F.relu(self.narrow(self.dropout(normal))))).squeeze(1)

    @torch.no_grad()
    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of a pseudo-lesion, (N, h, w), for features (N, h, w, C)."""
        parts = [self(torch.from_numpy(features[i : i + BATCH])).sigmoid() for i in range(0, len(features), BATCH)]
        return torch.cat(parts).numpy()


def segmentation_loss(logits: Tensor, lesions: Tensor) -> Tensor:
    """Return cross-entropy and weighted Dice loss (Milletari et al., 3DV 2016, section 3), of (N, h, w) each."""
    found = logits.sigmoid()
    both, either = (found * lesions).sum((1, 2)), (found + lesions).sum((1, 2))
    dice = 1 - (2 * both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, lesions) + DICE_WEIGHT * dice.mean()


def train_lesion_net(frames: NDArray[np.uint8], images: int, seed: int) -> LesionNet:
    """Train a U-Net on pseudo-lesions.

    Args:
        frames: healthy frames, uint8 (N, S, S, 3), N > 1.
        images: number of drawn examples to train on.
        seed: seed of weights and examples.

    Returns:
        The network, in evaluation mode.
    """
    network = _seeded(LesionNet, seed)
    small, steps = resize_frames_bicubic(frames, LEARNED_SIDE), max(1, images // BATCH)
    drawn = (_drawn(small, np.random.default_rng(derive(seed, "pseudo-lesions", step))) for step in range(steps))
    return _trained(network, ((one, F.avg_pool2d(lesions, STRIDE)) for one, lesions in drawn), steps, WEIGHT_DECAY)


def train_lesion_head(
    describe: Callable[[NDArray[np.uint8]], NDArray[np.float32]], frames: NDArray[np.uint8], images: int, seed: int
) -> LesionHead:
    """Train layers that find pseudo-lesions in the features of a frozen network.

    Args:
        describe: returns the features (n, h, w, C) of uint8 frames (n, S, S, 3); h and w divide S.
        frames: healthy frames, uint8 (N, S, S, 3), N > 1.
        images: number of examples to train on, each drawn one counted `HEAD_EPOCHS` times.
        seed: seed of weights and examples.

    Returns:
        The layers, in evaluation mode.
    """
    batches = max(1, images // (HEAD_EPOCHS * BATCH))
    known, lesions = _joined((_described(describe, frames, derive(seed, "pseudo-lesions", k)) for k in range(batches)), batches)
    head = _seeded(lambda: LesionHead(known.shape[3]), seed)
    head.mean.copy_(known.mean((0, 1, 2)))
    head.std.copy_(known.std((0, 1, 2)).clamp_min(1e-6))
    examples = _shuffled(known, lesions, derive(seed, "order of the examples"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "dropout"))
        return _trained(head, examples, HEAD_EPOCHS * batches, HEAD_DECAY)


Network = TypeVar("Network", bound=nn.Module)


def _seeded(make: Callable[[], Network], seed: int) -> Network:
    """Return a network whose weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights of the lesion network"))
        return make()


def _trained(network: Network, batches: Iterable[tuple[Tensor, Tensor]], steps: int, weight_decay: float) -> Network:
    """Train on batches of inputs and lesions, and return the network in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for inputs, lesions in batches:
        optimizer.zero_grad()
        segmentation_loss(network(inputs), lesions).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _drawn(frames: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw a batch of examples, float32 (n, 3, S, S) in [0, 1], and their lesions, (n, S, S)."""
    some = [frames[i] for i in rng.integers(len(frames), size=2 * BATCH)]
    drawn = [draw_example(vary(one, rng), vary(other, rng), rng) for one, other in zip(some[::2], some[1::2], strict=True)]
    examples = torch.from_numpy(np.stack([example for example, _ in drawn])).permute(0, 3, 1, 2)
    return examples, torch.from_numpy(np.stack([lesion for _, lesion in drawn]))


def _described(
    describe: Callable[[NDArray[np.uint8]], NDArray[np.float32]], frames: NDArray[np.uint8], seed: int
) -> tuple[Tensor, Tensor]:
    """Draw a batch of examples, and return their features (n, h, w, C) and lesions (n, h, w)."""
    examples, lesions = _drawn(frames, np.random.default_rng(seed))
    features = torch.from_numpy(describe(examples.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))
    return features, F.avg_pool2d(lesions, frames.shape[1] // features.shape[1])


def _joined(drawn: Iterable[tuple[Tensor, Tensor]], batches: int) -> tuple[Tensor, Tensor]:
    """Return the features and lesions of all batches, each copied when it is there, to save memory."""
    joined: list[Tensor] = []
    for number, batch in enumerate(drawn):
        joined = joined or [one.new_empty((batches, *one.shape)) for one in batch]
        for whole, part in zip(joined, batch, strict=True):
            whole[number] = part
    features, lesions = (one.flatten(0, 1) for one in joined)
    return features, lesions


def _shuffled(features: Tensor, lesions: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of examples in a new order each epoch."""
    order = torch.Generator().manual_seed(seed)
    for _ in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(features), generator=order).split(BATCH):
            yield features[rows], lesions[rows]


def _convolution(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
