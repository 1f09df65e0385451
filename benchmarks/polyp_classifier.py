"""A small classifier of frames, normal or abnormal, trained from scratch on one view; for benchmarks.synthetic."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pixelscope.data.frames.preprocess import ViewName, centre_box
from pixelscope.endovae.data import to_images
from pixelscope.engine.augment import augment, draw_transforms
from pixelscope.engine.config import AugmentConfig
from pixelscope.engine.runtime import to_device
from pixelscope.imaging.content_area import Box
from pixelscope.imaging.resize import resize_frames
from pixelscope.pixelda.networks import ResidualClassifier
from pixelscope.rng import ShuffledOrder, derive, generator

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIDES: dict[ViewName, int] = {"full": 96, "centre": 48}
"""Side in pixels of each view, as the classifier sees it."""
WIDTH, BATCH = 16, 32
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2


def seen(frames: Bytes, view: ViewName) -> Bytes:
    """Return one view of prepared frames (N, S, S, 3), real or generated, (N, side, side, 3).

    Both are cut from the prepared frame, because there is no larger original of a generated one.
    """
    side = frames.shape[1]
    box = centre_box(Box(0, 0, side, side)) if view == "centre" else Box(0, 0, side, side)
    return resize_frames(np.ascontiguousarray(frames[(slice(None), *box.slices)]), SIDES[view])


def train_classifier(frames: Bytes, abnormal: Mask, images: int, seed: int) -> ResidualClassifier:
    """Train a residual network on frames of one view.

    The number of steps depends on `images` alone: classifiers of any number of frames are trained equally long.

    Args:
        frames: uint8 (N, side, side, 3).
        abnormal: bool (N,).
        images: images seen.
        seed: of weights, order and augmentation.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        network = to_device(ResidualClassifier(2, WIDTH), device, "channels_last")
    steps = max(1, images // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    order, labels = ShuffledOrder(len(frames), seed, "classifier"), torch.from_numpy(abnormal.astype(np.int64))
    for step in range(steps):
        rows = order.take(step * BATCH, BATCH)
        transforms = draw_transforms(BATCH, AugmentConfig(), generator("cpu", seed, "augmentation", step))
        inputs = augment(to_images(frames[rows.numpy()]), transforms).to(device)
        loss = F.cross_entropy(network(2 * inputs - 1), labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def log_odds(network: ResidualClassifier, frames: Bytes) -> NDArray[np.float64]:
    """Return the log-odds of abnormal, (N,), of frames of one view, averaged over each frame and its mirror image."""
    device = next(network.parameters()).device

    def found(images: torch.Tensor) -> torch.Tensor:
        logits = network(2 * images.to(device) - 1)
        return logits[:, 1] - logits[:, 0]

    parts = [(found(images) + found(images.flip(-1))).double().cpu().numpy() / 2 for images in _batches(frames)]
    return np.concatenate(parts)


def _batches(frames: Bytes) -> Iterator[torch.Tensor]:
    return (to_images(frames[start : start + 256]) for start in range(0, len(frames), 256))
