"""Diagnostics in training of the three causes of instability that the reference study names.

No convergence (one network overpowers the other): D's mean probability on real and on generated images. Mode collapse: T's
predicted classes of generated images, and how much an image varies with z. Vanishing gradients: the norm of G's gradient
per loss.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIVERSITY_IMAGES = 16
DIVERSITY_DRAWS = 8

OVERPOWERING_GAP = 0.95
"""Minimum gap between D's mean probabilities on real and generated images at which D overpowers G."""
VANISHING_RATIO = 1e-4
"""Ratio of the norms of G's gradient from the domain loss and of D's gradient, below which G's has vanished."""
MISSING_SHARE = 0.2
"""Ratio of a class's frequencies in generated and source images, below which the class has collapsed."""
MINIMAL_DIVERSITY = 0.01
"""Mean standard deviation over z of pixels in [-1, 1], below which G ignores z."""


LAYOUT_KEPT = 0.5
"""Correlation of edges below which generated images have lost the layout of their source images (see `layout_kept`). It was
0.58 or more in runs that helped, and 0.13 to 0.44 in one that harmed."""
CLASS_KEPT = 0.6
"""Ratio of the accuracies on generated and source images, below which generated images have lost their class. It counts only
together with the layout: on MNIST-M the judge's ratio is 0.52 in a good run."""


def discriminator_stats(real_logits: Tensor, generated_logits: Tensor) -> dict[str, Tensor]:
    """Return D's mean probability of `real` on target images and on generated images."""
    return {
        "probability/real": real_logits.detach().float().sigmoid().mean(),
        "probability/generated": generated_logits.detach().float().sigmoid().mean(),
    }


def predictions(source_logits: Tensor, adapted_logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return T's accuracy on the batch, and class frequencies: of source labels, and of T's predictions on generated images."""
    classes = adapted_logits.shape[1]
    adapted = adapted_logits.argmax(1)
    return {
        "accuracy/batch_source": share_right(source_logits, labels),
        "accuracy/batch_generated": share_right(adapted_logits, labels),
        "histogram/source": F.one_hot(labels, classes).float().mean(0),
        "histogram/generated": F.one_hot(adapted, classes).float().mean(0),
    }


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracy of `logits` (N, classes) against `labels` (N,), a scalar."""
    return (logits.detach().argmax(1) == labels).float().mean()


def gradient_norms(losses: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the gradient norm of each weighted loss with respect to all weights of G."""
    parameters = list(network.parameters())
    shares = {}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        shares[f"gradient/generator_{name}"] = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    return shares


@torch.no_grad()
def diversity(network: nn.Module, images: Tensor, z: Tensor) -> float:
    """Return how much G's output varies with z.

    It is the standard deviation over z of each pixel in [-1, 1], averaged over pixels and images.

    Args:
        network: G.
        images: source images (N, 3, S, S) in [-1, 1].
        z: noise (Z, noise_dim).
    """
    training = network.training
    network.eval()
    drawn = network(images.repeat_interleave(len(z), 0), z.repeat(len(images), 1))
    network.train(training)
    return float(drawn.float().unflatten(0, (len(images), len(z))).std(1).mean())


def warnings(stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
    """Return (cause, sentence) for each sign of instability in a line of stats."""
    checks = (_overpowering, _vanishing, _collapsed_classes, _collapsed_noise, _lost_content)
    return [found for check in checks if (found := check(stats))]


def _overpowering(stats: Mapping[str, float | list[float]]) -> tuple[str, str] | None:
    real, generated = _number(stats, "probability/real"), _number(stats, "probability/generated")
    if real is None or generated is None or real - generated < OVERPOWERING_GAP:
        return None
    text = f"D separates real from generated images almost always (mean probability {real:.2f} against {generated:.2f})"
    return "overpowering discriminator", f"{text}; raise --discriminator.noise-std or turn on --losses.soft-labels."


def _vanishing(stats: Mapping[str, float | list[float]]) -> tuple[str, str] | None:
    domain, own = _number(stats, "gradient/generator_domain"), _number(stats, "gradient/discriminator")
    if domain is None or own is None or domain > VANISHING_RATIO * own:
        return None
    text = f"G's gradient from the domain loss has vanished ({domain:.1e}, D's own is {own:.1e})"
    return "vanishing gradients", f"{text}; raise --discriminator.dropout or turn on --losses.soft-labels."


def _collapsed_classes(stats: Mapping[str, float | list[float]]) -> tuple[str, str] | None:
    source, generated = stats.get("histogram/source"), stats.get("histogram/generated")
    if not isinstance(source, list) or not isinstance(generated, list):
        return None
    missing = [k for k, (s, g) in enumerate(zip(source, generated, strict=True)) if g < MISSING_SHARE * s]
    # At the start of a run T predicts few classes, so its predictions count once its accuracy on the source is high.
    accuracy = _number(stats, "accuracy/batch_source")
    if not missing or accuracy is None or accuracy < 0.9:
        return None
    text = f"T rarely predicts class {', '.join(map(str, missing))} (by position) on generated images"
    return "collapse", f"{text}; raise --losses.generator-task or turn on --losses.content."


def _collapsed_noise(stats: Mapping[str, float | list[float]]) -> tuple[str, str] | None:
    value = _number(stats, "diversity")
    images = _number(stats, "accuracy/source_train")
    if value is None or images is None or value >= MINIMAL_DIVERSITY or images < 0.9:
        return None
    return "collapse", f"generated images hardly vary with z (standard deviation {value:.4f}): G ignores its noise."


def _lost_content(stats: Mapping[str, float | list[float]]) -> tuple[str, str] | None:
    """Check layout and class of generated images, the class by the judge if possible, because T may learn to agree with G."""
    layout, reader = _number(stats, "layout"), "judge" if "accuracy/judge_generated" in stats else "batch"
    source, generated = _number(stats, f"accuracy/{reader}_source"), _number(stats, f"accuracy/{reader}_generated")
    if layout is None or source is None or generated is None or source < 0.9:
        return None
    if layout >= LAYOUT_KEPT or generated >= CLASS_KEPT * source:
        return None
    text = f"G changes the content of images: {1 - generated:.0%} of generated images are classified as another class"
    return "content lost", f"{text}; raise --losses.generator-task or --losses.semantic."


def _number(stats: Mapping[str, float | list[float]], name: str) -> float | None:
    value = stats.get(name)
    return value if isinstance(value, float | int) else None


def layout_kept(source: Tensor, generated: Tensor) -> Tensor:
    """Return how well generated images keep the layout of their source images, a scalar from -1 to 1.

    It is the mean over images of the correlation between the edge strengths of both images, smoothed over 3 x 3 pixels. It is
    1 if all edges stay in place, whatever their colours, and near 0 for unrelated images. New texture lowers it.

    Args:
        source: (N, C, H, W) in [-1, 1].
        generated: (N, C, H, W) in [-1, 1].
    """
    return (_edges(source) * _edges(generated)).sum(1).mean()


def _edges(images: Tensor) -> Tensor:
    """Return the edge strengths (N, values) of images, each row with mean 0 and norm 1."""
    grey = images.float().mean(1, keepdim=True)
    across, down = grey[:, :, 1:, :-1] - grey[:, :, :-1, :-1], grey[:, :, :-1, 1:] - grey[:, :, :-1, :-1]
    strength = F.avg_pool2d((across.square() + down.square()).sqrt(), 3, stride=1, padding=1).flatten(1)
    return F.normalize(strength - strength.mean(1, keepdim=True), dim=1)


@torch.no_grad()
def alike(generator: nn.Module, classifier: nn.Module, images: Tensor, z: Tensor) -> float:
    """Return the fraction of images for which two generated images have the same predicted class.

    Both networks are used in evaluation mode.

    Args:
        generator: G.
        classifier: T.
        images: source images (N, 3, S, S) in [-1, 1].
        z: noise (2 N, noise_dim).
    """
    modes = generator.training, classifier.training
    drawn = generator.eval()(images.repeat(2, 1, 1, 1), z)
    first, second = classifier.eval()(drawn).argmax(1).chunk(2)
    generator.train(modes[0])
    classifier.train(modes[1])
    return float((first == second).float().mean())
