"""Whether adaptation likely helps, told without target labels: T of the source alone beside the adapted T.

A generator that draws any digit for any digit teaches T another meaning of every class. T is then sure of itself, and its
answers fall into clusters as those of a good one do, so that neither sureness nor clusters tell. What tells is the way back: a
classifier that learns from target images with T's answers has to read the source, whose labels are known (reverse validation,
Zhong et al. 2010; Ganin et al. 2016, section 5.1.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelscope.data.batches import to_float
from pixelscope.data.imageset import ImageSet
from pixelscope.data.rows import spread
from pixelscope.engine.randomness import generator
from pixelscope.engine.runtime import computing_device
from pixelscope.pixelda.accuracy import BATCH, logits_of
from pixelscope.pixelda.losses import task_loss
from pixelscope.pixelda.networks import Classifier
from pixelscope.pixelda.refinement.networks import logits_and_features
from pixelscope.pixelda.refinement.selection import cluster_agreement, information

IMAGES = 2000
"""Images of each domain that the rules look at, at most."""

STEPS = 300
"""Steps of the classifier that learns the way back."""

BATCH_BACK = 64
"""Images of each of these steps."""

RULES: Mapping[str, str] = {
    "reverse validation": "accuracy on the source of a classifier that learned from target images with these answers",
    "cluster agreement": "adjusted mutual information of the answers with k-means clusters of the features",
    "information": "entropy of the mean answer less the mean entropy of answers, in nats",
    "source accuracy": "accuracy on source images",
}
"""Every rule, in words; the higher value is the better one."""

DECIDES = "reverse validation"
"""The rule that the verdict follows; the others stand beside it."""

MARGIN = 0.01
"""Difference in it under which neither is likely better."""

Better = Literal["adapted", "source only", "neither"]


@dataclass(frozen=True)
class Verdict:
    """Which classifier likely reads the target better."""

    better: Better
    rules: dict[str, tuple[float, float]]
    """By rule: the value of T of the source alone, and of the adapted T."""
    agreement: float
    """Share of target images to which both give the same answer."""

    def to_text(self) -> str:
        """Return it in lines for a terminal."""
        heads = {
            "adapted": "Adaptation likely helps",
            "source only": "Adaptation likely harms: T of the source alone likely reads the target better",
            "neither": "Adaptation likely makes no difference",
        }
        lines = [
            f"{heads[self.better]}, by {DECIDES}; told without target labels, both agree on {self.agreement:.0%} of images."
        ]
        lines += [f"  {rule:<20} source only {before:.3f}  adapted {after:.3f}" for rule, (before, after) in self.rules.items()]
        return "\n".join(lines)


def compare(before: nn.Module, after: nn.Module, target: ImageSet, source: ImageSet, seed: int = 0) -> Verdict:
    """Say which of two classifiers likely reads the target better.

    Args:
        before: T of the source alone.
        after: the adapted T.
        target: images of the target that neither has learned from; their labels, if any, are not looked at.
        source: labelled images of the source.
        seed: of the classifier that learns the way back.

    Returns:
        The value of every rule for both, and the verdict.
    """
    shown = spread(target.images, IMAGES)
    known = source.select(torch.arange(0, len(source), max(1, -(-len(source) // IMAGES))))
    values, answers = [], []
    for network in (before, after):
        logits, features = _answers(network, shown)
        answers.append(logits.argmax(1))
        values.append(_values(network, logits, features, shown, known, seed))
    rules = {rule: (values[0][rule], values[1][rule]) for rule in RULES}
    gain = rules[DECIDES][1] - rules[DECIDES][0]
    better: Better = "neither" if abs(gain) < MARGIN else "adapted" if gain > 0 else "source only"
    return Verdict(better, rules, float((answers[0] == answers[1]).float().mean()))


def _answers(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) and features (N, F) of uint8 images, on the CPU."""
    network = network.to(computing_device()).eval()
    device = next(network.parameters()).device
    parts = [logits_and_features(network, to_float(some.to(device))) for some in images.split(BATCH)]
    logits, features = (torch.cat(both).float().cpu() for both in zip(*parts, strict=True))
    return logits, features


def _values(
    network: nn.Module, logits: Tensor, features: Tensor, target: Tensor, source: ImageSet, seed: int
) -> dict[str, float]:
    return {
        "reverse validation": reverse_accuracy(target, logits.argmax(1), source, logits.shape[1], seed),
        "cluster agreement": cluster_agreement(logits, features, seed),
        "information": information(logits),
        "source accuracy": _accuracy(network, source),
    }


def reverse_accuracy(target: Tensor, answers: Tensor, source: ImageSet, classes: int, seed: int = 0) -> float:
    """Return the accuracy on the source of a new T that learned from target images with the answers of another.

    Args:
        target: uint8, shape (N, C, S, S).
        answers: int64, shape (N,).
        source: labelled images of the same size.
        classes: how many there are.
        seed: of its weights and batches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", seed, "way back").initial_seed())
        network = Classifier(classes, target.shape[-1])
    network = network.to(computing_device())
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
    draw = generator("cpu", seed, "batches of the way back")
    for _ in range(STEPS):
        chosen = torch.randint(len(target), (BATCH_BACK,), generator=draw)
        loss = task_loss(network(to_float(target[chosen].to(device))), answers[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _accuracy(network, source)


def _accuracy(network: nn.Module, images: ImageSet) -> float:
    assert images.labels is not None
    logits = logits_of(network, images.images, source=True)
    return float((logits.argmax(1) == images.labels).double().mean())
