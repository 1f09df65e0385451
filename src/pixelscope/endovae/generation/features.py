"""Features on which generated frames are compared with real ones: of EfficientNet-Lite0, or of a run's own encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.forward import encode
from pixelscope.endovae.generation.results import ENCODER, LITE0, FeaturesName
from pixelscope.endovae.lite0 import SIDE, Lite0Features, load_lite0
from pixelscope.errors import not_one_of
from pixelscope.imaging.resize import resize_frames

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

BATCH = 32
"""Frames per forward pass of EfficientNet-Lite0, at 224 x 224 pixels."""
LAST_BLOCK = 15
"""The block of EfficientNet-Lite0 whose output is used, the last."""
_PURPOSE = "Comparing frames on features of EfficientNet-Lite0"


@dataclass(frozen=True)
class FeatureSpace:
    """A network's features of frames."""

    name: FeaturesName
    title: str
    extract: Callable[[Bytes], Floats]
    """Maps uint8 frames (N, S, S, 3) to features (N, D)."""


def feature_spaces(chosen: FeaturesName | None, checkpoint: Checkpoint) -> list[FeatureSpace]:
    """Return the chosen features, or both without a choice.

    Args:
        chosen: `lite0`, `encoder`, or None.
        checkpoint: whose encoder makes the features `encoder`.

    Raises:
        InputError: features of EfficientNet-Lite0 need the extra `pretrained`, which is not installed.
    """
    if chosen is not None and chosen not in get_args(FeaturesName):
        raise not_one_of("features", chosen, get_args(FeaturesName))
    found = []
    if chosen in (None, LITE0):
        found.append(
            FeatureSpace(LITE0, "features of EfficientNet-Lite0", partial(lite0_features, load_lite0(_PURPOSE, [LAST_BLOCK])))
        )
    if chosen in (None, ENCODER):
        title = f"features of the encoder of {checkpoint.folder.path.resolve().name}"
        found.append(FeatureSpace(ENCODER, title, partial(encoder_features, checkpoint)))
    return found


@torch.no_grad()
def lite0_features(network: Lite0Features, frames: Bytes) -> Floats:
    """Return the mean over all positions of the last block's output, (N, 320), of uint8 frames (N, S, S, 3).

    FID (Heusel et al. 2017) takes the same of Inception-v3, with 2,048 values, whose covariance a few hundred frames cannot
    give.
    """
    found = []
    for start in range(0, len(frames), BATCH):
        sized = torch.from_numpy(np.array(resize_frames(frames[start : start + BATCH], SIDE)))
        found.append(network(sized.permute(0, 3, 1, 2).float().div_(255))[-1].mean((2, 3)))
    return torch.cat(found).numpy()


def encoder_features(checkpoint: Checkpoint, frames: Bytes) -> Floats:
    """Return the posterior means of uint8 frames (N, S, S, 3).

    Of a spatial code, with thousands of values, the mean and standard deviation of each channel over all positions.
    """
    mean = encode(checkpoint, frames).mean
    if checkpoint.config.model.kind == "global":
        return mean.numpy()
    code = mean.reshape(len(mean), -1, checkpoint.config.model.latent)
    return torch.cat([code.mean(1), code.std(1)], 1).numpy()
