"""The reconstruction loss of EndoVAE, in both readings of the report."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Reading = Literal["channel-mean", "sum"]


def reconstruction_loss(logits: Tensor, images: Tensor, reading: Reading, counted: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of each image, shape (N,).

    "The cross-entropy summed over pixels" can be read in two ways. `sum` adds all values of all channels. `channel-mean`
    takes the mean of the three channels and adds the pixels, a third of it, so that the KL divergence weighs three times
    as much; the sizes in the report's log fit this one.

    logits: (N, 3, H, W), before the sigmoid; images: (N, 3, H, W) in [0, 1].
    counted: (N, 1, H, W), 0 where a pixel is left out.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits.float(), images, reduction="none")
    if counted is not None:
        cross_entropy = cross_entropy * counted
    total = cross_entropy.sum((1, 2, 3))
    return total if reading == "sum" else total / logits.shape[1]
