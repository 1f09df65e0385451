"""Whether redrawn images still show what their source images show, told without a label of the target."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def layout_kept(source: Tensor, generated: Tensor) -> Tensor:
    """Return how much of the layout of source images is left in their redrawings, a scalar from -1 to 1.

    It is the mean over images of the correlation between the strengths of both images' edges, smoothed over 3 x 3 pixels:
    1 where edges lie where they lay, whatever became of colours, and near 0 where one has nothing to do with the other. New
    texture lowers it, too.

    source, generated: (N, C, H, W) in [-1, 1].
    """
    return (_edges(source) * _edges(generated)).sum(1).mean()


def _edges(images: Tensor) -> Tensor:
    """Return the strengths of edges (N, values) of images, each of mean 0 and length 1."""
    grey = images.float().mean(1, keepdim=True)
    across, down = grey[:, :, 1:, :-1] - grey[:, :, :-1, :-1], grey[:, :, :-1, 1:] - grey[:, :, :-1, :-1]
    strength = F.avg_pool2d((across.square() + down.square()).sqrt(), 3, stride=1, padding=1).flatten(1)
    return F.normalize(strength - strength.mean(1, keepdim=True), dim=1)


@torch.no_grad()
def alike(generator: nn.Module, classifier: nn.Module, images: Tensor, z: Tensor) -> float:
    """Return the share of images of which two redrawings have the same class, as `classifier` reads them.

    images: (N, 3, S, S) in [-1, 1]; z: (2 N, noise_dim). Both networks are used in evaluation mode.
    """
    modes = generator.training, classifier.training
    drawn = generator.eval()(images.repeat(2, 1, 1, 1), z)
    first, second = classifier.eval()(drawn).argmax(1).chunk(2)
    generator.train(modes[0])
    classifier.train(modes[1])
    return float((first == second).float().mean())
