"""The losses of PixelDA (Bousmalis et al. 2017, section 3) and of its refinement, as functions of logits or images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real_logits: Tensor, generated_logits: Tensor, soft_labels: bool = False) -> Tensor:
    """Return D's loss, -E[log D(x_t)] - E[log(1 - D(G(x_s, z)))] (equation 2, negated), a scalar.

    Both arguments are logits of shape (N,). With `soft_labels`, the labels are 0.9 and 0.1 instead of 1 and 0.
    """
    real, generated = (0.9, 0.1) if soft_labels else (1.0, 0.0)
    return _cross_entropy_to(real_logits, real) + _cross_entropy_to(generated_logits, generated)


def generator_domain_loss(generated_logits: Tensor) -> Tensor:
    """Return -E[log D(G(x_s, z))], a scalar: the non-saturating form of the reference study and of the paper's code."""
    return _cross_entropy_to(generated_logits, 1.0)


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of `logits` (N, classes) against `labels` int64 (N,) (equation 3)."""
    return F.cross_entropy(logits.float(), labels)


def content_similarity_loss(source: Tensor, generated: Tensor, mask: Tensor) -> Tensor:
    """Return the masked pairwise mean squared error (equation 5), a scalar.

    E[ |(x - G) m|^2 / k - ((x - G) . m)^2 / k^2 ], with k the number of values of an image. It penalizes every change of the
    foreground except a uniform one.

    Args:
        source: (N, C, H, W) in [-1, 1].
        generated: (N, C, H, W) in [-1, 1].
        mask: (N, 1 or C, H, W), 1 on the foreground and 0 elsewhere.
    """
    difference = ((source.float() - generated.float()) * mask).flatten(1)
    k = difference.shape[1]
    return (difference.square().sum(1) / k - difference.sum(1).square() / k**2).mean()


def conditional_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of predictions from `logits` (N, classes), in nats, a scalar (Shu et al. 2018, equation 6)."""
    logits = logits.float()
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def virtual_adversarial_loss(
    classify: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor, start: Tensor, radius: float
) -> Tensor:
    """Return how far predictions move under the worst small change of each image, a scalar (Miyato et al. 2018, equation 5).

    The direction is found by one power iteration (their section 3.3), with a first step as long as the change itself, because
    a shorter one is lost in bfloat16.

    Args:
        classify: images (N, C, H, W) to logits (N, classes); each call treats an image in the same way.
        images: the images.
        logits: `classify(images)`; no gradient flows through them.
        start: direction at the start, normally distributed, of the images' shape.
        radius: L2 norm of the change.
    """
    logits = logits.detach()
    direction = _unit(start.float()).requires_grad_()
    (gradient,) = torch.autograd.grad(_divergence(logits, classify(images + radius * direction)), direction)
    return _divergence(logits, classify(images + radius * _unit(gradient)))


def foreground(source: Tensor) -> Tensor:
    """Return the mask (N, 1, H, W) of pixels of `source` (N, C, H, W) in [-1, 1] that are not black in every channel."""
    return (source.amax(dim=1, keepdim=True) > -1).to(source.dtype)


def _divergence(logits: Tensor, other: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of predictions `other` from predictions `logits`."""
    return F.kl_div(other.float().log_softmax(1), logits.float().log_softmax(1), reduction="batchmean", log_target=True)


def _unit(images: Tensor) -> Tensor:
    """Return each image divided by its L2 norm."""
    return F.normalize(images.flatten(1)).view_as(images)


def _cross_entropy_to(logits: Tensor, label: float) -> Tensor:
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
