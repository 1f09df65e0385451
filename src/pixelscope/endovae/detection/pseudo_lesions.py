"""Pseudo-lesions, drawn into healthy frames, and small networks that learn to find them.

A network trained to find drawn lesions also finds real ones (CutPaste, Li et al., CVPR 2021; DRAEM, Zavrtanik et al., ICCV
2021). Pseudo-lesions are blobs with a bulge, a shadow, another texture or colour, blended into the frame. The networks are a
U-Net on frames, and layers on features of a frozen network.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pixelscope.endovae.detection.config import LEARNED_SIDE
from pixelscope.endovae.lite0 import BLOCKS, PATCHED
from pixelscope.imaging.resize import resize_frames_bicubic
from pixelscope.rng import derive

Floats = NDArray[np.float32]
Network = TypeVar("Network", bound=nn.Module)

LESION_RATE = 0.6
"""Fraction of the frames that get a pseudo-lesion."""
MIN_CHANGE = 0.02
"""Minimum mean absolute difference over channels, in [0, 1], at which a changed pixel counts as lesion."""

STRIDE = 4
"""Pixels of a frame per element of the map of `LesionNet`."""
WIDTHS = (24, 32, 48, 64, 96)
"""Channels of its encoder at 1/2, 1/2, 1/4, 1/8 and 1/16 of the side."""
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
DICE_WEIGHT = 0.5
HEAD_CHANNELS = sum(BLOCKS[block] for block in PATCHED)
"""Channels of the features of EfficientNet-Lite0 that `LesionHead` sees."""
HEAD_WIDTH = 64
HEAD_DROPOUT = 0.5
"""Fraction of the channels of features that its training leaves out at random."""
HEAD_WEIGHT_DECAY = 1e-2
HEAD_EPOCHS = 6
"""Number of times that it sees each drawn example."""


@dataclass(frozen=True)
class Blob:
    """An irregular ellipse."""

    centre: tuple[float, float]
    """x and y in pixels."""
    radius: float
    """Longer semi-axis in pixels."""
    distance: Floats
    """(S, S): 0 at the centre, 1 at the edge."""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Return the pixels of the blob, bool (S, S)."""
        return self.distance < 1


def draw_blob(side: int, rng: np.random.Generator) -> Blob:
    """Draw a blob with a radius of 10 to 60% of the side; it may reach over the edge of the frame."""
    x, y = rng.uniform(0, side, 2)
    radius = np.exp(rng.uniform(np.log(0.1), np.log(0.6))) * side
    across, angle = radius * rng.uniform(0.55, 1), rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    dx, dy = columns - x, rows - y
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
    other = (dy * np.cos(angle) - dx * np.sin(angle)) / across
    ragged = smooth_noise(side, rng.uniform(0.04, 0.1) * side, rng) * rng.uniform(0, 0.2)
    return Blob((x, y), radius, np.maximum(np.hypot(along, other) + ragged, 0).astype(np.float32))


def draw_lesion(frame: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return a frame with one pseudo-lesion, and the lesion's pixels, bool (S, S).

    Args:
        frame: (S, S, 3) in [0, 1].
        other: another frame of the same shape, from which patches are taken.
        rng: generator of shape, position and kind.
    """
    blob = draw_blob(len(frame), rng)
    soft = _softened(blob, rng)
    drawn = _transplanted(frame, other, soft, rng) if rng.random() < 0.5 else _bulged(frame, blob, rng)
    for rate, change in _LESION_CHANGES:
        if rng.random() < rate:
            drawn = change(drawn, blob, rng)
    blended = np.clip(frame + (drawn - frame) * soft, 0, 1).astype(np.float32)
    return blended, blob.inside & (np.abs(blended - frame).mean(2) > MIN_CHANGE)


def draw_example(frame: Floats, other: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return a frame with up to two pseudo-lesions, or none, and their pixels, float32 (S, S), 1 inside."""
    lesions = np.zeros(frame.shape[:2], bool)
    if rng.random() < LESION_RATE:
        for _ in range(rng.integers(1, 3)):
            frame, lesion = draw_lesion(frame, other, rng)
            lesions |= lesion
    return frame, lesions.astype(np.float32)


def draw_into_each(frames: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return frames, uint8 (N, S, S, 3), with one pseudo-lesion drawn into each; patches are of other frames, if there are."""
    rng, drawn = np.random.default_rng(derive(seed, "one pseudo-lesion per frame")), np.empty_like(frames)
    for i, frame in enumerate(frames):
        other = frames[(i + rng.integers(1, max(2, len(frames)))) % len(frames)]
        lesion, _ = draw_lesion(frame.astype(np.float32) / 255, other.astype(np.float32) / 255, rng)
        drawn[i] = np.rint(lesion * 255)
    return drawn


def vary(frame: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Return a mirrored, turned, zoomed and recoloured copy of a uint8 frame (S, S, 3), in [0, 1]."""
    side = len(frame)
    turned = np.rot90(frame[:, ::-1] if rng.random() < 0.5 else frame, int(rng.integers(4)))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-30, 30), rng.uniform(1, 1.3))
    moved = cv2.warpAffine(np.ascontiguousarray(turned), matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    colours = moved.astype(np.float32) / 255 * rng.uniform(0.95, 1.05, 3).astype(np.float32)
    mean = colours.mean()
    return np.clip((colours - mean) * rng.uniform(0.85, 1.15) + mean * rng.uniform(0.85, 1.15), 0, 1).astype(np.float32)


def smooth_noise(side: int, scale: float, rng: np.random.Generator) -> Floats:
    """Return Gaussian noise of standard deviation 1, smoothed over `scale` pixels, (S, S)."""
    noise = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), max(scale, 0.5))
    return (noise / noise.std()).astype(np.float32)


def _softened(blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the weight of the lesion per pixel, (S, S, 1) in [0, 1]: the blob with a soft edge."""
    inside = blob.inside.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.007, 0.04) * len(inside)), np.float32)[..., None]


def _transplanted(frame: Floats, other: Floats, soft: Floats, rng: np.random.Generator) -> Floats:
    """Return another frame, its mean colour in the blob moved towards the frame's."""
    weight = soft.sum()
    difference = ((other - frame) * soft).sum((0, 1)) / weight
    return (other - difference * rng.uniform(0.3, 1)).astype(np.float32)


def _bulged(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame magnified inside the blob, like the surface of a dome."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    least, power = rng.uniform(0.35, 0.9), rng.uniform(0.8, 2.5)
    scale = np.where(blob.inside, least + (1 - least) * np.power(blob.distance, power), 1).astype(np.float32)
    x, y = np.float32(blob.centre[0]), np.float32(blob.centre[1])
    return np.asarray(
        cv2.remap(
            frame, x + (columns - x) * scale, y + (rows - y) * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        ),
        np.float32,
    )


def _shaded(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame shaded like a dome that is lit from one side."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    towards = ((columns - blob.centre[0]) * np.cos(angle) + (rows - blob.centre[1]) * np.sin(angle)) / blob.radius
    height = np.sqrt(np.clip(1 - np.square(blob.distance), 0, 1))
    light = 1 + rng.uniform(0.05, 0.35) * towards * np.clip(blob.distance, 0, 1) + rng.uniform(-0.1, 0.3) * (height - 0.5)
    return (frame * light[..., None]).astype(np.float32)


def _recoloured(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    return (frame * rng.uniform(0.75, 1.3, 3) ** rng.uniform(0.3, 1)).astype(np.float32)


def _blurred(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.007, 0.025) * len(frame)), np.float32)


def _roughened(frame: Floats, _: Blob, rng: np.random.Generator) -> Floats:
    noise = smooth_noise(len(frame), rng.uniform(0.01, 0.03) * len(frame), rng)
    return (frame + noise[..., None] * rng.uniform(0.02, 0.08)).astype(np.float32)


def _glinting(frame: Floats, blob: Blob, rng: np.random.Generator) -> Floats:
    """Return the frame with a glint: the reflection of the lamp on a wet surface."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    x, y = np.add(blob.centre, rng.uniform(-0.5, 0.5, 2) * blob.radius)
    width, height = rng.uniform(0.01, 0.03, 2) * len(frame)
    glint = np.exp(-(((columns - x) / width) ** 2) - ((rows - y) / height) ** 2)
    return (frame + glint[..., None] * rng.uniform(0.3, 0.8)).astype(np.float32)


Change = Callable[[Floats, Blob, np.random.Generator], Floats]
_LESION_CHANGES: tuple[tuple[float, Change], ...] = (
    (0.6, _shaded),
    (0.5, _recoloured),
    (0.25, _blurred),
    (0.2, _roughened),
    (0.3, _glinting),
)
"""Changes inside a pseudo-lesion, each with its probability."""


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
        self.mean, self.std = nn.Buffer(torch.zeros(channels)), nn.Buffer(torch.ones(channels))
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
    network = _new_network(LesionNet, seed)
    small, steps = resize_frames_bicubic(frames, LEARNED_SIDE), max(1, images // BATCH)
    drawn = (_draw_batch(small, np.random.default_rng(derive(seed, "pseudo-lesions", step))) for step in range(steps))
    return _train(network, ((one, F.avg_pool2d(lesions, STRIDE)) for one, lesions in drawn), steps, WEIGHT_DECAY)


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
    known, lesions = _join(
        (_draw_features(describe, frames, derive(seed, "pseudo-lesions", k)) for k in range(batches)), batches
    )
    head = _new_network(lambda: LesionHead(known.shape[3]), seed)
    head.mean.copy_(known.mean((0, 1, 2)))
    head.std.copy_(known.std((0, 1, 2)).clamp_min(1e-6))
    examples = _shuffled_batches(known, lesions, derive(seed, "order of the examples"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "dropout"))
        return _train(head, examples, HEAD_EPOCHS * batches, HEAD_WEIGHT_DECAY)


def _new_network(make: Callable[[], Network], seed: int) -> Network:
    """Return a network whose weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights of the lesion network"))
        return make()


def _train(network: Network, batches: Iterable[tuple[Tensor, Tensor]], steps: int, weight_decay: float) -> Network:
    """Train on batches of inputs and lesions, and return the network in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for inputs, lesions in batches:
        optimizer.zero_grad()
        segmentation_loss(network(inputs), lesions).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _draw_batch(frames: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw a batch of examples, float32 (n, 3, S, S) in [0, 1], and their lesions, (n, S, S)."""
    some = [frames[i] for i in rng.integers(len(frames), size=2 * BATCH)]
    drawn = [draw_example(vary(one, rng), vary(other, rng), rng) for one, other in zip(some[::2], some[1::2], strict=True)]
    examples = torch.from_numpy(np.stack([example for example, _ in drawn])).permute(0, 3, 1, 2)
    return examples, torch.from_numpy(np.stack([lesion for _, lesion in drawn]))


def _draw_features(
    describe: Callable[[NDArray[np.uint8]], NDArray[np.float32]], frames: NDArray[np.uint8], seed: int
) -> tuple[Tensor, Tensor]:
    """Draw a batch of examples, and return their features (n, h, w, C) and lesions (n, h, w)."""
    examples, lesions = _draw_batch(frames, np.random.default_rng(seed))
    features = torch.from_numpy(describe(examples.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()))
    return features, F.avg_pool2d(lesions, frames.shape[1] // features.shape[1])


def _join(drawn: Iterable[tuple[Tensor, Tensor]], batches: int) -> tuple[Tensor, Tensor]:
    """Return the features and lesions of all batches, each copied when it is there, to save memory."""
    joined: list[Tensor] = []
    for number, batch in enumerate(drawn):
        joined = joined or [one.new_empty((batches, *one.shape)) for one in batch]
        for whole, part in zip(joined, batch, strict=True):
            whole[number] = part
    features, lesions = (one.flatten(0, 1) for one in joined)
    return features, lesions


def _shuffled_batches(features: Tensor, lesions: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
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
