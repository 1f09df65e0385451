"""How near a reconstruction is to its original: PSNR and SSIM of each image."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window, in pixels."""
SSIM_RULE = (
    "Wang et al. 2004: Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, data range 1; mean over channels and valid pixels"
)


def squared_error(images: Tensor, reconstructions: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each image, shape (N,); NaN where no pixel of it counts, as of the others here.

    images, reconstructions: float (N, 3, H, W) in [0, 1]; counted: (N, 1, H, W), 0 where a pixel is left out.
    """
    errors = (images - reconstructions).square().mean(1, keepdim=True)
    return _mean(errors, counted)


def psnr(images: Tensor, reconstructions: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB for a peak of 1, shape (N,); infinite where both are equal."""
    return -10 * squared_error(images, reconstructions, counted).log10()


def ssim(images: Tensor, reconstructions: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the structural similarity of each image, shape (N,), by `SSIM_RULE`.

    Only pixels whose whole window lies inside the image count, as in Wang's own code and in scikit-image; torchmetrics
    pads the image and averages everything. A pixel that is left out is left out of the average, though windows nearby see it.
    """
    similarity = ssim_map(images, reconstructions)
    margin = WINDOW // 2
    inner = None if counted is None else counted[..., margin:-margin, margin:-margin]
    return _mean(similarity.mean(1, keepdim=True), inner)


def ssim_map(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the similarity at each valid pixel, (N, 3, H - 10, W - 10)."""
    _, whole = structural_similarity_index_measure(
        reconstructions, images, sigma=SIGMA, kernel_size=WINDOW, data_range=1.0, reduction="none", return_full_image=True
    )
    margin = WINDOW // 2
    return torch.as_tensor(whole)[..., margin:-margin, margin:-margin]


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean over all but the first dimension, of what counts, NaN where nothing does; values (N, 1, H, W)."""
    if counted is None:
        return values.mean((1, 2, 3))
    return (values * counted).sum((1, 2, 3)) / counted.sum((1, 2, 3))
