"""1 - SSIM at each pixel, in double precision.

In single precision E[x^2] - E[x]^2 loses digits where a frame is bright: pixels of torchmetrics' map are up to 1e-3 off, too
much for two programs to agree. A blur is two products with a matrix here, which every runtime has in double precision.
"""

import torch
from torch import Tensor, nn

from pixelscope.endovae.quality import SIGMA, WINDOW

K1, K2 = 0.01, 0.03
"""Wang's constants; see `quality.SSIM_RULE`."""


class Dissimilarity(nn.Module):
    """Two batches of images to 1 - SSIM wherever the whole window lies inside the image."""

    blur: Tensor

    def __init__(self, size: int) -> None:
        """Make it for images of side `size`, at least 11."""
        super().__init__()
        distances = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        line = torch.exp(-(distances**2) / (2 * SIGMA**2))
        rows = size - WINDOW + 1
        blur = torch.zeros(rows, size, dtype=torch.float64)
        for row in range(rows):
            blur[row, row : row + WINDOW] = line / line.sum()
        self.register_buffer("blur", blur, persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return float32 (N, S - 10, S - 10), the mean of the channels, for images (N, C, S, S) in [0, 1]."""
        one, other = one.double(), other.double()
        mean_one, mean_other = self._blurred(one), self._blurred(other)
        variances = self._blurred(one * one + other * other) - mean_one**2 - mean_other**2
        covariance = self._blurred(one * other) - mean_one * mean_other
        light = (2 * mean_one * mean_other + K1**2) / (mean_one**2 + mean_other**2 + K1**2)
        structure = (2 * covariance + K2**2) / (variances + K2**2)
        return (1 - (light * structure).mean(1)).float()

    def _blurred(self, images: Tensor) -> Tensor:
        return self.blur @ images @ self.blur.T
