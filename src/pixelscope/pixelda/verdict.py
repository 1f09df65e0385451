"""Estimate without target labels whether adaptation likely helps: compare T of the source alone with the adapted T.

A classifier that recognizes content predicts the same class for altered views of an image; one that guesses does not, however
confident it is. The verdict follows the mutual information between predictions for images and for altered views of them
(invariant information, Ji et al. 2019). A generator that turns one class into another leaves T as consistent as before. This
is checked first: do the two classifiers exchange the names of classes?
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from pixelscope.data.disk_array import Bytes, sample_positions, sampled
from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import to_float
from pixelscope.engine.augment import strong_view, weak_view
from pixelscope.engine.config import ViewsConfig
from pixelscope.engine.runtime import computing_device
from pixelscope.pixelda.forward import logits_and_features
from pixelscope.pixelda.metrics import BATCH, MeasuredSet, accuracies, confusion, measure_all
from pixelscope.pixelda.results import DECIDES, SWAPPED, Better, Verdict
from pixelscope.rng import generator

MAX_IMAGES = 2000
"""Maximum number of images per domain."""

CRITERIA: Mapping[str, str] = {
    "view information": "mutual information of predictions for an image and for altered views of it, in nats",
    "information": "entropy of the mean prediction minus the mean entropy of predictions, in nats",
    "cluster agreement": "adjusted mutual information of the predictions with k-means clusters of the features",
    "source accuracy": "accuracy on source images",
}
"""Description of each criterion; higher values are better."""

MARGIN = 0.02
"""Difference in view information, in nats, below which neither classifier is likely better."""

LEARNED = 0.1
"""Part of the way from chance (the frequency of the most frequent class) to 1 that an accuracy on the source must exceed."""

STARTS = 10
"""Runs of k-means, each from other initial centres."""

VIEWS = (weak_view, strong_view)
"""Altered views for `view_information`, with the default ranges of a refinement."""


def compare(before: nn.Module, after: nn.Module, target: ImageSet, source: ImageSet) -> Verdict:
    """Decide which of two classifiers is likely more accurate on the target.

    Args:
        before: T of the source alone.
        after: the adapted T.
        target: target images; their labels are not used. `before` was not trained on them, `after` only through G and D.
        source: labelled source images, if possible held out of training.

    Returns:
        The value of each criterion for both, and the verdict. It is `unknown` if the accuracy on the source is not
        clearly above chance.
    """
    shown = sampled(target.images, MAX_IMAGES)
    some = source.select(sample_positions(len(source), MAX_IMAGES))
    known = {"source accuracy": MeasuredSet("source", [some], source=True)}
    values, answers = [], []
    for network in (before, after):
        logits, features = answers_of(network, shown)
        answers.append(logits.argmax(1))
        values.append(criterion_values(network, shown, logits, features, known))
    criteria = {name: (values[0][name], values[1][name]) for name in CRITERIA}
    swapped = swapped_share(answers[0], answers[1])
    gain = criteria[DECIDES][1] - criteria[DECIDES][0]
    better: Better = "source only" if swapped > SWAPPED or gain < -MARGIN else "adapted" if gain > MARGIN else "neither"
    unlearned = _unlearned(some, *criteria["source accuracy"], better)
    return Verdict(
        better="unknown" if unlearned else better,
        criteria=criteria,
        agreement=float((answers[0] == answers[1]).double().mean()),
        swapped=swapped,
        images=len(shown),
        source_images=len(some),
        unlearned=unlearned,
    )


def _unlearned(source: ImageSet, before: float, after: float, better: Better) -> str:
    """Return which classifier has not learned the source, so that the comparison says nothing; empty if none.

    Args:
        source: the source images that the accuracies are measured on.
        before: accuracy of T of the source alone.
        after: accuracy of the adapted T; it matters only if it seems better.
        better: the verdict by the other rules.
    """
    chance = max(source.class_counts()) / len(source)
    error = (chance * (1 - chance) / len(source)) ** 0.5
    learned = chance + max(LEARNED * (1 - chance), 2 * error)
    if before <= learned:
        return "T of the source alone"
    return "the adapted T" if better == "adapted" and after <= learned else ""


def swapped_share(before: Tensor, after: Tensor) -> float:
    """Return the fraction of images that move from a class to the one that it is swapped with, in [0, 1].

    A class is swapped if `after` predicts one other class for more than half of its images by `before`, and vice versa. Wrong
    predictions alone are not swaps.

    Args:
        before: int64, shape (N,), predicted classes of N images.
        after: int64, shape (N,), classes predicted by another classifier.
    """
    count = int(torch.stack([before, after]).max()) + 1
    counts = confusion(after, before, count)
    most = (2 * counts > counts.sum(1, keepdim=True)) & (2 * counts > counts.sum(0, keepdim=True))
    return int(counts[most.fill_diagonal_(False)].sum()) / len(before)


def criterion_values(
    network: nn.Module, images: Bytes, logits: Tensor, features: Tensor, known: Mapping[str, MeasuredSet]
) -> dict[str, float]:
    """Return the value of each criterion for one classifier.

    Args:
        network: the classifier.
        images: uint8, shape (N, C, S, S), unlabelled target images.
        logits: its logits for `images`, as returned by `answers_of`.
        features: its features for `images`, as returned by `answers_of`.
        known: labelled images, by the name of the criterion that is the accuracy on them.
    """
    criteria = {
        "view information": view_information(network, images, logits.argmax(1)),
        "information": mutual_information(logits),
        "cluster agreement": cluster_agreement(logits, features),
    }
    return criteria | accuracies(measure_all(network, known))


def cluster_agreement(logits: Tensor, features: Tensor, seed: int = 0) -> float:
    """Return the adjusted mutual information of predicted classes and k-means clusters of L2-normalized features; at most 1.

    k is the number of classes, or of distinct features if that is smaller, as for images of a few shapes or exact copies. Of
    `STARTS` runs of k-means the one with the smallest distortion counts, because one run alone depends on its first centres.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # it takes long to import, and trainings start without it

    predicted = logits.argmax(1)
    if len(predicted.unique()) < 2:
        return 0.0
    unit = torch.nn.functional.normalize(features.float(), dim=1).double().numpy()
    count = min(logits.shape[1], len(np.unique(unit.round(6), axis=0)))
    clusters = min((_clusters(unit, count, (seed, start)) for start in range(STARTS)), key=lambda found: found[0])[1]
    return float(adjusted_mutual_info_score(clusters, predicted.numpy()))


def _clusters(features: np.ndarray, count: int, seed: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Return the distortion of one run of k-means on `features` (N, F), and each one's cluster (N,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, clusters = kmeans2(features, count, minit="++", rng=np.random.default_rng(seed), missing="warn", iter=30)
    return float(np.square(features - centres[clusters]).sum()), clusters


def mutual_information(logits: Tensor) -> float:
    """Return the mutual information of images and predictions in nats (Krause et al. 2010); confident, diverse predictions
    raise it."""
    p = logits.double().softmax(1)
    return float(_entropy(p.mean(0)) - _entropy(p).mean())


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(-1)


def view_information(network: nn.Module, images: Bytes, answers: Tensor) -> float:
    """Return the mutual information between predictions for images and for their views, in nats, averaged over `VIEWS`.

    Args:
        network: the classifier.
        images: uint8, shape (N, C, S, S).
        answers: int64, shape (N,), its predicted classes of `images`.
    """
    found = []
    for number, view in enumerate(VIEWS):
        draw = generator("cpu", 0, "verdict views", number)

        def altered(some: Tensor, view: Callable[..., Tensor] = view, draw: torch.Generator = draw) -> Tensor:
            return view(some, ViewsConfig(), draw)

        logits, _ = answers_of(network, images, altered)
        found.append(_shared_information(answers, logits.argmax(1)))
    return float(np.mean(found))


def answers_of(
    network: nn.Module, images: Bytes, alter: Callable[[Tensor], Tensor] = lambda images: images
) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) and features (N, F) of uint8 images, on the CPU.

    alter: transformation applied first, to float batches in [-1, 1] on the CPU.
    """
    device = computing_device()
    network = network.to(device).eval()
    pieces = torch.from_numpy(images).split(BATCH)
    parts = [logits_and_features(network, alter(to_float(some)).to(device)) for some in pieces]
    logits, features = (torch.cat(both).float().cpu() for both in zip(*parts, strict=True))
    return logits, features


def _shared_information(first: Tensor, second: Tensor) -> float:
    """Return the mutual information, in nats, of two classes per image."""
    count = int(torch.stack([first, second]).max()) + 1
    joint = confusion(first, second, count).double() / len(first)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    there = joint > 0
    return float((joint[there] * (joint[there] / independent[there]).log()).sum())
