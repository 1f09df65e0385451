"""Criteria that select a checkpoint without target labels, from predictions for unlabelled target images."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

STARTS = 10
"""Runs of k-means, each from other initial centres."""

SELECTORS = {
    "cluster agreement": "adjusted mutual information of the predictions with k-means clusters of the features",
    "information maximisation": "entropy of the mean prediction minus the mean entropy of predictions, in nats",
    "source validation": "accuracy on held-out source images",
}
"""Description of each criterion; the checkpoint with the highest value is selected."""


def selector_values(logits: Tensor, features: Tensor, source_validation: float, seed: int = 0) -> dict[str, float]:
    """Return the value of each criterion.

    logits: (N, classes) of unlabelled target images; features: (N, F), inputs of the last layer.
    """
    return {
        "cluster agreement": cluster_agreement(logits, features, seed),
        "information maximisation": mutual_information(logits),
        "source validation": source_validation,
    }


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


def select_checkpoints(values: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """Return the images seen at the checkpoint that each criterion selects; the later one of equals.

    values: by images seen, then by criterion.
    """
    newest_first = sorted(values, reverse=True)
    return {name: max(newest_first, key=lambda images: values[images][name]) for name in SELECTORS}


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(-1)
