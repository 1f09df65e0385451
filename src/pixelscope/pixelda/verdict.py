"""Whether adaptation likely helps, told without target labels: T of the source alone beside the adapted T.

A generator that does not keep what images show leaves T unsure of the target, which the information in its answers tells
(Krause et al. 2010). One that draws the same wrong class for every image of a class leaves T sure, and its answers in clusters
as good as any; then T means something else by a class than T of the source alone does, which is looked at first.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pixelscope.data.disk_array import Bytes, spread
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import to_float
from pixelscope.engine.runtime import computing_device
from pixelscope.pixelda.forward import logits_and_features
from pixelscope.pixelda.metrics import BATCH, MeasuredSet, accuracies, confusion, measure_all
from pixelscope.pixelda.refinement.selection import cluster_agreement, information
from pixelscope.pixelda.results import DECIDES, SAME, Better, Verdict

IMAGES = 2000
"""Images of each domain that the rules look at, at most."""

RULES: Mapping[str, str] = {
    "information": "entropy of the mean answer less the mean entropy of answers, in nats",
    "cluster agreement": "adjusted mutual information of the answers with k-means clusters of the features",
    "source accuracy": "accuracy on source images",
}
"""Every rule, in words; the higher value is the better one."""

MARGIN = 0.02
"""Difference in information, in nats, under which neither is likely better."""


def compare(before: nn.Module, after: nn.Module, target: ImageSet, source: ImageSet) -> Verdict:
    """Say which of two classifiers likely reads the target better.

    Args:
        before: T of the source alone.
        after: the adapted T.
        target: images of the target that neither has learned from; their labels, if any, are not looked at.
        source: labelled images of the source, held out of training where there are some.

    Returns:
        The value of every rule for both, and the verdict.
    """
    shown = spread(target.images, IMAGES)
    some = source.select(np.arange(0, len(source), max(1, -(-len(source) // IMAGES))))
    known = {"source accuracy": MeasuredSet("source", [some], source=True)}
    values, answers = [], []
    for network in (before, after):
        logits, features = answers_of(network, shown)
        answers.append(logits.argmax(1))
        values.append(rule_values(network, logits, features, known))
    rules = {rule: (values[0][rule], values[1][rule]) for rule in RULES}
    same = same_classes(answers[0], answers[1])
    gain = rules[DECIDES][1] - rules[DECIDES][0]
    better: Better = "source only" if same < SAME or gain < -MARGIN else "adapted" if gain > MARGIN else "neither"
    agreement = float((answers[0] == answers[1]).float().mean())
    return Verdict(better=better, rules=rules, agreement=agreement, same_classes=same)


def same_classes(before: Tensor, after: Tensor) -> float:
    """Return the share of images in classes of `before` that `after` mostly calls the same.

    before, after: int64, shape (N,), the classes of the same images. Of several equally frequent answers the same one counts.
    """
    count = int(torch.stack([before, after]).max()) + 1
    counts = confusion(after, before, count)
    kept = counts.diagonal() == counts.amax(1)
    return float(counts.sum(1)[kept].sum() / counts.sum())


def rule_values(network: nn.Module, logits: Tensor, features: Tensor, known: Mapping[str, MeasuredSet]) -> dict[str, float]:
    """Return the value of every rule for one classifier.

    logits, features: what it says of unlabelled target images, as `answers_of` returns it.
    known: labelled images by the name of the rule that measures on them.
    """
    rules = {"information": information(logits), "cluster agreement": cluster_agreement(logits, features)}
    return rules | accuracies(measure_all(network, known))


def answers_of(network: nn.Module, images: Bytes) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) and features (N, F) of uint8 images, on the CPU."""
    network = network.to(computing_device()).eval()
    device = next(network.parameters()).device
    pieces = torch.from_numpy(images).split(BATCH)
    parts = [logits_and_features(network, to_float(some.to(device))) for some in pieces]
    logits, features = (torch.cat(both).float().cpu() for both in zip(*parts, strict=True))
    return logits, features
