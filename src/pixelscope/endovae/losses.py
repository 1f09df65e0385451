"""The reconstruction loss of EndoVAE. The KL term is `Posterior.kl`."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["channel-mean", "sum"]


def reconstruction_loss(logits: Tensor, images: Tensor, reduction: Reduction, valid_mask: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy per image, shape (N,).

    The reference study's "cross-entropy summed over pixels" is ambiguous. `sum` adds all values of all channels.
    `channel-mean` averages the three channels and sums the pixels, which makes the KL divergence weigh three times as much;
    the sizes in the study's log fit this one.

    Args:
        logits: (N, 3, H, W), before the sigmoid.
        images: (N, 3, H, W) in [0, 1].
        reduction: how the values of an image are reduced.
        valid_mask: (N, 1, H, W), 0 where a pixel is ignored.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits.float(), images, reduction="none")
    if valid_mask is not None:
        cross_entropy = cross_entropy * valid_mask
    total = cross_entropy.sum((1, 2, 3))
    return total if reduction == "sum" else total / logits.shape[1]
